"""Calibration: data for it from a file, and what a network's matrix products see of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..runtime.activations import UNLIMITED, Function
from ..runtime.durable import open_regular
from ..runtime.errors import InputError
from ..runtime.network import (
    GRU,
    LSTM,
    Activation,
    Affine,
    Dense,
    Layer,
    LayerNormalization,
    Masking,
    Network,
    SimpleRNN,
    State,
)
from ..runtime.rows import read_table
from .products import Product, is_large, product_inputs, products

# What is used of the data: so many timesteps, in pieces of so many at most, each from zero state.
MAX_STEPS, PIECE = 16_384, 512
# And so many at most of one long stream.
MAX_CARRIED = 4096
# Sequences on which two roundings are compared, and their timesteps.
MEASURED_SEQUENCES, MEASURED_STEPS = 16, 256
# So many timesteps of all pieces are added to the second moments at a time.
_CHUNK = 32
# Functions with values in [0, 1] and in [-1, 1].
_GATES = ("sigmoid", "softmax", "hard_sigmoid", "hard_sigmoid_keras2", "sparse_sigmoid")
_WITHIN_ONE = (*_GATES, "tanh", "softsign", "hard_tanh")


@dataclass(frozen=True, eq=False)
class Recorded:
    """What the products of one layer multiplied and gave.

    Attributes:
        largest: by the name of an input (see `product_inputs`) the largest absolute values, one for each element.
        bound: by that name what no value can exceed, infinite where there is no such.
        moments: Σ zᵀz / count over what the roundings may learn from, z being all the inputs side by side.
        count: of how many.
        sums: by a product's key the largest absolute values of its columns, without biases.
        sequences: (T, batch, width) values of `x` on which to compare roundings.
        counted: (T, batch), which of them the moments have not seen.
    """

    largest: dict[str, npt.NDArray[np.float64]]
    bound: dict[str, float]
    moments: npt.NDArray[np.float64]
    count: int
    sums: dict[tuple[str, tuple[str, ...], int], npt.NDArray[np.float64]]
    sequences: npt.NDArray[np.float32]
    counted: npt.NDArray[np.bool_]

    def largest_of(self, product: Product) -> npt.NDArray[np.float64]:
        """The largest absolute values of a product's inputs, side by side."""
        return np.concatenate([self.largest[name] for name in product.inputs])

    def bound_of(self, product: Product) -> npt.NDArray[np.float64]:
        """What these can never exceed."""
        return np.concatenate([np.full(len(self.largest[name]), self.bound[name]) for name in product.inputs])

    def moments_of(self, product: Product) -> npt.NDArray[np.float64]:
        """The second moments of a product's inputs."""
        at, found = 0, []
        for name, values in self.largest.items():
            if name in product.inputs:
                found.append(np.arange(at, at + len(values)))
            at += len(values)
        where = np.concatenate(found)
        return self.moments[np.ix_(where, where)]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a network's layers of at least 1,024 weights saw of calibration data, by the layer's name."""

    layers: dict[str, Recorded]

    def of(self, product: Product) -> Recorded:
        """What the product's layer saw."""
        return self.layers[product.layer.name]


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
        if longest is None and any(np.isinf(_cell_bound(layer)) for layer in network.recurrent_layers):
            recorder.run_carried(sequences.reshape(-1, 1, sequences.shape[2])[:MAX_CARRIED])
    return recorder.result()


def _pieces(sequences: npt.NDArray[np.float32], longest: int) -> npt.NDArray[np.float32]:
    """Sequences of at most `longest` timesteps, (N, T, features), evenly chosen."""
    count = -(-sequences.shape[1] // longest)
    length = sequences.shape[1] // count
    pieces = sequences[:, : count * length].reshape(-1, length, sequences.shape[2])
    most = max(MAX_STEPS // length, 1)
    return pieces[np.unique(np.linspace(0, len(pieces) - 1, min(len(pieces), most)).astype(int))]


class _Recorder:
    def __init__(self, network: Network, pieces: npt.NDArray[np.float32]) -> None:
        self._network = network
        self._bounds = _bounds(network)
        self._products = {layer.name: products(layer) for layer in network.layers if is_large(layer)}
        self._widths: dict[str, dict[str, int]] = {}
        self._largest: dict[str, Any] = defaultdict(float)
        self._sums: dict[str, dict[Any, Any]] = defaultdict(lambda: defaultdict(float))
        self._moments: dict[str, Any] = defaultdict(float)
        self._pending: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
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
        state = self._network.zero_state(batch.shape[1])
        for start in range(0, len(batch), _CHUNK):
            for x in batch[start : start + _CHUNK]:
                _, state = self._network.step(state, x, self._observe)
            self._note(start)

    def run_carried(self, stream: npt.NDArray[np.float32]) -> None:
        self._carried = True
        self.run(stream)

    def result(self) -> Calibration:
        layers: dict[str, Recorded] = {}
        count = int(self._learned.sum())
        counted = ~self._learned[:, self._measured]
        if counted[:MEASURED_STEPS].any():
            counted = counted[:MEASURED_STEPS]
        for name, widths in self._widths.items():
            edges = np.cumsum(list(widths.values()))[:-1]
            largest = dict(zip(widths, np.split(self._largest[name], edges), strict=True))
            for of, value in largest.items():
                if not np.isfinite(value).all():
                    raise InputError(
                        f"{self._network.name}: on the calibration data, the {'input' if of == 'x' else 'output'} of "
                        f"layer {name!r} grows beyond float32; calibrate with inputs like those the model will see, "
                        "and if it was trained on windows of some timesteps, say how many (--window T)"
                    )
            layers[name] = Recorded(
                largest,
                {of: self._bounds[name][0 if of == "x" else 1] for of in largest},
                self._moments[name] / max(count, 1),
                count,
                dict(self._sums[name]),
                np.array(self._sequences[name], np.float32)[: len(counted)],
                counted,
            )
        return Calibration(layers)

    def _observe(self, layer: Layer, x: npt.NDArray[Any], last: State, new: State) -> None:
        if layer.name not in self._products:
            return
        assert isinstance(layer, (Dense, LSTM, GRU, SimpleRNN))
        inputs = product_inputs(layer, x, last)
        self._widths[layer.name] = {of: values.shape[-1] for of, values in inputs.items()}
        self._pending[layer.name].append(np.concatenate(list(inputs.values()), -1))
        if not self._carried:
            self._sequences[layer.name].append(x[self._measured])

    def _note(self, start: int) -> None:
        """Take in the inputs of the last timesteps, from `start` on."""
        for name, waiting in self._pending.items():
            z = np.array(waiting)  # (timesteps, batch, inputs)
            waiting.clear()
            self._largest[name] = np.maximum(self._largest[name], np.abs(z).max((0, 1)).astype(np.float64))
            edges = np.cumsum([0, *self._widths[name].values()])
            at = {of: np.arange(a, b) for of, a, b in zip(self._widths[name], edges, edges[1:], strict=False)}
            for product in self._products[name]:
                columns = np.concatenate([at[of] for of in product.inputs])
                sums = np.abs(z[..., columns].reshape(-1, len(columns)) @ product.weights).max(0)
                self._sums[name][product.key] = np.maximum(self._sums[name][product.key], sums)
            if not self._carried:
                learned = z[self._learned[start : start + len(z)]].astype(np.float64)
                self._moments[name] = self._moments[name] + learned.T @ learned


def _bounds(network: Network) -> dict[str, tuple[float, float]]:
    """By the name of a layer, what its inputs and its outputs cannot exceed in absolute value, whatever comes in."""
    bounds: dict[str, tuple[float, float]] = {}
    bound, width = np.inf, network.features
    for layer in network.layers:
        last = bound
        if isinstance(layer, (LSTM, GRU, SimpleRNN)):
            bound, width = _cell_bound(layer), layer.units
        elif isinstance(layer, Dense):
            bound, width = _function_bound(layer.activation), layer.kernel.shape[1]
        elif isinstance(layer, Activation):
            bound = min(_function_bound(layer.function), bound if layer.function.name == "relu" else np.inf)
        elif isinstance(layer, Affine):
            bound = float(np.max((bound + np.abs(layer.center)) * np.abs(layer.scale) + np.abs(layer.offset)))
        elif isinstance(layer, LayerNormalization):
            bound = float(np.max(np.sqrt(width) * np.abs(layer.gamma) + np.abs(layer.beta)))
        elif not isinstance(layer, Masking):
            bound = np.inf
        bounds[layer.name] = last, bound
    return bounds


def _cell_bound(layer: LSTM | GRU | SimpleRNN) -> float:
    """What a cell's output cannot exceed: of itself, so that a state carried on for ever cannot either."""
    bound = _function_bound(layer.activation)
    if isinstance(layer, SimpleRNN):
        return bound
    # The output gate of an LSTM scales by at most 1; a GRU's new state lies between the last and the candidate.
    return bound if layer.recurrent_activation.name in _GATES else np.inf


def _function_bound(function: Function) -> float:
    if function.name in _WITHIN_ONE:
        return 1.0
    if function.name == "relu":
        slope, maximum, threshold = function.parameters
        return maximum if slope == 0 and maximum < UNLIMITED and threshold >= 0 else np.inf
    return np.inf


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
    return as_sequences(read_table(where, names, named), len(names), str(where))
