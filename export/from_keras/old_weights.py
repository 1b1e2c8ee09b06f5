"""Weights of Keras 2 in the form in which Keras 3 looks for them.

Keras 2.12 to 2.15 on Windows joined the names of groups in a `.keras` file with backslashes. CuDNNLSTM and CuDNNGRU,
Keras 2's layers for GPUs alone, compute what LSTM and GRU(reset_after=True) compute, from weights in NVIDIA's layout:

- the matrix of each gate is stored as (units, inputs), row by row, under the shape (inputs, units);
- the biases of the inputs and of the state stand one behind the other, so there are twice as many numbers.

Gates come in the same order in both. Source: cuDNN's documentation of cudnnRNNMode_t, which gives the equations, and
`preprocess_weights_for_loading` of Keras 2, which converts between the layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_KERNELS = (("kernel:0", "recurrent_kernel:0", "bias:0"), ("kernel", "recurrent_kernel", "bias"))


def needs_update(file: Any) -> bool:
    """Whether an open HDF5 file of weights has names or layouts that Keras 3 does not know."""
    return any("\\" in name for name in file) or next(_cudnn_groups(file), None) is not None


def update(file: Any) -> None:
    """Rewrite names and layouts in an HDF5 file of weights, open for writing, as Keras 3 expects them."""
    for name in [name for name in file if "\\" in name]:
        _merge(file, name, name.replace("\\", "/"))
    for group, names in list(_cudnn_groups(file)):
        arrays = [group[name][()] for name in names]
        for name, array in zip(names, from_cudnn(*arrays), strict=True):
            del group[name]
            group[name] = array


def from_cudnn(kernel: Array, recurrent_kernel: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Weights of CuDNNLSTM or CuDNNGRU as those of LSTM or GRU(reset_after=True).

    Args:
        kernel: (inputs, gates · units), with 4 gates i f c o of an LSTM, or 3 gates z r h of a GRU.
        recurrent_kernel: (units, gates · units).
        bias: (2 · gates · units,), those of the inputs before those of the state.

    Returns:
        The same three; the bias has the shape (4 · units,) of an LSTM and (2, 3 · units) of a GRU.
    """
    gates = recurrent_kernel.shape[1] // recurrent_kernel.shape[0]
    both = bias.reshape(2, -1)
    # An LSTM adds up the two biases anyway.
    return _plain(kernel, gates), _plain(recurrent_kernel, gates), both.sum(0) if gates == 4 else both


def _plain(kernel: Array, gates: int) -> Array:
    return np.hstack([part.reshape(part.shape[::-1]).T for part in np.hsplit(kernel, gates)])


def _merge(file: Any, name: str, wanted: str) -> None:
    """Move a group; where one stands there already, what is in it."""
    if wanted not in file:
        file.move(name, wanted)
        return
    for inner in list(file[name]):
        _merge(file, f"{name}/{inner}", f"{wanted}/{inner}")
    del file[name]


def _cudnn_groups(group: Any) -> Iterator[tuple[Any, tuple[str, str, str]]]:
    """Groups that hold the weights of one recurrent layer in NVIDIA's layout, and the names of the three."""
    import h5py

    for names in _KERNELS:
        found: list[Any] = [group.get(name) for name in names]
        if all(isinstance(item, h5py.Dataset) for item in found) and _is_cudnn(*(item.shape for item in found)):
            yield group, names  # pyright: ignore[reportReturnType]
    for name in list(group):
        if isinstance(group[name], h5py.Group):
            yield from _cudnn_groups(group[name])


def _is_cudnn(kernel: tuple[int, ...], recurrent: tuple[int, ...], bias: tuple[int, ...]) -> bool:
    if len(kernel) != 2 or len(recurrent) != 2 or kernel[1] != recurrent[1]:
        return False
    units = recurrent[0]
    return recurrent[1] in (3 * units, 4 * units) and bias == (2 * recurrent[1],)
