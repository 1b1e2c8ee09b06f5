"""Calibration: data for it from a file, and what a network's matrix products see of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..runtime.durable import open_regular
from ..runtime.errors import InputError
from ..runtime.network import ArrayOps, Layer, Network
from ..runtime.rows import read_table
from .products import Product, is_large, products
from .stability import bounded_cells

Key: TypeAlias = tuple[str, int]
FloatArray: TypeAlias = npt.NDArray[Any]
# What is used of the data: so many timesteps, in pieces of so many at most, each from zero state.
MAX_STEPS, PIECE = 16_384, 512
# And so many at most of one long stream.
MAX_CARRIED = 4096
# Sequences on which two roundings are compared, and their timesteps.
MEASURED_SEQUENCES, MEASURED_STEPS = 16, 256
# So many timesteps of all pieces are added to the second moments at a time.
_CHUNK = 32


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a product multiplied and gave.

    Attributes:
        largest: the largest absolute values of all its inputs side by side.
        bound: what these can never exceed, infinite where there is no such.
        moments: Σ zᵀz / count over what the roundings may learn from, z being all the inputs side by side.
        count: of how many.
        sums: the largest absolute values of its columns, without biases.
        sequences: (T, batch, width) inputs of its layer on which to compare roundings.
        counted: (T, batch), which of them the moments have not seen.
    """

    largest: npt.NDArray[np.float64]
    bound: npt.NDArray[np.float64]
    moments: npt.NDArray[np.float64]
    count: int
    sums: npt.NDArray[np.float64]
    sequences: npt.NDArray[np.float32]
    counted: npt.NDArray[np.bool_]

    def moments_of(self, product: Product) -> npt.NDArray[np.float64]:
        """The second moments of those inputs that a part of the product has."""
        return self.moments[np.ix_(product.rows, product.rows)]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the products of a network's layers of at least 1,024 weights saw of calibration data, by their keys."""

    products: dict[tuple[str, int], Recorded]

    def of(self, product: Product) -> Recorded:
        """What the product saw."""
        return self.products[product.key]


def record(network: Network, sequences: npt.NDArray[np.float32], longest: int | None = None) -> Calibration:
    """Run a network over calibration sequences and note what its products multiply and give.

    Args:
        network: what to run.
        sequences: (N, T, features). Long ones are cut into pieces of 512 timesteps, each run from zero state; of all
            of these 16,384 timesteps at most are used, evenly chosen. Where a cell's outputs have no bound, a part is
            run once more as one long stream, because a state that is carried on reaches values that short sequences
            never show.
        longest: timesteps after which to reset, for a model whose state cannot be carried further.

    Raises:
        InputError: the network's values grow beyond all bounds on them.
    """
    pieces = _pieces(sequences, min(longest or PIECE, PIECE))
    recorder = _Recorder(network, pieces)
    with np.errstate(over="ignore", invalid="ignore"):  # A model that overflows is refused below.
        recorder.run(pieces.transpose(1, 0, 2))
        if longest is None and not bounded_cells(network):
            recorder.run_carried(sequences.reshape(-1, 1, sequences.shape[2])[:MAX_CARRIED])
    return recorder.result()


def _pieces(sequences: npt.NDArray[np.float32], longest: int) -> npt.NDArray[np.float32]:
    """Sequences of at most `longest` timesteps, (N, T, features), evenly chosen."""
    count = -(-sequences.shape[1] // longest)
    length = sequences.shape[1] // count
    pieces = sequences[:, : count * length].reshape(-1, length, sequences.shape[2])
    most = max(MAX_STEPS // length, 1)
    return pieces[np.unique(np.linspace(0, len(pieces) - 1, min(len(pieces), most)).astype(int))]


class _Recorder(ArrayOps):
    """Computes as NumPy does, and notes what every product of a large layer is asked for."""

    def __init__(self, network: Network, pieces: npt.NDArray[np.float32]) -> None:
        self._network = network
        self._products = {layer.name: products(layer) for layer in network.layers if is_large(layer)}
        self._weights = {each.key: each.weights for some in self._products.values() for each in some}
        self._coming: Iterator[Product] = iter(())
        self._largest: dict[Key, Any] = defaultdict(float)
        self._sums: dict[Key, Any] = defaultdict(float)
        self._moments: dict[Key, Any] = defaultdict(float)
        self._pending: dict[Key, list[npt.NDArray[Any]]] = defaultdict(list)
        self._sequences: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        batch, steps = pieces.shape[:2]
        self._learned = self._to_learn_from(batch, steps)
        # Roundings are compared on what the moments have not seen.
        unseen = np.flatnonzero(~self._learned.all(0))
        at = np.linspace(0, len(unseen) - 1, min(len(unseen), MEASURED_SEQUENCES)).astype(int)
        self._measured = unseen[np.unique(at)]
        self._carried = False

    @staticmethod
    def _to_learn_from(batch: int, steps: int) -> npt.NDArray[np.bool_]:
        """(T, batch): three sequences of four, or where there are fewer the first three quarters of each."""
        learned = np.ones((steps, batch), bool)
        if batch >= 4:
            learned[:, 3::4] = False
        else:
            learned[-(-3 * steps // 4) :] = False
        return learned if not learned.all() else np.zeros_like(learned)

    def run(self, batch: npt.NDArray[np.float32]) -> None:
        state: Sequence[FloatArray] = self._network.zero_state(batch.shape[1])
        for start in range(0, len(batch), _CHUNK):
            for x in batch[start : start + _CHUNK]:
                _, state = self._network.lower(self, x, state)
            self._note(start)

    def run_carried(self, stream: npt.NDArray[np.float32]) -> None:
        self._carried = True
        self.run(stream)

    def apply(
        self, layer: Layer, inputs: Sequence[FloatArray], states: Sequence[FloatArray]
    ) -> tuple[FloatArray, Sequence[FloatArray]]:
        self._coming = iter(self._products.get(layer.name, ()))
        if layer.name in self._products and not self._carried:
            self._sequences[layer.name].append(inputs[0][self._measured])
        return super().apply(layer, inputs, states)

    def product(self, parts: Sequence[tuple[FloatArray, FloatArray]], bias: FloatArray) -> FloatArray:
        product = next(self._coming, None)
        if product is not None:
            self._pending[product.key].append(np.concatenate([x for x, _ in parts], -1))
        return super().product(parts, bias)

    def result(self) -> Calibration:
        count = int(self._learned.sum())
        counted = ~self._learned[:, self._measured]
        if counted[:MEASURED_STEPS].any():
            counted = counted[:MEASURED_STEPS]
        bounds = _bounds(self._network)
        found: dict[Key, Recorded] = {}
        for name, some in self._products.items():
            sequences = np.array(self._sequences[name], np.float32)[: len(counted)]
            for product in some:
                largest, of_state = self._largest[product.key], _of_state(product)
                if not np.isfinite(largest).all():
                    what = "output" if of_state[np.argmin(np.isfinite(largest))] else "input"
                    raise InputError(
                        f"{self._network.name}: on the calibration data, the {what} of layer {name!r} grows beyond "
                        "float32; calibrate with inputs like those the model will see, and if it was trained on "
                        "windows of some timesteps, say how many (--window T)"
                    )
                of_input, of_output = bounds[name]
                found[product.key] = Recorded(
                    largest,
                    np.where(of_state, of_output, of_input),
                    self._moments[product.key] / max(count, 1),
                    count,
                    self._sums[product.key],
                    sequences,
                    counted,
                )
        return Calibration(found)

    def _note(self, start: int) -> None:
        """Take in the inputs of the last timesteps, from `start` on."""
        for key, waiting in self._pending.items():
            z = np.array(waiting)  # (timesteps, batch, inputs)
            waiting.clear()
            self._largest[key] = np.maximum(self._largest[key], np.abs(z).max((0, 1)).astype(np.float64))
            sums = np.abs(z.reshape(-1, z.shape[2]) @ self._weights[key]).max(0)
            self._sums[key] = np.maximum(self._sums[key], sums)
            if not self._carried:
                learned = z[self._learned[start : start + len(z)]].astype(np.float64)
                self._moments[key] = self._moments[key] + learned.T @ learned


def _of_state(product: Product) -> npt.NDArray[np.bool_]:
    """For each of a product's inputs side by side whether a state of its layer is in it."""
    return np.repeat(product.of_state, [len(positions) for positions in product.positions])


def _bounds(network: Network) -> dict[str, tuple[float, float]]:
    """By the name of a layer, what its inputs and its outputs cannot exceed in absolute value, whatever comes in."""
    bounds: dict[str, tuple[float, float]] = {}
    bound = np.inf
    for layer in network.layers:
        last, bound = bound, layer.bound(bound)
        bounds[layer.name] = last, bound
    return bounds


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


def read_sequences(
    path: str | Path,
    features: Sequence[str] | int,
    fit: Callable[[npt.ArrayLike], npt.NDArray[np.float32]] | None = None,
) -> npt.NDArray[np.float32]:
    """Calibration sequences from a `.npy`, `.npz` or CSV file.

    Args:
        path: `.npy`: (T, features) or (N, T, features). `.npz`: the same in the array `sequences`, or in its only
            array. CSV: one timestep per row, one sequence; with a header, the model's features are found by name.
        features: the names of the model's features in order, or how many they are if they have no names.
        fit: makes sequences of an array, where it may have another shape as well.

    Raises:
        InputError: the file cannot be read, or does not fit the model.
    """
    where = Path(path)
    named = not isinstance(features, int)
    names = tuple(features) if not isinstance(features, int) else tuple(f"x{i}" for i in range(features))
    try:
        if where.suffix == ".npy":
            with open_regular(where) as file:
                array = np.load(file, allow_pickle=False)
                return as_sequences(array, len(names), str(where)) if fit is None else fit(array)
        if where.suffix == ".npz":
            with open_regular(where) as file, np.load(file, allow_pickle=False) as arrays:
                if "sequences" not in arrays.files and len(arrays.files) != 1:
                    raise InputError(
                        f"{where}: holds the arrays {', '.join(arrays.files)}; call the one to use 'sequences'"
                    )
                name = "sequences" if "sequences" in arrays.files else arrays.files[0]
                return as_sequences(arrays[name], len(names), str(where)) if fit is None else fit(arrays[name])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{where}: cannot be read as calibration data ({error})") from error
    if where.suffix.lower() != ".csv":
        raise InputError(f"{where}: calibration data is a .npy, .npz or .csv file")
    rows = as_sequences(read_table(where, names, named), len(names), str(where))
    return rows if fit is None else fit(rows)
