"""NumPy definitions of Keras's activation functions, and a value that names one with its parameters.

The formulas are those of Keras 3 (`keras.activations`), except `hard_sigmoid_keras2`, which is what
Keras 2 computed under the name `hard_sigmoid`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

_erf: Any = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class Function:
    """An activation function by name, with its parameters in the order of its definition below.

    Calling it applies it to an array of any shape; `softmax` and `log_softmax` work along the last axis.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise ValueError(f"unknown activation function {self.name!r}")

    def __call__(self, x: FloatArray) -> FloatArray:
        """Apply the function to `x`; the result has the shape and dtype of `x`."""
        return FUNCTIONS[self.name](x, *self.parameters).astype(x.dtype, copy=False)

    def __str__(self) -> str:
        plain = not self.parameters or self == Function("relu", (0.0, UNLIMITED, 0.0))
        return self.name if plain else f"{self.name}({', '.join(f'{p:g}' for p in self.parameters)})"


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), by way of tanh, which does not overflow."""
    half = x.dtype.type(0.5)
    return half * np.tanh(half * x) + half


# What a ReLU without a maximum has for one: JSON knows no infinity.
UNLIMITED = float(np.finfo(np.float32).max)


def _relu(x: FloatArray, negative_slope: float, max_value: float, threshold: float) -> FloatArray:
    """Keras's general ReLU: x above the threshold, capped, and a line of slope `negative_slope` below it."""
    y = np.where(x > threshold, x, 0)
    if max_value < UNLIMITED:
        # Keras clips from below as well, which matters where the threshold is negative.
        y = np.clip(y, 0, max_value)
    return y - negative_slope * np.maximum(threshold - x, 0)


def _threshold(x: FloatArray, threshold: float, default: float) -> FloatArray:
    return np.where(x > threshold, x, default)


def _softplus(x: FloatArray) -> FloatArray:
    return np.logaddexp(x, x.dtype.type(0))


def _gelu(x: FloatArray, approximate: float) -> FloatArray:
    if approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(x.dtype))


def _softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(x: FloatArray) -> FloatArray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _exp_line(x: FloatArray, alpha: float, scale: float) -> FloatArray:
    """The scale times (x above zero, alpha · (exp(x) - 1) below): elu and selu."""
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _sparse_plus(x: FloatArray) -> FloatArray:
    return np.where(x <= -1, 0, np.where(x < 1, 0.25 * (x + 1) ** 2, x))


_PLAIN: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda x: x,
    "sigmoid": sigmoid,
    "tanh": lambda x: np.tanh(x),
    "selu": lambda x: _exp_line(x, 1.6732632423543772, 1.0507009873554805),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": lambda x: np.exp(x),
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_keras2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "log_sigmoid": lambda x: -_softplus(-x),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda x: np.clip(0.5 * (x + 1), 0, 1),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}

_PARAMETRIC: dict[str, Callable[[FloatArray, float], FloatArray]] = {
    "elu": lambda x, alpha: _exp_line(x, alpha, 1.0),
    "celu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "gelu": _gelu,
    "hard_shrink": lambda x, threshold: np.where(np.abs(x) > threshold, x, 0),
    "soft_shrink": lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - threshold, 0),
    "squareplus": lambda x, b: 0.5 * (x + np.sqrt(x * x + b)),
}

FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    **_PLAIN,
    **_PARAMETRIC,
    "relu": _relu,
    "threshold": _threshold,
}

LINEAR, SIGMOID, TANH, SOFTMAX = (
    Function("linear"),
    Function("sigmoid"),
    Function("tanh"),
    Function("softmax"),
)
