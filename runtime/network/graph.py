"""A network: its layers in order, and what one timestep of them all is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..activations import FloatArray
from ..errors import InputError
from .arrays import ARRAYS
from .layer import Layer, StateSpec, Weights, parameter_count
from .ops import Ops
from .pointwise import Masking

V = TypeVar("V")
State: TypeAlias = tuple[FloatArray, ...]


class Reference(Protocol):
    """Keras itself, as what a network is to compute."""

    def __call__(self, xs: Weights) -> Weights:
        """(T, features) → (T, outputs): the model's output on every prefix of a sequence."""
        ...

    def windows(self, xs: Weights) -> Weights:
        """(N, T, features) → (N, outputs): the model's output on each sequence from zero state, the last if many."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of layers that computes one timestep after another.

    Attributes:
        name: what the model is called.
        layers: the layers in order.
        features: number of inputs of a timestep.
        return_sequences: whether the Keras model gives an output for every timestep of a sequence or only for
            the last. Streaming gives one for every timestep either way (the model's output on the prefix).
        reference: Keras itself, set by `read_keras`; what exports are proved against. Not part of a saved network.
        window: timesteps that the Keras model takes at a time, where its input has a fixed length and it keeps no
            state between calls. Not part of a saved network.
    """

    name: str
    layers: tuple[Layer, ...]
    features: int
    return_sequences: bool
    reference: Reference | None = field(default=None, repr=False)
    window: int | None = None

    @property
    def outputs(self) -> int:
        """Number of outputs of a timestep."""
        width = self.features
        for layer in self.layers:
            width = layer.width(width)
        return width

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter_count(layer) for layer in self.layers)

    @property
    def summaries(self) -> tuple[str, ...]:
        """A line for each layer, for people, such as `lstm: LSTM 8 → 32, tanh, sigmoid`."""
        return tuple(f"{layer.name}: {layer.summary}" for layer in self.layers)

    @property
    def recurrent_layers(self) -> tuple[Layer, ...]:
        """The layers that keep a state, in order."""
        return tuple(layer for layer in self.layers if layer.states)

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """The states in the order in which `step` takes and gives them."""
        return tuple(spec for layer in self.layers for spec in layer.states)

    @cached_property
    def _placed(self) -> tuple[tuple[Layer, slice], ...]:
        """Each layer, and where its states are among all."""
        ends = list(accumulate(len(layer.states) for layer in self.layers))
        return tuple((layer, slice(end - len(layer.states), end)) for layer, end in zip(self.layers, ends, strict=True))

    @property
    def mask_value(self) -> float | None:
        """The value that marks a masked timestep, or None where the network has no input Masking."""
        first = self.layers[0] if self.layers else None
        return first.mask_value if isinstance(first, Masking) else None

    def zero_state(self, *batch: int, dtype: npt.DTypeLike = np.float32) -> State:
        """The state before the first timestep: zeros of shape (*batch, units)."""
        return tuple(np.zeros((*batch, spec.units), dtype) for spec in self.states)

    def lower(self, ops: Ops[V], x: V, states: Sequence[V]) -> tuple[V, list[V]]:
        """One timestep in operators: the output and the next states, from the input and the last states."""
        gate: V | None = None
        following: list[V] = []
        for layer, at in self._placed:
            if isinstance(layer, Masking):
                gate, x = ops.masked(layer, x)
                continue
            last = states[at]
            y, new = ops.apply(layer, (x,), last)
            if gate is not None and last:
                held = [ops.hold(gate, old, now) for old, now in zip(last, new, strict=True)]
                # An output that is a state is held with it.
                y, new = next((kept for now, kept in zip(new, held, strict=True) if now is y), y), held
            following.extend(new)
            x = y
        return x, following

    def step(self, state: State, x: FloatArray) -> tuple[FloatArray, State]:
        """One timestep in NumPy.

        Args:
            state: from `zero_state` or from the last step.
            x: (features,), or (batch, features) with a state of the same batch. Its dtype is the precision of
                the computation: float64 gives a float64 reference.

        Returns:
            (outputs,) or (batch, outputs), and the next state.
        """
        y, following = self.lower(ARRAYS, x, state)
        return y, tuple(following)

    def run(self, xs: FloatArray) -> FloatArray:
        """A whole sequence from zero state: (T, features) → (T, outputs), or (T, batch, …) for a batch."""
        state = self.zero_state(*xs.shape[1:-1], dtype=xs.dtype)
        ys = np.empty((*xs.shape[:-1], self.outputs), xs.dtype)
        for t, x in enumerate(xs):
            ys[t], state = self.step(state, x)
        return ys


def check_width(xs: npt.NDArray[Any], features: int, what: str) -> None:
    """Raise `InputError` unless the last axis of `xs` holds `features` values."""
    if xs.ndim == 0 or xs.shape[-1] != features:
        raise InputError(f"{what}: the model takes {features} features per timestep, got an array of shape {xs.shape}")
