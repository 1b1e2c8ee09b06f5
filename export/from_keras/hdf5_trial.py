"""Reads an HDF5 file in a child process first: its library dies of some damaged files, and then the child alone dies.

The child is a fork, which costs tens of milliseconds, not the second of a new Python; it calls h5py and nothing else.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import warnings
from contextlib import suppress
from pathlib import Path

from ...runtime.errors import InputError
from . import untrusted

# Seconds, in which gigabytes are read. Also of a child that waits: for a lock that another thread held at the fork.
_TIMEOUT = 120


def survive(weights: Path, path: Path) -> None:
    """Read all of an HDF5 file that `untrusted.check_hdf5` passes, in a child; errors are left to who reads it here.

    Args:
        weights: the HDF5 file.
        path: what to call it in an error.

    Raises:
        InputError: the library died of it, or never came to an end.
    """
    if not hasattr(os, "fork"):  # Windows. Who reads the file here is then the first to do so.
        return
    ended, alive = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of threads beside a fork.
        child = os.fork()
    if child == 0:
        try:
            import resource

            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with suppress(BaseException):
                _read_all(weights)
        finally:
            os._exit(0)
    os.close(alive)
    in_time = False
    try:
        in_time = bool(select.select([ended], [], [], _TIMEOUT)[0])
    finally:
        os.close(ended)
        if not in_time:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not in_time or os.WIFSIGNALED(status):
        number = os.WTERMSIG(status) if in_time else 0
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        what = f"died of it ({name})" if in_time else f"never came to an end with it ({_TIMEOUT} s)"
        raise InputError(
            f"{path}: is damaged or hostile: the HDF5 library {what}, in a process of its own; copy the file again, or "
            "save the model again"
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
