"""The operators of layers as TFLite operators whose matrix products are integer: `int8` and `int16x8`.

Everything but the products is the float step: the states, the gates and all that is element-wise are float32, a few
hundred numbers whose rounding would cost precision and save nothing. A product multiplies int16 inputs with int8
weights, in `int16x8` with two int8 parts of the weights, the second being what the first left over.

- Products have no bias and one scale: with a bias, which would have to be int64, LiteRT takes its slow path (ten
  times), and CMSIS-NN, the kernels of TensorFlow Lite Micro, refuses a scale for each row. Each row is therefore
  divided by its largest weight before, and multiplied with it and given its bias behind the product, in float.
- Without a bias the sums are int32. What could leave that is split (see `_pieces`).
- Inputs have room for several times what calibration has seen, and as much as a function's bound where it has one.
  Inputs with small weights take fewer of the 16 bits than the others, so that their weights take more of the eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration, Recorded
from ..products import Product, is_integer
from ..rounding import Rounding, nearest, row_scales
from .float_step import FloatStep
from .writer import GraphWriter, Value

# How many times larger than in calibration inputs and sums may become before they are clipped; and a layer's own
# state, which is made of these.
MARGIN, STATE_MARGIN = 8.0, 4.0
# Where calibration saw rare peaks, there is room enough in less: so many times the root of the mean square, which is
# `MARGIN` times the peaks of normal noise, but still so many times the peaks.
TYPICAL, LEAST_MARGIN = 32.0, 2.0
# And at least so much of what they can ever be, where that is known, whatever calibration saw of it.
LEAST_OF_BOUND = 1 / 32
# How many times coarser than the others' an input's steps may be, by the parts that the weights have.
MOST_COARSENED = {1: 64.0, 2: 16.0}
# Where sigmoid and tanh no longer change (by 6e-6 and 1e-10), so that clipping their inputs there is harmless.
FLAT = 12.0
INT16 = 32767
# One step of the first part of the weights, a row's largest being 1.
STEP = 1 / 127
# Steps of what the first part left are so many times coarser than they could be: it uses all of int8 evenly, so that
# its sums would else be larger than the first part's, with which they share 16 bits.
REST = 4.0
# The largest Σ|weights| of a row whose sum with int16 inputs, down to -32768, is below 2³¹.
MOST_OF_A_ROW = (2**31 - 1) // 32768
Floats = npt.NDArray[np.float64]


class IntegerProducts(FloatStep):
    """Writes what a timestep computes.

    Args:
        graph: where to.
        precision: `int8` or `int16x8`.
        calibration: of the network that will be emitted; None if none of its matrices is large enough to be integer.
        integer: which products have integer weights.
    """

    def __init__(
        self,
        graph: GraphWriter,
        precision: str,
        calibration: Calibration | None,
        integer: Callable[[Product], bool] = is_integer,
    ) -> None:
        super().__init__(graph, precision, integer=integer)
        self._parts = 2 if precision == "int16x8" else 1
        self._calibration = calibration
        self._rounding = None if calibration is None else Rounding(calibration)

    def linear(self, product: Product, inputs: Sequence[Value], bias: npt.NDArray[Any]) -> Value:
        """Σ inputᵢ · weightsᵢ + bias, float to float."""
        if not self._integer(product):
            return super().linear(product, inputs, bias)
        if self._calibration is None or self._rounding is None:
            raise ValueError("integer products need calibration")
        ops, seen = self.ops, self._calibration.of(product)
        reach = _reach(product, seen, MOST_COARSENED[self._parts])
        norms = row_scales(product.weights.T * reach) * 127
        x = inputs[0] if len(inputs) == 1 else ops.concat(inputs)
        unit = reach[0] if (reach == reach[0]).all() else 1.0
        if (reach != unit).any():
            x = ops.mul(x, ops.constant((1 / reach)[None]))
        parts = _rounded(product, norms / reach, self._parts, self._rounding)
        rows = np.concatenate([values for values, _ in parts])
        # The rows of both parts make one product: its cost lies in preparing x, not in the sums.
        factors = np.concatenate([norms * (step / STEP) for _, step in parts])
        total: Value | None = None
        for columns in _pieces(rows):
            whole = columns == slice(0, rows.shape[1])
            piece = ops.quantize(x if whole else ops.slice(x, columns.start, columns.stop), unit / INT16)
            largest = _largest_sum(product, seen, rows, columns, reach, factors, bias)
            constant = ops.constant(rows[:, columns], np.int8, [STEP / unit])
            y = ops.dequantize(ops.fully_connected(piece, constant, None, largest / INT16, version=4))
            total = y if total is None else ops.add(total, y)
        assert total is not None
        total = ops.mul(total, ops.constant(factors.T))
        if len(parts) > 1:
            total = ops.add(*ops.split(total, len(parts)))
        return total if not bias.any() else ops.add(total, ops.constant(bias[None]))


def _rounded(
    product: Product, units: Floats, parts: int, rounding: Rounding
) -> list[tuple[npt.NDArray[np.int8], float]]:
    """The weights in parts: int8 (rows, columns), and one step of each in `units`, which are (rows, columns)."""
    if parts == 1:
        return [(rounding.int8(product, units * STEP), STEP)]
    weights = product.weights.T.astype(np.float64)
    coarse = nearest(weights, units * STEP)
    done = coarse * units * STEP
    rest = float(np.abs((weights - done) / units).max()) * REST
    if rest == 0:
        return [(coarse, STEP)]
    return [(coarse, STEP), (rounding.int8(product, units * (rest * STEP), done), rest * STEP)]


def _largest_sum(
    product: Product,
    seen: Recorded,
    rows: npt.NDArray[np.int8],
    columns: slice,
    reach: Floats,
    factors: Floats,
    bias: npt.NDArray[Any],
) -> float:
    """What the sums of some columns of integer rows may reach before they are clipped, in steps of 1 / 127.

    That is up to `MARGIN` times what calibration saw, but not more than they ever can, and no more than changes the
    function that they go into.
    """
    weights = rows[:, columns].astype(np.float64) * STEP
    moments = seen.moments_of(product) / reach / reach[:, None]
    # Of the integer rows only the mean squares are known. Their peaks are taken to be as high above these as that
    # of the real row.
    real = product.weights.T.astype(np.float64) * reach
    whole = _mean_square(real, moments)
    peaks = np.divide(seen.sums**2, whole, out=np.ones_like(whole), where=whole > 0)
    peaks = np.tile(peaks, len(rows) // len(real))
    bound = np.abs(weights).sum(1)
    typical = np.sqrt(_mean_square(weights, moments[columns, columns]))
    largest = _room(typical * np.sqrt(peaks), typical, MARGIN)
    largest = np.maximum(largest, bound * LEAST_OF_BOUND)
    flat = product.functions and all(function.name in ("sigmoid", "tanh") for function in product.functions)
    if flat and weights.shape[1] == rows.shape[1]:
        most = FLAT + np.abs(bias)
        largest[: len(real)] = np.minimum(largest[: len(real)], most / factors[: len(real), 0])
    return float(np.minimum(largest, bound).max()) or 1.0


def _room(peak: Floats, typical: Floats, margin: Floats | float) -> Floats:
    """What may come of values with these peaks, the root of whose mean square is `typical`, or 0 if it is unknown."""
    known = np.clip(TYPICAL * typical, LEAST_MARGIN * peak, margin * peak)
    return np.where(typical > 0, known, margin * peak)


def _mean_square(weights: Floats, moments: Floats) -> Floats:
    """That of each row's sum over inputs of these second moments."""
    return np.maximum(((weights @ moments) * weights).sum(1), 0)


def _reach(product: Product, seen: Recorded, coarsest: float) -> Floats:
    """For each input of a product what its int16 is scaled to hold."""
    # What can be nothing but 0 needs no room, but a scale all the same.
    largest, bound = seen.largest, np.where(seen.bound > 0, seen.bound, np.inf)
    known = np.where(np.isfinite(bound), bound * LEAST_OF_BOUND, 0.0)
    margin = [STATE_MARGIN if of_state else MARGIN for of_state in product.of_state]
    most = np.repeat(margin, [len(part) for part in product.parts])
    room = _room(largest, np.sqrt(np.diag(seen.moments_of(product))), most)
    reach = np.minimum(np.maximum(np.where(largest > 0, room, most), known), bound)
    weight = np.abs(product.weights).max(1) * reach
    heaviest = float(weight.max())
    ratio = np.divide(heaviest, weight, out=np.full_like(weight, coarsest), where=weight > heaviest / coarsest)
    return reach * 2.0 ** np.floor(np.log2(np.maximum(ratio, 1.0)))


def _pieces(rows: npt.NDArray[np.int8]) -> Iterator[slice]:
    """Runs of columns over which no row's sum with int16 inputs leaves int32."""
    start, total = 0, np.zeros(len(rows), np.int64)
    for column, weights in enumerate(np.abs(rows.T.astype(np.int64))):
        total = total + weights
        if total.max(initial=0) > MOST_OF_A_ROW:
            yield slice(start, column)
            start, total = column, weights
    yield slice(start, rows.shape[1])
