"""The operators of layers as nodes of ONNX, and ONNX's own operators in their place where it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.activations import UNLIMITED, Function
from ...runtime.network import Layer, LayerNormalization, Masking, Ops, PReLU
from ..products import products
from .recurrent import expressible, sequence
from .writer import OnnxWriter, float_value

# Values of `onnx.TensorProto.DataType`.
_INT32, _BOOL = 6, 9
Floats = npt.NDArray[np.float32]


class OnnxOps(Ops[str]):
    """Writes layers. A row has the shape (time, batch, width), a state (1, batch, width).

    So whole sequences go through a layer at once. One with states is an operator of ONNX, or its timestep the body of
    a `Scan`.

    Attributes:
        graph: where to.
        raw: values with the scales of the model's own inputs: no product has mixed them.
    """

    def __init__(self, graph: OnnxWriter) -> None:
        self.graph = graph
        self.raw = {"x"}
        self._in_scan = False

    def apply(self, layer: Layer, inputs: Sequence[str], states: Sequence[str]) -> tuple[str, Sequence[str]]:
        self.graph.layer = layer.name
        y, following = self._apply(layer, inputs, states)
        if any(x in self.raw for x in inputs) and not products(layer):
            self.raw.add(y)
        return y, following

    def _apply(self, layer: Layer, inputs: Sequence[str], states: Sequence[str]) -> tuple[str, Sequence[str]]:
        graph = self.graph
        if expressible(layer):
            following = [graph.name(s.kind) if self._in_scan else f"{s.name}_next" for s in layer.states]
            y = sequence(graph, layer, inputs[0], states, following, inputs[0] in self.raw)
            # In a single timestep the output is the new state.
            return (following[0] if self._in_scan else graph.op("Squeeze", y, graph.axis(1))), following
        if isinstance(layer, LayerNormalization):
            # onnxruntime takes the variance as E[x²] - E[x]², which loses it for values far from zero (at 1000: errors
            # of 1e-4, else 6e-7). The operator is exact on what has been centred before.
            gamma, beta = graph.constant("gamma", layer.gamma), graph.constant("beta", layer.beta)
            centered = self.sub(inputs[0], self.mean(inputs[0]))
            return graph.op("LayerNormalization", centered, gamma, beta, axis=-1, epsilon=layer.epsilon), ()
        if isinstance(layer, PReLU):
            return graph.op("PRelu", inputs[0], graph.constant("slope", layer.slope)), ()
        if states and not self._in_scan:
            following = [f"{s.name}_next" for s in layer.states]
            return self.scan(inputs[0], states, following, lambda x, last: layer.lower(self, (x,), last)), following
        return layer.lower(self, inputs, states)

    def scan(
        self,
        x: str,
        states: Sequence[str],
        following: Sequence[str],
        body: Callable[[str, Sequence[str]], tuple[str, Sequence[str]]],
    ) -> str:
        """Append a `Scan` of `body`, which gives the output and next states of one timestep, over x's timesteps."""
        from onnx import helper

        graph, layer = self.graph, self.graph.layer
        # `Scan` takes the first axis away; a second one of 1 keeps a timestep a sequence, of length 1.
        steps = graph.op("Unsqueeze", x, graph.axis(1))
        x_t, last = graph.name("x_t"), [graph.name("state") for _ in states]
        if x in self.raw:
            self.raw.add(x_t)
        with graph.body() as nodes:
            self._in_scan = True
            y_t, new = body(x_t, last)
            self._in_scan = False
            graph.layer = layer
            # A state is an output of the layer as well, but a value can leave a body only once.
            y_t = graph.op("Identity", y_t)
        inner = helper.make_graph(
            nodes,
            f"{layer}/step",
            [float_value(name, None) for name in (*last, x_t)],
            [float_value(name, None) for name in (*new, y_t)],
        )
        stacked = graph.name("steps")
        graph.ops("Scan", [*states, steps], [*following, stacked], body=inner, num_scan_inputs=1)
        return graph.op("Squeeze", stacked, graph.axis(1))

    def act(self, function: Function, x: str) -> str:
        own = _OWN.get(function.name)
        y = None if own is None else own(self.graph, x, *function.parameters)
        return super().act(function, x) if y is None else y

    def product(self, parts: Sequence[tuple[str, Floats]], bias: Floats) -> str:
        graph, total = self.graph, ""
        for number, (x, matrix) in enumerate(parts):
            y = graph.op("MatMul", x, graph.weight("kernel", matrix, 0, x in self.raw))
            if number == 0 and bias.any():
                y = graph.op("Add", y, graph.constant("kernel_bias", bias))
            total = graph.op("Add", total, y) if number else y
        return total

    def vector(self, what: str, values: Floats) -> str:
        # Always in full float32: a mean of 101325 has no float16.
        return self.graph.constant(what, values)

    def unary(self, kind: str, x: str) -> str:
        operator, attributes = _UNARY[kind]
        return self.graph.op(operator, x, **attributes)

    def binary(self, kind: str, a: str | float, b: str | float) -> str:
        return self.graph.op(_BINARY[kind], self._operand(a), self._operand(b))

    def above(self, x: str, threshold: float, then: str, otherwise: str | float) -> str:
        at = self.graph.number(threshold)
        return self.graph.op("Where", self.graph.op("Greater", x, at), then, self._operand(otherwise))

    def clip(self, x: str, least: float, most: float) -> str:
        return self.graph.op("Clip", x, self.graph.number(least), self.graph.number(most))

    def split(self, x: str, parts: int) -> Sequence[str]:
        return self.graph.ops("Split", [x], [self.graph.name("Split") for _ in range(parts)], axis=-1)

    def concat(self, rows: Sequence[str]) -> str:
        return self.graph.op("Concat", *rows, axis=-1)

    def mean(self, x: str) -> str:
        return self.graph.op("ReduceMean", x, axes=[-1], keepdims=1)

    def masked(self, layer: Masking, x: str) -> tuple[str, str]:
        graph = self.graph
        graph.layer = layer.name
        equal = graph.op("Equal", x, graph.number(layer.mask_value))
        # ONNX has no "all" over an axis of booleans; the least of their numbers is one.
        least = graph.op("ReduceMin", graph.op("Cast", equal, to=_INT32), axes=[-1], keepdims=1)
        shut = graph.op("Cast", least, to=_BOOL)
        y = graph.op("Where", shut, graph.number(0.0), x)
        if x in self.raw:
            self.raw.add(y)
        return shut, y

    def hold(self, gate: str, old: str, new: str) -> str:
        return self.graph.op("Where", gate, old, new)

    def _operand(self, value: str | float) -> str:
        return value if isinstance(value, str) else self.graph.number(value)


def _relu(graph: OnnxWriter, x: str, slope: float, maximum: float, threshold: float) -> str | None:
    if threshold != 0:
        return None
    y = graph.op("LeakyRelu", x, alpha=slope) if slope else graph.op("Relu", x)
    return y if maximum >= UNLIMITED else graph.op("Min", y, graph.number(maximum))


def _with(operator: str, **attributes: Any) -> Callable[[OnnxWriter, str], str]:
    return lambda graph, x: graph.op(operator, x, **attributes)


_UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "neg": ("Neg", {}),
    "abs": ("Abs", {}),
    "exp": ("Exp", {}),
    "log": ("Log", {}),
    "sqrt": ("Sqrt", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "erf": ("Erf", {}),
    "elu": ("Elu", {"alpha": 1.0}),
    "softmax": ("Softmax", {"axis": -1}),
    "log_softmax": ("LogSoftmax", {"axis": -1}),
}
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "minimum": "Min", "maximum": "Max"}
# Functions that are a single operator. Not Softplus, which overflows in some runtimes.
_OWN: dict[str, Callable[..., str | None]] = {
    "relu": _relu,
    "elu": lambda graph, x, alpha: graph.op("Elu", x, alpha=alpha),
    "selu": _with("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "celu": lambda graph, x, alpha: graph.op("Celu", x, alpha=alpha),
    "softsign": _with("Softsign"),
    "hard_sigmoid": _with("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_sigmoid_keras2": _with("HardSigmoid", alpha=0.2, beta=0.5),
    "sparse_sigmoid": _with("HardSigmoid", alpha=0.5, beta=0.5),
    "hard_shrink": lambda graph, x, threshold: graph.op("Shrink", x, lambd=threshold, bias=0.0),
    "soft_shrink": lambda graph, x, threshold: graph.op("Shrink", x, lambd=threshold, bias=threshold),
}
