"""Layers that compute each timestep by itself, and Masking, which says which timesteps count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from ..activations import LINEAR, Function
from .layer import Layer, Weights
from .ops import Ops

V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """activation(x · kernel + bias), kernel (inputs, units), bias (units,)."""

    kernel: Weights
    bias: Weights
    activation: Function = LINEAR

    def width(self, *inputs: int) -> int:
        return self.kernel.shape[1]

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        return ops.act(self.activation, ops.product(((inputs[0], self.kernel),), self.bias)), ()

    def bound(self, *inputs: float) -> float:
        return self.activation.bound()

    @property
    def summary(self) -> str:
        return f"Dense {self.kernel.shape[0]} → {self.kernel.shape[1]}, {self.activation}"


@dataclass(frozen=True, eq=False)
class Affine(Layer):
    """(x - center) · scale + offset, each (features,): BatchNormalization, Normalization, Rescaling.

    `center` stands apart from `offset` because features far from zero would lose their precision in one sum.
    """

    center: Weights
    scale: Weights
    offset: Weights

    @cached_property
    def _does(self) -> tuple[bool, bool, bool]:
        """Whether each of the three changes anything."""
        return bool(self.center.any()), bool((self.scale != 1).any()), bool(self.offset.any())

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        x = inputs[0]
        centers, scales, offsets = self._does
        if centers:
            x = ops.sub(x, ops.vector("center", self.center))
        if scales:
            x = ops.mul(x, ops.vector("scale", self.scale))
        if offsets:
            x = ops.add(x, ops.vector("offset", self.offset))
        return x, ()

    def bound(self, *inputs: float) -> float:
        scale = np.abs(self.scale)
        # A feature with a scale of 0 is 0, whatever comes in: infinity times 0 is no number.
        scaled = np.multiply(inputs[0] + np.abs(self.center), scale, out=np.zeros_like(scale), where=scale > 0)
        return float(np.max(scaled + np.abs(self.offset)))

    @property
    def summary(self) -> str:
        return f"Affine {self.scale.shape[0]}"


@dataclass(frozen=True, eq=False)
class LayerNormalization(Layer):
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta over the last axis; gamma and beta (features,)."""

    gamma: Weights
    beta: Weights
    epsilon: float

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        centered = ops.sub(inputs[0], ops.mean(inputs[0]))
        deviation = ops.unary("sqrt", ops.add(ops.mean(ops.mul(centered, centered)), self.epsilon))
        normal = ops.div(centered, deviation)
        return ops.add(ops.mul(normal, ops.vector("gamma", self.gamma)), ops.vector("beta", self.beta)), ()

    def bound(self, *inputs: float) -> float:
        return float(np.max(np.sqrt(len(self.gamma)) * np.abs(self.gamma) + np.abs(self.beta)))

    @property
    def summary(self) -> str:
        return f"LayerNormalization {self.gamma.shape[0]}"


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """An activation function as a layer of its own."""

    function: Function

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        return ops.act(self.function, inputs[0]), ()

    def bound(self, *inputs: float) -> float:
        return self.function.bound(inputs[0])

    @property
    def summary(self) -> str:
        return f"Activation {self.function}"


@dataclass(frozen=True, eq=False)
class PReLU(Layer):
    """x above zero, slope · x below, with one trained slope per feature (features,)."""

    slope: Weights

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        below = ops.mul(ops.minimum(inputs[0], 0.0), ops.vector("slope", self.slope))
        return ops.add(ops.maximum(inputs[0], 0.0), below), ()

    @property
    def summary(self) -> str:
        return f"PReLU {self.slope.shape[0]}"


@dataclass(frozen=True, eq=False)
class Masking(Layer):
    """A timestep whose features all equal `mask_value` leaves every state of the network as it was.

    Only ever the first layer: Keras would compute the mask from the raw input then, and so can a device. What it
    does to the others is `Network.lower`'s.
    """

    mask_value: float

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        return inputs[0], ()

    def bound(self, *inputs: float) -> float:
        return inputs[0]

    @property
    def summary(self) -> str:
        return f"Masking {self.mask_value:g}"
