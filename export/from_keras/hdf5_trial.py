"""Reads an HDF5 file in a child process first: its library dies of some damaged files, and then the child alone dies.

The child is a fork, which costs tens of milliseconds, not the second of a new Python; it calls h5py and nothing else.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import warnings
from contextlib import suppress
from pathlib import Path

from ...runtime.errors import InputError
from . import untrusted

_TIMEOUT = 120  # Seconds of processor time, in which gigabytes are read.


def survive(weights: Path, path: Path) -> None:
    """Read all of an HDF5 file that `untrusted.check_hdf5` passes, in a child; errors are left to who reads it here.

    Args:
        weights: the HDF5 file.
        path: what to call it in an error.

    Raises:
        InputError: the library died of it, or never came to an end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of threads beside a fork.
        child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (_TIMEOUT, _TIMEOUT))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with suppress(BaseException):
                _read_all(weights)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        raise InputError(
            f"{path}: is damaged or hostile: the HDF5 library died of it ({name}), in a process of its own; copy the "
            "file again, or save the model again"
        )


def _read_all(weights: Path) -> None:
    import h5py

    with h5py.File(weights) as file:
        untrusted.check_hdf5(file, weights, weights.stat().st_size)

        def read(_: str, item: h5py.Group | h5py.Dataset) -> None:
            for name in item.attrs:
                with suppress(Exception):
                    item.attrs[name]
            if isinstance(item, h5py.Dataset):
                with suppress(Exception):
                    item[()]

        read("", file)
        file.visititems(read)
