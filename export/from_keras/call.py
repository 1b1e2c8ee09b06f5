"""One call of a Keras layer, and the error that refuses it by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import UnsupportedModelError

SEQUENCE_HINT = "export it as a sequence graph instead (--graph sequence)"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a Keras layer.

    Attributes:
        layer: the `keras.layers.Layer`.
        path: its name, behind the names of the models it is nested in: `encoder/lstm_1`.
        input_shape: with the batch first, None where it is free.
        output_shape: likewise; of the first output where there are several.
    """

    layer: Any
    path: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]

    @property
    def kind(self) -> str:
        """Name of the layer's class."""
        return type(self.layer).__name__

    def refused(self, reason: str, remedy: str) -> UnsupportedModelError:
        """The error that refuses this layer, naming it."""
        return UnsupportedModelError(f'layer "{self.path}" ({self.kind}): {reason}; {remedy}')

    @property
    def is_only_timestep(self) -> bool:
        """Whether it makes a vector of a sequence of exactly one timestep, which has the same numbers."""
        return (
            self.kind in ("Flatten", "Reshape")
            and len(self.input_shape) == 3
            and self.input_shape[1] == 1
            and self.output_shape[1:] == self.input_shape[2:]
        )
