"""Keras's activation functions in the operators of `runtime/network/ops.py`, and a value that names one.

The formulas are those of Keras 3 (`keras.activations`), except `hard_sigmoid_keras2`, which is what
Keras 2 computed under the name `hard_sigmoid`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .network.ops import Ops

V = TypeVar("V")
FloatArray = npt.NDArray[np.floating[Any]]

# What a ReLU without a maximum has for one: JSON knows no infinity.
UNLIMITED = float(np.finfo(np.float32).max)
# Functions with values in [0, 1], and the others with values in [-1, 1].
_GATES = ("sigmoid", "softmax", "hard_sigmoid", "hard_sigmoid_keras2", "sparse_sigmoid")
_WITHIN_ONE = ("tanh", "softsign", "hard_tanh")


@dataclass(frozen=True)
class Function:
    """An activation function by name, with its parameters in the order of its definition below.

    It keeps the shape of a row. `softmax` and `log_softmax` work along the row, the others element by element.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise ValueError(f"unknown activation function {self.name!r}")

    def __str__(self) -> str:
        plain = not self.parameters or self == Function("relu", (0.0, UNLIMITED, 0.0))
        return self.name if plain else f"{self.name}({', '.join(f'{p:g}' for p in self.parameters)})"

    @property
    def is_gate(self) -> bool:
        """Whether all of its values lie in [0, 1]."""
        return self.name in _GATES or (self.name == "relu" and self.bound() <= 1)

    def bound(self, largest: float = math.inf) -> float:
        """What no value exceeds in absolute value, of inputs that do not exceed `largest`."""
        if self.name in _GATES or self.name in _WITHIN_ONE:
            return 1.0
        if self.name != "relu":
            return math.inf
        slope, maximum, threshold = self.parameters
        if slope == 0 and threshold >= 0 and maximum < UNLIMITED:
            return min(largest, maximum)
        return largest if abs(slope) <= 1 and (slope == 0 or threshold == 0) else math.inf


def _relu(ops: Ops[V], x: V, slope: float, maximum: float, threshold: float) -> V:
    """Keras's general ReLU: x above the threshold, capped, and a line below it."""
    y = ops.above(x, threshold, x, 0.0)
    if maximum < UNLIMITED:
        # Keras clips from below as well, which matters where the threshold is negative.
        y = ops.clip(y, 0.0, maximum)
    if not slope:
        return y
    below = ops.maximum(ops.add(ops.unary("neg", x), threshold), 0.0)
    return ops.sub(y, ops.mul(below, slope))


def _softplus(ops: Ops[V], x: V) -> V:
    # max(x, 0) + log(1 + exp(-|x|)) does not overflow.
    tail = ops.unary("log", ops.add(ops.unary("exp", ops.unary("neg", ops.unary("abs", x))), 1.0))
    return ops.add(ops.maximum(x, 0.0), tail)


def _elu(ops: Ops[V], x: V, alpha: float) -> V:
    y = ops.unary("elu", x)
    return y if alpha == 1 else ops.add(ops.maximum(x, 0.0), ops.mul(ops.minimum(y, 0.0), alpha))


def _celu(ops: Ops[V], x: V, alpha: float) -> V:
    if alpha == 1:
        return ops.unary("elu", x)
    below = ops.unary("elu", ops.div(ops.minimum(x, 0.0), alpha))
    return ops.add(ops.maximum(x, 0.0), ops.mul(below, alpha))


def _gelu(ops: Ops[V], x: V, approximate: float) -> V:
    if approximate:
        cube = ops.mul(ops.mul(x, x), ops.mul(x, 0.044715))
        bell = ops.unary("tanh", ops.mul(ops.add(x, cube), math.sqrt(2 / math.pi)))
    else:
        bell = ops.unary("erf", ops.mul(x, math.sqrt(0.5)))
    return ops.mul(ops.mul(x, 0.5), ops.add(bell, 1.0))


def _ramp(ops: Ops[V], x: V, slope: float) -> V:
    return ops.clip(ops.add(ops.mul(x, slope), 0.5), 0.0, 1.0)


def _hard_shrink(ops: Ops[V], x: V, threshold: float) -> V:
    return ops.above(ops.unary("abs", x), threshold, x, 0.0)


def _soft_shrink(ops: Ops[V], x: V, threshold: float) -> V:
    return ops.add(ops.maximum(ops.sub(x, threshold), 0.0), ops.minimum(ops.add(x, threshold), 0.0))


def _threshold(ops: Ops[V], x: V, threshold: float, default: float) -> V:
    return ops.above(x, threshold, x, default)


def _sparse_plus(ops: Ops[V], x: V) -> V:
    # (u + 1)² / 4 with u clipped to [-1, 1] is 0 below and 1 above; the line goes on from there.
    u = ops.add(ops.clip(x, -1.0, 1.0), 1.0)
    return ops.add(ops.mul(ops.mul(u, u), 0.25), ops.maximum(ops.sub(x, 1.0), 0.0))


def _squareplus(ops: Ops[V], x: V, b: float) -> V:
    return ops.mul(ops.add(x, ops.unary("sqrt", ops.add(ops.mul(x, x), b))), 0.5)


_PLAIN: dict[str, Callable[[Ops[Any], Any], Any]] = {
    "linear": lambda ops, x: x,
    "sigmoid": lambda ops, x: ops.unary("sigmoid", x),
    "tanh": lambda ops, x: ops.unary("tanh", x),
    "selu": lambda ops, x: ops.mul(_elu(ops, x, 1.6732632423543772), 1.0507009873554805),
    "softplus": _softplus,
    "softsign": lambda ops, x: ops.div(x, ops.add(ops.unary("abs", x), 1.0)),
    "exponential": lambda ops, x: ops.unary("exp", x),
    "silu": lambda ops, x: ops.mul(x, ops.unary("sigmoid", x)),
    "mish": lambda ops, x: ops.mul(x, ops.unary("tanh", ops.act(_SOFTPLUS, x))),
    "hard_sigmoid": lambda ops, x: _ramp(ops, x, 1 / 6),
    "hard_sigmoid_keras2": lambda ops, x: _ramp(ops, x, 0.2),
    "hard_silu": lambda ops, x: ops.mul(x, ops.act(_HARD_SIGMOID, x)),
    "hard_tanh": lambda ops, x: ops.clip(x, -1.0, 1.0),
    "tanh_shrink": lambda ops, x: ops.sub(x, ops.unary("tanh", x)),
    "log_sigmoid": lambda ops, x: ops.unary("neg", ops.act(_SOFTPLUS, ops.unary("neg", x))),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda ops, x: ops.clip(ops.mul(ops.add(x, 1.0), 0.5), 0.0, 1.0),
    "softmax": lambda ops, x: ops.unary("softmax", x),
    "log_softmax": lambda ops, x: ops.unary("log_softmax", x),
}

# By name: (ops, x, the parameters in order) → the values.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_PLAIN,
    "relu": _relu,
    "elu": _elu,
    "celu": _celu,
    "gelu": _gelu,
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "squareplus": _squareplus,
    "threshold": _threshold,
}

LINEAR, SIGMOID, TANH = Function("linear"), Function("sigmoid"), Function("tanh")
_SOFTPLUS, _HARD_SIGMOID = Function("softplus"), Function("hard_sigmoid")
