"""One timestep of a network as TFLite operators in float arithmetic: `float32`, `float16`, `dynamic`.

The precisions differ only in how the weights of a matrix product are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.network import (
    GRU,
    LSTM,
    Activation,
    Affine,
    Dense,
    LayerNormalization,
    Masking,
    Network,
    PReLU,
    Recurrent,
    SimpleRNN,
)
from ..products import Product, is_integer, products
from ..rounding import nearest, row_scales
from .activations import activate
from .ops import Ops
from .writer import GraphWriter, Value


class FloatStep:
    """Emits the operators of one timestep, layer by layer.

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
        self.ops = Ops(graph)
        self._precision = precision
        self._legacy = legacy
        self._integer = integer

    def emit(self, network: Network, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        """Append a timestep: (1, features) and the states give (1, outputs) and the next states."""
        live = None
        following: list[Value] = []
        for layer in network.layers:
            self.ops.scope = layer.name
            if isinstance(layer, Masking):
                live = self.ops.any(self.ops.compare("NOT_EQUAL", x, layer.mask_value))
            elif isinstance(layer, (LSTM, GRU, SimpleRNN)):
                last = states[len(following) :][: len(layer.state_names)]
                new = self.recur(layer, x, last)
                if live is not None:
                    new = [self.ops.where(live, now, old) for now, old in zip(new, last, strict=True)]
                following.extend(new)
                x = new[0]
            else:
                x = self.apply(layer, x)
        self.ops.scope = ""
        return x, following

    def linear(self, product: Product, inputs: Sequence[Value], bias: npt.NDArray[Any] | None) -> Value:
        """Σ inputᵢ · weightsᵢ + bias, as one product over the concatenated inputs."""
        x = inputs[0] if len(inputs) == 1 else self.ops.concat(inputs)
        weights = product.weights.T
        offset = None if bias is None else self.ops.constant(bias)
        if self._precision == "float16":
            return self.ops.fully_connected(x, self.ops.dequantize(self.ops.constant(weights, np.float16)), offset)
        if self._precision == "dynamic" and self._integer(product):
            scales = row_scales(weights)
            rows, quantized = [float(s) for s in scales.ravel()], nearest(weights, scales)
            if self._legacy:
                constant = self.ops.constant(quantized, np.int8, [1.0])
                y = self.ops.fully_connected(x, constant, None, version=3)
                y = self.ops.mul(y, self.ops.constant(np.array([rows])))
                return y if bias is None else self.ops.add(y, self.ops.constant(bias[None]))
            # Version 12 is the first that a runtime which ignores all scales but the first refuses.
            return self.ops.fully_connected(x, self.ops.constant(quantized, np.int8, rows), offset, version=12)
        return self.ops.fully_connected(x, self.ops.constant(weights), offset)

    @singledispatchmethod
    def recur(self, layer: Recurrent, x: Value, state: Sequence[Value]) -> list[Value]:
        """Next states of a recurrent layer, its output first."""
        raise NotImplementedError(type(layer).__name__)

    @recur.register
    def _(self, layer: LSTM, x: Value, state: Sequence[Value]) -> list[Value]:
        h, c = state
        ops, (product,) = self.ops, products(layer)
        i, f, g, o = ops.split(self.linear(product, [x, h], layer.bias), 4)
        i, f, o = (activate(ops, layer.recurrent_activation, gate) for gate in (i, f, o))
        c = ops.add(ops.mul(f, c), ops.mul(i, activate(ops, layer.activation, g)))
        return [ops.mul(o, activate(ops, layer.activation, c)), c]

    @recur.register
    def _(self, layer: GRU, x: Value, state: Sequence[Value]) -> list[Value]:
        (h,) = state
        ops, split, bias = self.ops, 2 * layer.units, layer.bias + layer.recurrent_bias
        gates, *candidates = products(layer)
        sums = self.linear(gates, [x, h], bias[:split])
        z, r = (activate(ops, layer.recurrent_activation, gate) for gate in ops.split(sums, 2))
        if layer.reset_after:
            of_x, of_h = candidates
            product = self.linear(of_h, [h], layer.recurrent_bias[split:])
            candidate = ops.add(self.linear(of_x, [x], layer.bias[split:]), ops.mul(r, product))
        else:
            candidate = self.linear(candidates[0], [x, ops.mul(r, h)], bias[split:])
        candidate = activate(ops, layer.activation, candidate)
        return [ops.add(candidate, ops.mul(z, ops.sub(h, candidate)))]

    @recur.register
    def _(self, layer: SimpleRNN, x: Value, state: Sequence[Value]) -> list[Value]:
        (product,) = products(layer)
        return [activate(self.ops, layer.activation, self.linear(product, [x, state[0]], layer.bias))]

    @singledispatchmethod
    def apply(self, layer: Any, x: Value) -> Value:
        """Output of a layer without state."""
        raise NotImplementedError(type(layer).__name__)

    @apply.register
    def _(self, layer: Dense, x: Value) -> Value:
        (product,) = products(layer)
        return activate(self.ops, layer.activation, self.linear(product, [x], layer.bias))

    @apply.register
    def _(self, layer: Affine, x: Value) -> Value:
        if np.any(layer.center):
            x = self.ops.sub(x, self.ops.constant(layer.center[None]))
        if np.any(layer.scale != 1):
            x = self.ops.mul(x, self.ops.constant(layer.scale[None]))
        if np.any(layer.offset):
            x = self.ops.add(x, self.ops.constant(layer.offset[None]))
        return x

    @apply.register
    def _(self, layer: LayerNormalization, x: Value) -> Value:
        ops = self.ops
        centered = ops.sub(x, ops.mean(x))
        deviation = ops.unary("SQRT", ops.add(ops.mean(ops.mul(centered, centered)), layer.epsilon))
        normal = ops.div(centered, deviation)
        return ops.add(ops.mul(normal, ops.constant(layer.gamma[None])), ops.constant(layer.beta[None]))

    @apply.register
    def _(self, layer: Activation, x: Value) -> Value:
        return activate(self.ops, layer.function, x)

    @apply.register
    def _(self, layer: PReLU, x: Value) -> Value:
        below = self.ops.mul(self.ops.minimum(x, 0.0), self.ops.constant(layer.slope[None]))
        return self.ops.add(self.ops.maximum(x, 0.0), below)
