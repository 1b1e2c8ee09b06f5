"""Recurrent layers. The recurrences are those of Keras: gate order i f c o for LSTM, z r h for GRU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from ..activations import SIGMOID, TANH, Function
from .layer import Layer, StateSpec, Weights
from .ops import Ops

V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class _Cell(Layer):
    """What every cell has: kernels for its inputs and for its last output, and a bias, gate beside gate."""

    kernel: Weights
    recurrent_kernel: Weights
    bias: Weights

    @property
    def units(self) -> int:
        """Width of the output and of each state."""
        return self.recurrent_kernel.shape[0]

    @property
    def states(self) -> tuple[StateSpec, ...]:
        return (StateSpec(self.name, "h", self.units),)

    def width(self, *inputs: int) -> int:
        return self.units


@dataclass(frozen=True, eq=False)
class LSTM(_Cell):
    """Long short-term memory. Kernels (inputs, 4·units) and (units, 4·units), bias (4·units,)."""

    activation: Function = TANH
    recurrent_activation: Function = SIGMOID

    @property
    def states(self) -> tuple[StateSpec, ...]:
        return StateSpec(self.name, "h", self.units), StateSpec(self.name, "c", self.units)

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        (x,), (h, c) = inputs, states
        i, f, g, o = ops.split(ops.product(((x, self.kernel), (h, self.recurrent_kernel)), self.bias), 4)
        i, f, o = (ops.act(self.recurrent_activation, gate) for gate in (i, f, o))
        c = ops.add(ops.mul(f, c), ops.mul(i, ops.act(self.activation, g)))
        h = ops.mul(o, ops.act(self.activation, c))
        return h, (h, c)

    def bound(self, *inputs: float) -> float:
        return self.activation.bound() if self.recurrent_activation.is_gate else float("inf")

    @property
    def summary(self) -> str:
        return f"LSTM {self.kernel.shape[0]} → {self.units}, {self.activation}, {self.recurrent_activation}"


@dataclass(frozen=True, eq=False)
class GRU(_Cell):
    """Gated recurrent unit. Kernels (inputs, 3·units) and (units, 3·units), two biases (3·units,).

    With `reset_after` the reset gate is applied after the recurrent product (Keras's default), else to h
    before it; `recurrent_bias` is zero then.
    """

    recurrent_bias: Weights
    activation: Function = TANH
    recurrent_activation: Function = SIGMOID
    reset_after: bool = True

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        (x,), (h,) = inputs, states
        split = 2 * self.units
        kernel, recurrent, bias = self.kernel, self.recurrent_kernel, self.bias + self.recurrent_bias
        sums = ops.product(((x, kernel[:, :split]), (h, recurrent[:, :split])), bias[:split])
        z, r = (ops.act(self.recurrent_activation, gate) for gate in ops.split(sums, 2))
        if self.reset_after:
            # The sums of h pass the gate before they meet those of x.
            product = ops.product(((h, recurrent[:, split:]),), self.recurrent_bias[split:])
            fresh = ops.add(ops.product(((x, kernel[:, split:]),), self.bias[split:]), ops.mul(r, product))
        else:
            fresh = ops.product(((x, kernel[:, split:]), (ops.mul(r, h), recurrent[:, split:])), bias[split:])
        # Not fresh + z · (h - fresh), which has an operator less: that rounds h even where z is 1, so that what is to
        # be kept for ever drifts.
        h = ops.add(ops.mul(z, h), ops.mul(ops.sub(1.0, z), ops.act(self.activation, fresh)))
        return h, (h,)

    def bound(self, *inputs: float) -> float:
        # A new state lies between the last and the candidate.
        return self.activation.bound() if self.recurrent_activation.is_gate else float("inf")

    @property
    def summary(self) -> str:
        functions = f"{self.activation}, {self.recurrent_activation}"
        reset = "reset after" if self.reset_after else "reset before"
        return f"GRU {self.kernel.shape[0]} → {self.units}, {functions}, {reset}"


@dataclass(frozen=True, eq=False)
class SimpleRNN(_Cell):
    """Fully connected recurrence. Kernels (inputs, units) and (units, units), bias (units,)."""

    activation: Function = TANH

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        (x,), (h,) = inputs, states
        h = ops.act(self.activation, ops.product(((x, self.kernel), (h, self.recurrent_kernel)), self.bias))
        return h, (h,)

    def bound(self, *inputs: float) -> float:
        return self.activation.bound()

    @property
    def summary(self) -> str:
        return f"SimpleRNN {self.kernel.shape[0]} → {self.units}, {self.activation}"


Recurrent: TypeAlias = LSTM | GRU | SimpleRNN
