"""The operators of layers as TFLite operators in float arithmetic: `float32`, `float16`, `dynamic`.

The precisions differ only in how the weights of a matrix product are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.activations import UNLIMITED, Function
from ...runtime.network import Layer, Masking, Ops
from ..products import Product, is_integer, products
from ..rounding import nearest, row_scales
from .ops import Operators
from .writer import GraphWriter, Value


class FloatStep(Ops[Value]):
    """Writes what a timestep computes. Rows have the shape (1, width).

    Args:
        graph: where to.
        precision: `float32`, `float16` or `dynamic`.
        legacy: write `dynamic` so that tflite-runtime 2.14 reads it. Its float-by-int8 product knows one scale
            for a matrix, so the scales of the rows become an operator of their own.
        integer: which products have integer weights, in the precisions that have such.
    """

    def __init__(
        self,
        graph: GraphWriter,
        precision: str,
        legacy: bool = False,
        integer: Callable[[Product], bool] = is_integer,
    ) -> None:
        self.ops = Operators(graph)
        self._precision = precision
        self._legacy = legacy
        self._integer = integer
        self._coming: Iterator[Product] = iter(())

    def apply(self, layer: Layer, inputs: Sequence[Value], states: Sequence[Value]) -> tuple[Value, Sequence[Value]]:
        self.ops.scope = layer.name
        self._coming = iter(products(layer))
        return super().apply(layer, inputs, states)

    def product(self, parts: Sequence[tuple[Value, npt.NDArray[Any]]], bias: npt.NDArray[Any]) -> Value:
        return self.linear(next(self._coming), [x for x, _ in parts], bias)

    def linear(self, product: Product, inputs: Sequence[Value], bias: npt.NDArray[Any]) -> Value:
        """Σ inputᵢ · weightsᵢ + bias, as one product over the concatenated inputs."""
        x = self.concat(inputs)
        weights = product.weights.T
        rounded = self._precision == "dynamic" and self._integer(product)
        if rounded and self._legacy:
            scales = row_scales(weights)
            y = self.ops.fully_connected(
                x, self.ops.constant(nearest(weights, scales), np.int8, [1.0]), None, version=3
            )
            return self.ops.add(self.ops.mul(y, self.ops.constant(scales.T)), self.ops.constant(bias[None]))
        offset = self.ops.constant(bias)
        if rounded:
            scales = row_scales(weights)
            constant = self.ops.constant(nearest(weights, scales), np.int8, [float(s) for s in scales.ravel()])
            # Version 12 is the first that a runtime which ignores all scales but the first refuses.
            return self.ops.fully_connected(x, constant, offset, version=12)
        if self._precision == "float16":
            return self.ops.fully_connected(x, self.ops.dequantize(self.ops.constant(weights, np.float16)), offset)
        return self.ops.fully_connected(x, self.ops.constant(weights), offset)

    def act(self, function: Function, x: Value) -> Value:
        if function.name == "gelu":
            return self.ops.unary("GELU", x, "GeluOptions", approximate=bool(function.parameters[0]))
        if function.name == "relu":
            slope, maximum, threshold = function.parameters
            if threshold == 0 and (slope == 0 or maximum >= UNLIMITED):
                leaky = ("LEAKY_RELU", x, "LeakyReluOptions")
                y = self.ops.unary(*leaky, alpha=slope) if slope else self.ops.unary("RELU", x)
                return self.minimum(y, maximum) if maximum < UNLIMITED else y
        return super().act(function, x)

    def vector(self, what: str, values: npt.NDArray[Any]) -> Value:
        return self.ops.constant(values[None])

    def unary(self, kind: str, x: Value) -> Value:
        operator, options_type, options = _UNARY[kind]
        return self.ops.unary(operator, x, options_type, **options)

    def binary(self, kind: str, a: Value | float, b: Value | float) -> Value:
        return getattr(self.ops, kind)(a, b)

    def above(self, x: Value, threshold: float, then: Value, otherwise: Value | float) -> Value:
        return self.ops.where(self.ops.compare("GREATER", x, threshold), then, otherwise)

    def split(self, x: Value, parts: int) -> Sequence[Value]:
        return self.ops.split(x, parts)

    def concat(self, rows: Sequence[Value]) -> Value:
        return rows[0] if len(rows) == 1 else self.ops.concat(rows)

    def mean(self, x: Value) -> Value:
        return self.ops.mean(x)

    def masked(self, layer: Masking, x: Value) -> tuple[Value, Value]:
        self.ops.scope = layer.name
        return self.ops.all(self.ops.compare("EQUAL", x, layer.mask_value)), x

    def hold(self, gate: Value, old: Value, new: Value) -> Value:
        return self.ops.where(gate, old, new)


_UNARY: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    **{
        kind: (operator, None, {})
        for kind, operator in {
            "neg": "NEG",
            "abs": "ABS",
            "exp": "EXP",
            "log": "LOG",
            "sqrt": "SQRT",
            "tanh": "TANH",
            "sigmoid": "LOGISTIC",
            "elu": "ELU",
        }.items()
    },
    "softmax": ("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}),
    "log_softmax": ("LOG_SOFTMAX", "LogSoftmaxOptions", {}),
}
