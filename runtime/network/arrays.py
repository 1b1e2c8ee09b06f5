"""The operators on NumPy arrays: rows are the last axis, and any axes may stand before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import FloatArray, Function
from .ops import Ops

if TYPE_CHECKING:
    from .pointwise import Masking

_erf: Any = np.frompyfunc(math.erf, 1, 1)


class ArrayOps(Ops[FloatArray]):
    """Computes in the precision of its inputs: float64 gives a float64 reference."""

    def act(self, function: Function, x: FloatArray) -> FloatArray:
        own = _OWN.get(function.name)
        return super().act(function, x) if own is None else own(x)

    def product(self, parts: Sequence[tuple[FloatArray, FloatArray]], bias: FloatArray) -> FloatArray:
        total: Any = None
        for x, weights in parts:
            # The same sums. For a row `dot` is the faster, but it copies a matrix that lies in pieces.
            y = x.dot(weights) if weights.flags.c_contiguous else x @ weights
            total = y if total is None else total + y
        return total + bias

    def vector(self, what: str, values: FloatArray) -> FloatArray:
        return values

    def unary(self, kind: str, x: FloatArray) -> FloatArray:
        return _UNARY[kind](x)

    def binary(self, kind: str, a: FloatArray | float, b: FloatArray | float) -> FloatArray:
        return _BINARY[kind](a, b)

    # What a step does most goes without a look into the table.

    def add(self, a: Any, b: Any) -> FloatArray:
        return a + b

    def sub(self, a: Any, b: Any) -> FloatArray:
        return a - b

    def mul(self, a: Any, b: Any) -> FloatArray:
        return a * b

    def div(self, a: Any, b: Any) -> FloatArray:
        return a / b

    def above(self, x: FloatArray, threshold: float, then: FloatArray, otherwise: FloatArray | float) -> FloatArray:
        return np.where(x > threshold, then, otherwise).astype(x.dtype, copy=False)

    def split(self, x: FloatArray, parts: int) -> Sequence[FloatArray]:
        width = x.shape[-1] // parts
        return [x[..., at : at + width] for at in range(0, parts * width, width)]

    def concat(self, rows: Sequence[FloatArray]) -> FloatArray:
        return np.concatenate(rows, -1)

    def mean(self, x: FloatArray) -> FloatArray:
        total: Any = np.add.reduce(x, -1, keepdims=True)  # As x.mean does, in a third of its time for a row.
        return total / x.shape[-1]

    def masked(self, layer: Masking, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        shut: Any = (x == x.dtype.type(layer.mask_value)).all(-1, keepdims=True)
        return shut, np.where(shut, x.dtype.type(0), x)

    def hold(self, gate: FloatArray, old: FloatArray, new: FloatArray) -> FloatArray:
        return np.where(gate, old, new)


ARRAYS = ArrayOps()


def _sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), by way of tanh, which does not overflow."""
    half = x.dtype.type(0.5)
    return half * np.tanh(half * x) + half


def _softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(x: FloatArray) -> FloatArray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


_UNARY: dict[str, Callable[[FloatArray], FloatArray]] = {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": lambda x: _erf(x).astype(x.dtype),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
# Functions that need no operators but one, or have a better form here: log(1 + exp(x)) loses small numbers.
_OWN: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda x: x,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
}
