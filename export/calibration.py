"""Calibration: data for it from a file, and the ranges that a network's values take on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..runtime.durable import open_regular
from ..runtime.errors import InputError
from ..runtime.network import GRU, LSTM, Dense, Layer, Network, SimpleRNN, State
from ..runtime.rows import read_table

MAX_SEQUENCES, MAX_STEPS = 64, 8192


@dataclass(frozen=True)
class Ranges:
    """The largest absolute values seen: per layer and kind of value, one for each element.

    Kinds: `x` the layer's input; `sum` what an activation is applied to; `x_sum` and `h_sum` the parts of it that
    come from the input and from the state; `c` and `h` the states.
    """

    largest: dict[tuple[str, str], npt.NDArray[np.float64]]

    def of(self, layer: str, kind: str) -> npt.NDArray[np.float64]:
        """Largest absolute values, one for each element."""
        return self.largest[layer, kind]


def observe_ranges(network: Network, sequences: npt.NDArray[np.float32], longest: int | None = None) -> Ranges:
    """Run a network over calibration sequences and note how large its values become.

    Each sequence is run from a reset, and all of them once more as one long stream, because a state that is
    carried on reaches values that short sequences never show; a range too narrow clips the state.

    Args:
        network: what to run.
        sequences: (N, T, features); at most 64 sequences, evenly chosen, and 8,192 timesteps are used.
        longest: timesteps after which to reset, for a model whose state cannot be carried further.

    Raises:
        InputError: the network's values grow beyond all bounds on them.
    """
    if longest is not None and sequences.shape[1] > longest:
        whole = sequences.shape[1] // longest * longest
        sequences = sequences[:, :whole].reshape(-1, longest, sequences.shape[2])
    chosen = sequences[np.linspace(0, len(sequences) - 1, min(len(sequences), MAX_SEQUENCES)).astype(int)]
    chosen = chosen[:, :MAX_STEPS]
    stream = chosen.reshape(-1, 1, chosen.shape[-1])[:MAX_STEPS]
    largest: dict[tuple[str, str], Any] = defaultdict(float)

    def note(name: str, kind: str, value: npt.NDArray[Any]) -> None:
        seen = np.abs(value).reshape(-1, value.shape[-1]).max(0).astype(np.float64)
        largest[name, kind] = np.maximum(largest[name, kind], seen)

    def observe(layer: Layer, x: npt.NDArray[Any], last: State, new: State) -> None:
        name = layer.name
        note(name, "x", x)
        if isinstance(layer, Dense):
            note(name, "sum", x @ layer.kernel + layer.bias)
        elif isinstance(layer, (LSTM, SimpleRNN, GRU)):
            h = last[0]
            x_sum, h_sum = x @ layer.kernel + layer.bias, h @ layer.recurrent_kernel
            if isinstance(layer, GRU):
                h_sum = h_sum + layer.recurrent_bias
            note(name, "x_sum", x_sum)
            note(name, "h_sum", h_sum)
            note(name, "sum", x_sum + h_sum)
            for kind, value in zip(layer.state_names, new, strict=True):
                note(name, kind, value)

    with np.errstate(over="ignore", invalid="ignore"):  # A model that overflows is refused below.
        for batch in (chosen.transpose(1, 0, 2), stream)[: 2 if longest is None else 1]:
            state = network.zero_state(batch.shape[1])
            for x in batch:
                _, state = network.step(state, x, observe)
    for (layer, kind), value in largest.items():
        if not np.isfinite(value).all():
            raise InputError(
                f"{network.name}: on the calibration data, {kind} of layer {layer!r} grows beyond float32; calibrate "
                "with inputs like those the model will see, and if it was trained on windows of some timesteps, say "
                "how many (--window T)"
            )
    return Ranges(dict(largest))


def as_sequences(data: npt.ArrayLike, features: int, source: str = "calibration data") -> npt.NDArray[np.float32]:
    """Sequences (N, T, features) from an array of these, or from one sequence (T, features).

    Raises:
        InputError: another shape or dtype, nothing in it, or a value that is not finite.
    """
    array = np.asarray(data)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{source}: holds {array.dtype}, not numbers")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[2] != features:
        raise InputError(
            f"{source}: has shape {np.shape(data)}; the model takes (timesteps, {features}) or "
            f"(sequences, timesteps, {features})"
        )
    if array.size == 0:
        raise InputError(f"{source}: holds no timesteps")
    with np.errstate(over="ignore"):  # What does not fit becomes infinite, and is told below.
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        n, t, f = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"{source}: sequence {n}, timestep {t}, feature {f} is not a finite float32 number")
    return array


def read_sequences(path: str | Path, features: Sequence[str] | int) -> npt.NDArray[np.float32]:
    """Calibration sequences from a `.npy`, `.npz` or CSV file.

    Args:
        path: `.npy`: (T, features) or (N, T, features). `.npz`: the same in the array `sequences`, or in its only
            array. CSV: one timestep per row, one sequence; with a header, the model's features are found by name.
        features: the names of the model's features in order, or how many they are if they have no names.

    Raises:
        InputError: the file cannot be read, or does not fit the model.
    """
    where = Path(path)
    named = not isinstance(features, int)
    names = tuple(features) if not isinstance(features, int) else tuple(f"x{i}" for i in range(features))
    try:
        if where.suffix == ".npy":
            with open_regular(where) as file:
                return as_sequences(np.load(file, allow_pickle=False), len(names), str(where))
        if where.suffix == ".npz":
            with open_regular(where) as file, np.load(file, allow_pickle=False) as arrays:
                if "sequences" not in arrays.files and len(arrays.files) != 1:
                    raise InputError(
                        f"{where}: holds the arrays {', '.join(arrays.files)}; call the one to use 'sequences'"
                    )
                name = "sequences" if "sequences" in arrays.files else arrays.files[0]
                return as_sequences(arrays[name], len(names), str(where))
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{where}: cannot be read as calibration data ({error})") from error
    if where.suffix.lower() != ".csv":
        raise InputError(f"{where}: calibration data is a .npy, .npz or .csv file")
    return as_sequences(read_table(where, names, named), len(names), str(where))
