"""What every kind of layer says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .ops import Ops

V = TypeVar("V")
Weights: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StateSpec:
    """One state of a network: which layer keeps it, what it is called, and its width. It starts as zeros."""

    layer: str
    kind: str
    units: int

    @property
    def name(self) -> str:
        """The name it has in every exported graph, such as `lstm_1_h`."""
        return f"{self.layer}_{self.kind}"


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of any kind. Each kind is a subclass, which adds its weights and settings."""

    name: str

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """The states that it keeps from one timestep to the next."""
        return ()

    def width(self, *inputs: int) -> int:
        """Width of its output, from those of its inputs."""
        return inputs[0]

    def lower(self, ops: Ops[V], inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        """One timestep in operators.

        Args:
            ops: who interprets them.
            inputs: rows, each as wide as one of the inputs.
            states: the last ones, in the order of `states`.

        Returns:
            The output and the next states.
        """
        raise NotImplementedError(type(self).__name__)

    def bound(self, *inputs: float) -> float:
        """What no value of its output can exceed in absolute value, where those of its inputs do not exceed these."""
        return float("inf")

    @property
    def summary(self) -> str:
        """For people: its kind, widths and settings, such as `LSTM 8 → 32, tanh, sigmoid`."""
        return type(self).__name__


def layer_fields(layer: Layer) -> list[tuple[str, Any]]:
    """A layer's fields and values in the order of their definition, its name left out."""
    return [(f.name, getattr(layer, f.name)) for f in fields(layer) if f.name != "name"]


def parameter_count(layer: Layer) -> int:
    """Number of weights of a layer, as it is exported."""
    return sum(value.size for _, value in layer_fields(layer) if isinstance(value, np.ndarray))
