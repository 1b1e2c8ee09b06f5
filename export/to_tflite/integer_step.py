"""One timestep of a network as TFLite operators in integer arithmetic: `int8` and `int16x8`.

What decides whether a quantised recurrence stays right over a long stream is where the rounding falls:

- Inputs of matrix products are int8 (`int8`) or int16 (`int16x8`), the weights int8.
- The gates and everything element-wise are int16 in both, and so are the states that accumulate (an LSTM's c, a
  GRU's h): eight bits would lose every update smaller than half a quantum, and the state would stick.
- A sum that goes into a sigmoid or tanh is clipped where the function is flat, so its quantum is small whatever
  the weights are. Sums that go elsewhere take the range that calibration found.
- Features of different size are each scaled to [-1, 1] in float before the one scale of the input tensor.
- Every state has one type and scale, as input and as output, so its bytes can be fed back.

Functions that have no integer kernel, and layers without weights, are computed in float between a DEQUANTIZE and
a QUANTIZE.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.activations import Function
from ...runtime.network import GRU, LSTM, Dense, Network, Recurrent, SimpleRNN
from ..calibration import Ranges
from .activations import activate
from .float_step import FloatStep, symmetric_int8
from .ops import UNIT_INT16
from .writer import GraphWriter, Value

# Room above the largest value seen in calibration: for a state in int16, which may still grow, and for the rest.
STATE_MARGIN, MARGIN = 1.5, 1.1
# Copies of x that a row of int8 weights is shared out over, at most.
MAX_COPIES = 4
BOUNDED = ("tanh", "sigmoid")
# The widest scales that a function's input needs, beyond which the function is flat to within the quantum of its
# output: (int8, int16). Powers of two, for which the int16 kernels are most exact.
FLAT = {"sigmoid": (1 / 16, 1 / 4096), "tanh": (1 / 32, 1 / 4096)}
Part = tuple[Value, npt.NDArray[Any]]


class IntegerStep(FloatStep):
    """Emits the operators of one timestep, layer by layer."""

    def __init__(self, graph: GraphWriter, precision: str, ranges: Ranges, network: Network) -> None:
        super().__init__(graph, precision)
        self._narrow = np.dtype(np.int8 if precision == "int8" else np.int16)
        self._ranges = ranges
        bounded = [layer for layer in network.recurrent_layers if layer.activation.name in BOUNDED]
        reach = max((float(ranges.of(layer.name, "h").max()) for layer in bounded), default=1.0)
        # One scale for all inputs of products, so that they can be concatenated into one: outputs of bounded layers
        # never leave [-1, 1] and often stay well inside; raw features are scaled to the same range.
        self._reach = min(1.0, max(reach, 2.0**-6) * MARGIN) if precision == "int8" else 1.0
        self._unit = self._reach / 127 if precision == "int8" else UNIT_INT16
        self._types: dict[tuple[str, str], tuple[npt.DTypeLike, float]] = {}
        for layer in network.recurrent_layers:
            bounded = layer.activation.name in BOUNDED
            h_scale = self._from_range(ranges.of(layer.name, "h").max(), self._narrow)
            if isinstance(layer, GRU):
                self._types[layer.name, "h"] = (
                    np.int16,
                    UNIT_INT16 if bounded else self._wide(layer.name, "h"),
                )
            else:
                self._types[layer.name, "h"] = self._narrow, self._unit if bounded else h_scale
            if isinstance(layer, LSTM):
                self._types[layer.name, "c"] = np.int16, self._wide(layer.name, "c")

    def state_type(self, layer: str, kind: str) -> tuple[npt.DTypeLike, float | None]:
        """Type and scale of a state."""
        return self._types[layer, kind]

    def emit(self, network: Network, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        """Append a timestep: float x and integer states give float y and the next states."""
        y, following = super().emit(network, x, states)
        return self.ops.dequantize(y), following

    def linear(self, parts: Sequence[Part], bias: npt.NDArray[Any] | None) -> Value:
        """Not used here: an integer product needs the range of its result; see `product`."""
        raise NotImplementedError

    def product(
        self, parts: Sequence[Part], bias: npt.NDArray[Any], scale: float, part_scales: Sequence[float]
    ) -> Value:
        """x · kernel + h · recurrent_kernel + bias as an int16 tensor; `scale` is that of the type of the inputs.

        In `int8`, inputs of one scale make one product, so that the sum is rounded to eight bits once. Otherwise
        there are two, of `part_scales`, added in int16: each then has weights of its own scale.
        """
        if self._narrow == np.int8 and len({value.scale for value, _ in parts}) == 1:
            return self.ops.widen(self._concatenated(parts, bias, scale))
        sums = [
            self.ops.widen(self._product(value, kernel, bias if first else np.zeros_like(bias), part_scale))
            for first, (value, kernel), part_scale in zip((True, False), parts, part_scales, strict=True)
        ]
        return self.ops.add(sums[0], sums[1], scale if self._narrow == np.int16 else scale / 256)

    def _concatenated(self, parts: Sequence[Part], bias: npt.NDArray[Any], scale: float) -> Value:
        """One product over [x, …, x, h].

        A row of weights has one scale, and those of x are often several times larger than those of h. Each such
        weight is shared out over copies of x, so that the rest of the row keeps its resolution (outlier channel
        splitting: Zhao et al., ICML 2019).
        """
        (x, kernel), (h, recurrent_kernel) = parts
        ratio = np.abs(kernel).max() / max(np.abs(recurrent_kernel).max(), 1e-9)
        copies = int(np.clip(np.rint(ratio), 1, MAX_COPIES))
        largest = np.maximum(np.abs(kernel).max(0) / copies, np.abs(recurrent_kernel).max(0))
        scales = np.where(largest > 0, largest, 1.0) / 127
        total = np.clip(np.rint(kernel / scales), -127 * copies, 127 * copies).astype(int)
        shares = [(total + i) // copies for i in range(copies)]
        own = np.clip(np.rint(recurrent_kernel / scales), -127, 127).astype(int)
        weights = np.concatenate([*shares, own]).T.astype(np.int8)
        return self._matmul(self.ops.concat([x] * copies + [h]), weights, scales, bias, scale)

    def _product(self, x: Value, kernel: npt.NDArray[Any], bias: npt.NDArray[Any], scale: float) -> Value:
        weights, scales = symmetric_int8(kernel.T)
        return self._matmul(x, weights, np.array(scales), bias, scale)

    def _matmul(
        self, x: Value, weights: npt.NDArray[np.int8], scales: npt.NDArray[Any], bias: npt.NDArray[Any], scale: float
    ) -> Value:
        wide = np.int32 if self._narrow == np.int8 else np.int64
        limit = 2.0**30 if wide is np.int32 else 2.0**46
        quantized = np.clip(np.rint(bias / (self._known(x) * scales)), -limit, limit).astype(wide)
        rows = [float(s) for s in scales]
        # Where there are several, the kernel derives a bias's scales from the others; writing them costs 12 bytes each.
        bias_scales = [self._known(x) * rows[0]] if len(rows) == 1 else None
        return self.ops.fully_connected(
            x,
            self.ops.constant(weights, np.int8, rows),
            self.ops.constant(quantized, wide, bias_scales),
            scale,
            version=4,  # int8 and int16 inputs
        )

    def _gate(
        self,
        layer: Recurrent,
        parts: Sequence[Part],
        bias: npt.NDArray[Any],
        columns: Any,
        function: Function,
    ) -> list[Value]:
        """function(Σ xᵢ · kernelᵢ + bias) for each gate of some columns of the kernels, as int16."""
        name = layer.name
        seen = [self._ranges.of(name, kind)[columns].max() for kind in ("sum", "x_sum", "h_sum")]
        scale, x_scale, h_scale = (self._from_range(r, self._narrow) for r in seen)
        scale = self._clipped(function, scale)
        part_scales = (self._clipped(function, x_scale, h_scale), h_scale)
        cut = [(value, kernel[:, columns]) for value, kernel in parts]
        sums, gates = self.product(cut, bias[columns], scale, part_scales), len(columns) // layer.units
        if function.name in ("softmax", "log_softmax"):
            # Over the units of one gate, so the gates must be apart before.
            return [self._activate(function, gate) for gate in self._split(sums, gates)]
        return self._split(self._activate(function, sums), gates)

    def _split(self, x: Value, parts: int) -> list[Value]:
        return [x] if parts == 1 else self.ops.split(x, parts)

    def _clipped(self, function: Function, scale: float, other: float = 0.0) -> float:
        """A scale for the input of a function: no wider than where the function is flat.

        With `other`, the scale of a second part of that input: no wider than where it is flat whatever that part is.
        """
        if function.name not in FLAT:
            return scale
        return min(scale, FLAT[function.name][self._narrow == np.int16] + other)

    def _activate(self, function: Function, x: Value) -> Value:
        """An activation function of an int16 tensor, as int16."""
        if function.name == "linear":
            return x
        if function.name in FLAT:
            return self.ops.squash("LOGISTIC" if function.name == "sigmoid" else "TANH", x)
        if x.scale is None:
            raise ValueError("the input of an integer activation has no scale")
        reach = np.linspace(-32768 * x.scale, 32768 * x.scale, 4097, dtype=np.float32)
        largest = float(np.abs(function(reach[:, None])).max()) or 1.0
        y = activate(self.ops, function, self.ops.dequantize(x))
        return self.ops.quantize(y, np.int16, largest / 32767)

    @singledispatchmethod
    def recur(self, layer: Recurrent, x: Value, state: Sequence[Value]) -> list[Value]:
        """Next states of a recurrent layer, its output first."""
        raise NotImplementedError(type(layer).__name__)

    @recur.register
    def _(self, layer: LSTM, x: Value, state: Sequence[Value]) -> list[Value]:
        h, c = state
        ops, u = self.ops, layer.units
        x, kernel = self._input(layer.name, x, layer.kernel)
        parts = [(x, kernel), (h, layer.recurrent_kernel)]
        gates = np.r_[0 : 2 * u, 3 * u : 4 * u]
        i, f, o = self._gate(layer, parts, layer.bias, gates, layer.recurrent_activation)
        (g,) = self._gate(layer, parts, layer.bias, np.r_[2 * u : 3 * u], layer.activation)
        kept = ops.mul(f, c, c.scale)
        # What is added to c is never larger than twice the largest c; a finer quantum is one that c can keep.
        new = ops.mul(i, g, min(self._product_scale(i, g), 2 * self._known(c)))
        c_next = ops.add(kept, new, c.scale)
        out = self._activate(layer.activation, c_next)
        wide = self._known(h) if h.dtype == np.int16 else self._known(h) / 256
        return [ops.quantize(ops.mul(o, out, wide), h.dtype, self._known(h)), c_next]

    @recur.register
    def _(self, layer: GRU, x: Value, state: Sequence[Value]) -> list[Value]:
        (h,) = state
        ops, u = self.ops, layer.units
        x, kernel = self._input(layer.name, x, layer.kernel)
        narrow = self._to_narrow(h)
        both = layer.bias + layer.recurrent_bias
        parts = [(x, kernel), (narrow, layer.recurrent_kernel)]
        z, r = self._gate(layer, parts, both, np.r_[0 : 2 * u], layer.recurrent_activation)
        columns = np.r_[2 * u : 3 * u]
        x_seen, h_seen, seen = (self._ranges.of(layer.name, kind)[columns].max() for kind in ("x_sum", "h_sum", "sum"))
        x_scale, h_scale = self._from_range(x_seen, self._narrow), self._from_range(h_seen, self._narrow)
        # int16 sums: the flat part of tanh, or what the two parts can reach together.
        total = self._from_range(x_seen + h_seen, np.int16)
        total = min(total, FLAT["tanh"][1]) if layer.activation.name in FLAT else total
        if layer.reset_after:
            x_scale = self._clipped(layer.activation, x_scale, h_scale)
            product = ops.widen(
                self._product(narrow, layer.recurrent_kernel[:, columns], layer.recurrent_bias[columns], h_scale)
            )
            ahead = ops.widen(self._product(x, kernel[:, columns], layer.bias[columns], x_scale))
            sums = ops.add(ahead, ops.mul(r, product, self._product_scale(r, product)), total)
        else:
            reset = self._to_narrow(ops.mul(r, h, self._known(h)))
            parts = [(x, kernel[:, columns]), (reset, layer.recurrent_kernel[:, columns])]
            scale = self._clipped(layer.activation, self._from_range(max(seen, x_seen + h_seen), self._narrow))
            sums = self.product(parts, both[columns], scale, (x_scale, h_scale))
        candidate = self._activate(layer.activation, sums)
        change = ops.sub(h, candidate, 2 * max(self._known(h), self._known(candidate)))
        moved = ops.mul(z, change, self._product_scale(z, change))
        return [ops.add(candidate, moved, self._known(h))]

    @recur.register
    def _(self, layer: SimpleRNN, x: Value, state: Sequence[Value]) -> list[Value]:
        x, kernel = self._input(layer.name, x, layer.kernel)
        parts = [(x, kernel), (state[0], layer.recurrent_kernel)]
        (y,) = self._gate(layer, parts, layer.bias, np.r_[0 : layer.units], layer.activation)
        return [self.ops.quantize(y, state[0].dtype, self._known(state[0]))]

    @singledispatchmethod
    def apply(self, layer: Any, x: Value) -> Value:
        """Output of a layer without state: in float, but for a Dense."""
        return super().apply(layer, self.ops.dequantize(x))

    @apply.register
    def _(self, layer: Dense, x: Value) -> Value:
        x, kernel = self._input(layer.name, x, layer.kernel)
        scale = self._from_range(self._ranges.of(layer.name, "sum").max(), self._narrow)
        y = self.ops.dequantize(self._product(x, kernel, layer.bias, scale))
        return activate(self.ops, layer.activation, y)

    def _input(self, layer: str, x: Value, kernel: npt.NDArray[Any]) -> tuple[Value, npt.NDArray[Any]]:
        """The input of a matrix product in its type, and the kernel that goes with it."""
        if x.dtype != np.float32:
            return self._to_narrow(x), kernel
        largest = self._ranges.of(layer, "x")
        reach = np.where(largest > 0, largest, 1.0) * MARGIN / self._reach
        scaled = self.ops.mul(x, self.ops.constant((1 / reach)[None]))
        return self.ops.quantize(scaled, self._narrow, self._unit), kernel * reach[:, None]

    def _to_narrow(self, x: Value) -> Value:
        if x.dtype == self._narrow:
            return x
        scale = self._unit if x.scale == UNIT_INT16 else self._known(x) * 32767 / 127
        return self.ops.quantize(x, self._narrow, scale)

    def _wide(self, layer: str, kind: str) -> float:
        """The scale of a state in int16."""
        return self._from_range(self._ranges.of(layer, kind).max() * STATE_MARGIN / MARGIN, np.int16)

    @staticmethod
    def _from_range(largest: float, dtype: npt.DTypeLike) -> float:
        """The scale that lets an integer type hold ±largest, with room to spare."""
        return float(largest or 1.0) * MARGIN / np.iinfo(dtype).max

    @staticmethod
    def _known(x: Value) -> float:
        if x.scale is None:
            raise ValueError("the tensor has no scale")
        return x.scale

    def _product_scale(self, a: Value, b: Value) -> float:
        """The scale that lets int16 hold the product of two int16 tensors whatever they hold."""
        return self._known(a) * self._known(b) * 32768
