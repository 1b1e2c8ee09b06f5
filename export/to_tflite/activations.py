"""Every activation function as float TFLite operators that LiteRT and tflite-runtime 2.14 both know."""

from __future__ import annotations

from collections.abc import Callable

from ...runtime.activations import UNLIMITED, Function
from .ops import Ops
from .writer import Value


def activate(ops: Ops, function: Function, x: Value) -> Value:
    """Append `function` of the float tensor `x`, shape (1, width)."""
    return _EMITTERS[function.name](ops, x, *function.parameters)


def _relu(ops: Ops, x: Value, slope: float, maximum: float, threshold: float) -> Value:
    if threshold == 0 and (slope == 0 or maximum >= UNLIMITED):
        y = ops.unary("LEAKY_RELU", x, "LeakyReluOptions", alpha=slope) if slope else ops.unary("RELU", x)
        return ops.minimum(y, maximum) if maximum < UNLIMITED else y
    y = ops.where(ops.compare("GREATER", x, threshold), x, 0.0)
    if maximum < UNLIMITED:
        y = ops.clip(y, 0.0, maximum)
    below = ops.maximum(ops.add(ops.unary("NEG", x), threshold), 0.0)
    return ops.sub(y, ops.mul(below, slope)) if slope else y


def _softplus(ops: Ops, x: Value) -> Value:
    # max(x, 0) + log(1 + exp(-|x|)) does not overflow.
    tail = ops.unary("LOG", ops.add(ops.unary("EXP", ops.unary("NEG", ops.unary("ABS", x))), 1.0))
    return ops.add(ops.maximum(x, 0.0), tail)


def _elu(ops: Ops, x: Value, alpha: float) -> Value:
    y = ops.unary("ELU", x)
    return y if alpha == 1 else ops.add(ops.maximum(x, 0.0), ops.mul(ops.minimum(y, 0.0), alpha))


def _celu(ops: Ops, x: Value, alpha: float) -> Value:
    if alpha == 1:
        return ops.unary("ELU", x)
    below = ops.unary("ELU", ops.mul(ops.minimum(x, 0.0), 1 / alpha))
    return ops.add(ops.maximum(x, 0.0), ops.mul(below, alpha))


def _hard_sigmoid(ops: Ops, x: Value, slope: float) -> Value:
    return ops.clip(ops.add(ops.mul(x, slope), 0.5), 0.0, 1.0)


def _soft_shrink(ops: Ops, x: Value, threshold: float) -> Value:
    return ops.add(ops.maximum(ops.sub(x, threshold), 0.0), ops.minimum(ops.add(x, threshold), 0.0))


def _sparse_plus(ops: Ops, x: Value) -> Value:
    # (u + 1)² / 4 with u clipped to [-1, 1] is 0 below and 1 above; the line goes on from there.
    u = ops.add(ops.clip(x, -1.0, 1.0), 1.0)
    return ops.add(ops.mul(ops.mul(u, u), 0.25), ops.maximum(ops.sub(x, 1.0), 0.0))


def _squareplus(ops: Ops, x: Value, b: float) -> Value:
    return ops.mul(ops.add(x, ops.unary("SQRT", ops.add(ops.mul(x, x), b))), 0.5)


def _softsign(ops: Ops, x: Value) -> Value:
    return ops.div(x, ops.add(ops.unary("ABS", x), 1.0))


_EMITTERS: dict[str, Callable[..., Value]] = {
    "linear": lambda _, x: x,
    "sigmoid": lambda ops, x: ops.unary("LOGISTIC", x),
    "tanh": lambda ops, x: ops.unary("TANH", x),
    "relu": _relu,
    "elu": _elu,
    "selu": lambda ops, x: ops.mul(_elu(ops, x, 1.6732632423543772), 1.0507009873554805),
    "celu": _celu,
    "softplus": _softplus,
    "softsign": _softsign,
    "exponential": lambda ops, x: ops.unary("EXP", x),
    "silu": lambda ops, x: ops.mul(x, ops.unary("LOGISTIC", x)),
    "gelu": lambda ops, x, approximate: ops.unary("GELU", x, "GeluOptions", approximate=bool(approximate)),
    "mish": lambda ops, x: ops.mul(x, ops.unary("TANH", _softplus(ops, x))),
    "hard_sigmoid": lambda ops, x: _hard_sigmoid(ops, x, 1 / 6),
    "hard_sigmoid_keras2": lambda ops, x: _hard_sigmoid(ops, x, 0.2),
    "hard_silu": lambda ops, x: ops.mul(x, _hard_sigmoid(ops, x, 1 / 6)),
    "hard_tanh": lambda ops, x: ops.clip(x, -1.0, 1.0),
    "hard_shrink": lambda ops, x, threshold: ops.where(ops.compare("GREATER", ops.unary("ABS", x), threshold), x, 0.0),
    "soft_shrink": _soft_shrink,
    "tanh_shrink": lambda ops, x: ops.sub(x, ops.unary("TANH", x)),
    "threshold": lambda ops, x, threshold, default: ops.where(ops.compare("GREATER", x, threshold), x, default),
    "log_sigmoid": lambda ops, x: ops.unary("NEG", _softplus(ops, ops.unary("NEG", x))),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda ops, x: ops.clip(ops.mul(ops.add(x, 1.0), 0.5), 0.0, 1.0),
    "squareplus": _squareplus,
    "softmax": lambda ops, x: ops.unary("SOFTMAX", x, "SoftmaxOptions", beta=1.0),
    "log_softmax": lambda ops, x: ops.unary("LOG_SOFTMAX", x, "LogSoftmaxOptions"),
}
