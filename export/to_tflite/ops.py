"""The TFLite operators that a recurrent step needs, each as a method that names, types and versions its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .writer import GraphWriter, Value


class Operators:
    """Operators of one subgraph. Shapes are (1, width); names carry the layer's name."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph
        self.scope = ""
        self._count = 0

    def constant(
        self, array: npt.ArrayLike, dtype: npt.DTypeLike = np.float32, scales: Sequence[float] | None = None
    ) -> Value:
        """A constant tensor."""
        return self.graph.constant(self._name("constant"), array, dtype, scales)

    def concat(self, values: Sequence[Value]) -> Value:
        """[a, b, …] along the last axis; all of one type and scale."""
        first = values[0]
        out = self._like(first, "concat", (1, sum(v.shape[1] for v in values)))
        self.graph.op("CONCATENATION", values, [out], 1, "ConcatenationOptions", axis=1)
        return out

    def split(self, value: Value, parts: int) -> list[Value]:
        """Equal parts along the last axis."""
        width = value.shape[1] // parts
        outs = [self._like(value, "split", (1, width)) for _ in range(parts)]
        axis = self.constant(np.array(1), np.int32)
        self.graph.op("SPLIT", [axis, value], outs, 1, "SplitOptions", numSplits=parts)
        return outs

    def slice(self, value: Value, start: int, stop: int) -> Value:
        """Some columns."""
        out = self._like(value, "slice", (1, stop - start))
        begin, size = (
            self.constant(np.array([0, start]), np.int32),
            self.constant(np.array([1, stop - start]), np.int32),
        )
        self.graph.op("SLICE", [value, begin, size], [out], 1, "SliceOptions")
        return out

    def fully_connected(
        self,
        x: Value,
        weights: Value,
        bias: Value | None,
        scale: float | None = None,
        version: int = 1,
    ) -> Value:
        """x · weightsᵀ + bias; `scale` is that of the output for the integer types."""
        out = self.graph.tensor(self._name("matmul"), (1, weights.shape[0]), x.dtype, scale)
        inputs = [x, weights] if bias is None else [x, weights, bias]
        self.graph.op("FULLY_CONNECTED", inputs, [out], version, "FullyConnectedOptions")
        return out

    def add(self, a: Value | float, b: Value | float) -> Value:
        """a + b."""
        return self._binary("ADD", a, b, "AddOptions")

    def sub(self, a: Value | float, b: Value | float) -> Value:
        """a - b."""
        return self._binary("SUB", a, b, "SubOptions")

    def mul(self, a: Value | float, b: Value | float) -> Value:
        """a · b."""
        return self._binary("MUL", a, b, "MulOptions")

    def div(self, a: Value | float, b: Value | float) -> Value:
        """a / b."""
        return self._binary("DIV", a, b, "DivOptions")

    def maximum(self, a: Value | float, b: Value | float) -> Value:
        """max(a, b)."""
        return self._binary("MAXIMUM", a, b, "MaximumMinimumOptions")

    def minimum(self, a: Value | float, b: Value | float) -> Value:
        """min(a, b)."""
        return self._binary("MINIMUM", a, b, "MaximumMinimumOptions")

    def compare(self, operator: str, a: Value, b: Value | float) -> Value:
        """GREATER or EQUAL, giving bool."""
        options = {"GREATER": "GreaterOptions", "EQUAL": "EqualOptions"}
        other = self._operand(b, a.dtype)
        out = self.graph.tensor(self._name(operator.lower()), a.shape, np.bool_)
        self.graph.op(operator, [a, other], [out], 1, options[operator])
        return out

    def all(self, a: Value) -> Value:
        """Whether all of the last axis are true: (1, 1). Unlike `any`, TensorFlow Lite Micro has it."""
        out = self.graph.tensor(self._name("all"), (1, 1), np.bool_)
        axis = self.constant(np.array([1]), np.int32)
        self.graph.op("REDUCE_ALL", [a, axis], [out], 1, "ReducerOptions", keepDims=True)
        return out

    def where(self, condition: Value, a: Value, b: Value | float) -> Value:
        """a where the condition holds, else b; a gives type, shape and scale."""
        out = self._like(a, "select", a.shape)
        self.graph.op("SELECT_V2", [condition, a, self._operand(b, a.dtype)], [out], 1, "SelectV2Options")
        return out

    def mean(self, a: Value) -> Value:
        """Mean over the last axis: (1, 1)."""
        out = self._like(a, "mean", (1, 1))
        axis = self.constant(np.array([1]), np.int32)
        self.graph.op("MEAN", [a, axis], [out], 1, "ReducerOptions", keepDims=True)
        return out

    def unary(self, operator: str, a: Value, options_type: str | None = None, **options: Any) -> Value:
        """A float operator of one input that keeps its shape."""
        out = self._like(a, operator.lower(), a.shape)
        self.graph.op(operator, [a], [out], 1, options_type, **options)
        return out

    def quantize(self, a: Value, scale: float) -> Value:
        """Float to int16 of this scale, saturating."""
        out = self.graph.tensor(self._name("quantize"), a.shape, np.int16, scale)
        self.graph.op("QUANTIZE", [a], [out], 2, "QuantizeOptions")
        return out

    def dequantize(self, a: Value) -> Value:
        """int16 or float16 to float32."""
        out = self.graph.tensor(self._name("dequantize"), a.shape)
        self.graph.op("DEQUANTIZE", [a], [out], 3, "DequantizeOptions")
        return out

    def _binary(self, operator: str, a: Value | float, b: Value | float, options_type: str) -> Value:
        dtype = next(value.dtype for value in (a, b) if isinstance(value, Value))
        one, other = self._operand(a, dtype), self._operand(b, dtype)
        width = max(value.shape[-1] if value.shape else 1 for value in (one, other))
        out = self.graph.tensor(self._name(operator.lower()), (1, width), dtype)
        self.graph.op(operator, [one, other], [out], 1, options_type)
        return out

    def _operand(self, value: Value | float, dtype: np.dtype[Any]) -> Value:
        return value if isinstance(value, Value) else self.constant(np.full((1, 1), value), dtype)

    def _like(self, value: Value, name: str, shape: tuple[int, ...]) -> Value:
        return self.graph.tensor(self._name(name), shape, value.dtype, value.scale)

    def _name(self, name: str) -> str:
        self._count += 1
        return f"{self.scope}/{name}_{self._count}" if self.scope else f"{name}_{self._count}"
