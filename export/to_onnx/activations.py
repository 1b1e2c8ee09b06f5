"""Every activation function as ONNX operators, and those that the recurrent operators know themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...runtime.activations import UNLIMITED, Function
from .writer import OnnxWriter


def activate(graph: OnnxWriter, function: Function, x: str) -> str:
    """Append `function` of the float tensor `x`, of any shape."""
    return _EMITTERS[function.name](graph, x, *function.parameters)


@dataclass(frozen=True)
class RecurrentActivation:
    """How the LSTM, GRU and RNN operators call a function."""

    name: str
    alpha: float | None = None
    beta: float | None = None


def recurrent_activation(function: Function) -> RecurrentActivation | None:
    """The function as an activation of a recurrent operator, or None where there is no such.

    Left out though ONNX lists it: Softplus, which inside onnxruntime's recurrent operators overflows above 88.
    """
    if function.name in _RECURRENT:
        return _RECURRENT[function.name]
    if function.name == "elu":
        return RecurrentActivation("Elu", function.parameters[0])
    if function.name == "relu":
        slope, maximum, threshold = function.parameters
        if threshold == 0 and _unlimited(maximum):
            return RecurrentActivation("LeakyRelu", slope) if slope else RecurrentActivation("Relu")
    return None


_RECURRENT = {
    "linear": RecurrentActivation("Affine", 1.0, 0.0),
    "sigmoid": RecurrentActivation("Sigmoid"),
    "tanh": RecurrentActivation("Tanh"),
    "softsign": RecurrentActivation("Softsign"),
    "hard_sigmoid": RecurrentActivation("HardSigmoid", 1 / 6, 0.5),
    "hard_sigmoid_keras2": RecurrentActivation("HardSigmoid", 0.2, 0.5),
    "sparse_sigmoid": RecurrentActivation("HardSigmoid", 0.5, 0.5),
}


def _unlimited(maximum: float) -> bool:
    return maximum >= UNLIMITED


def _relu(graph: OnnxWriter, x: str, slope: float, maximum: float, threshold: float) -> str:
    if threshold == 0:
        y = graph.op("LeakyRelu", x, alpha=slope) if slope else graph.op("Relu", x)
        return y if _unlimited(maximum) else graph.op("Min", y, graph.number(maximum))
    at = graph.number(threshold)
    y = graph.op("Where", graph.op("Greater", x, at), x, graph.number(0.0))
    if not _unlimited(maximum):
        y = _clip(graph, y, 0.0, maximum)
    if not slope:
        return y
    below = graph.op("Relu", graph.op("Sub", at, x))
    return graph.op("Sub", y, graph.op("Mul", below, graph.number(slope)))


def _gelu(graph: OnnxWriter, x: str, approximate: float) -> str:
    if approximate:
        cube = graph.op("Mul", graph.op("Mul", x, x), graph.op("Mul", x, graph.number(0.044715)))
        inner = graph.op("Mul", graph.op("Add", x, cube), graph.number(math.sqrt(2 / math.pi)))
        bell = graph.op("Tanh", inner)
    else:
        bell = graph.op("Erf", graph.op("Mul", x, graph.number(math.sqrt(0.5))))
    return graph.op("Mul", graph.op("Mul", x, graph.number(0.5)), graph.op("Add", bell, graph.number(1.0)))


def _softplus(graph: OnnxWriter, x: str) -> str:
    # max(x, 0) + log(1 + exp(-|x|)) overflows in no runtime, whatever its own Softplus does.
    tail = graph.op("Exp", graph.op("Neg", graph.op("Abs", x)))
    return graph.op("Add", graph.op("Relu", x), graph.op("Log", graph.op("Add", tail, graph.number(1.0))))


def _sparse_plus(graph: OnnxWriter, x: str) -> str:
    # (u + 1)² / 4 with u clipped to [-1, 1] is 0 below and 1 above; the line goes on from there.
    u = graph.op("Add", _clip(graph, x, -1.0, 1.0), graph.number(1.0))
    curve = graph.op("Mul", graph.op("Mul", u, u), graph.number(0.25))
    return graph.op("Add", curve, graph.op("Relu", graph.op("Sub", x, graph.number(1.0))))


def _squareplus(graph: OnnxWriter, x: str, b: float) -> str:
    root = graph.op("Sqrt", graph.op("Add", graph.op("Mul", x, x), graph.number(b)))
    return graph.op("Mul", graph.op("Add", x, root), graph.number(0.5))


def _threshold(graph: OnnxWriter, x: str, threshold: float, default: float) -> str:
    return graph.op("Where", graph.op("Greater", x, graph.number(threshold)), x, graph.number(default))


def _clip(graph: OnnxWriter, x: str, least: float, most: float) -> str:
    return graph.op("Clip", x, graph.number(least), graph.number(most))


_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}

_EMITTERS: dict[str, Callable[..., str]] = {
    "linear": lambda _, x: x,
    "sigmoid": lambda graph, x: graph.op("Sigmoid", x),
    "tanh": lambda graph, x: graph.op("Tanh", x),
    "relu": _relu,
    "elu": lambda graph, x, alpha: graph.op("Elu", x, alpha=alpha),
    "selu": lambda graph, x: graph.op("Selu", x, **_SELU),
    "celu": lambda graph, x, alpha: graph.op("Celu", x, alpha=alpha),
    "softplus": _softplus,
    "softsign": lambda graph, x: graph.op("Softsign", x),
    "exponential": lambda graph, x: graph.op("Exp", x),
    "silu": lambda graph, x: graph.op("Mul", x, graph.op("Sigmoid", x)),
    "gelu": _gelu,
    "mish": lambda graph, x: graph.op("Mul", x, graph.op("Tanh", _softplus(graph, x))),
    "hard_sigmoid": lambda graph, x: graph.op("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "hard_sigmoid_keras2": lambda graph, x: graph.op("HardSigmoid", x, alpha=0.2, beta=0.5),
    "hard_silu": lambda graph, x: graph.op("Mul", x, graph.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "hard_tanh": lambda graph, x: _clip(graph, x, -1.0, 1.0),
    "hard_shrink": lambda graph, x, threshold: graph.op("Shrink", x, lambd=threshold, bias=0.0),
    "soft_shrink": lambda graph, x, threshold: graph.op("Shrink", x, lambd=threshold, bias=threshold),
    "tanh_shrink": lambda graph, x: graph.op("Sub", x, graph.op("Tanh", x)),
    "threshold": _threshold,
    "log_sigmoid": lambda graph, x: graph.op("Neg", _softplus(graph, graph.op("Neg", x))),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda graph, x: graph.op("HardSigmoid", x, alpha=0.5, beta=0.5),
    "squareplus": _squareplus,
    "softmax": lambda graph, x: graph.op("Softmax", x, axis=-1),
    "log_softmax": lambda graph, x: graph.op("LogSoftmax", x, axis=-1),
}
