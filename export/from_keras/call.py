"""One call of a Keras layer, and the error that refuses it by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import UnsupportedModelError

WINDOW_HINT = "stream it by window: as it is, on the last T timesteps (export --window T)"


class NotCarriedError(UnsupportedModelError):
    """A model that is no chain of layers whose state can be carried, which may stream by window all the same.

    Attributes:
        because: what in it: a layer by name, and the reason.
    """

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        """Say what cannot be carried, why, and what to do: the remedy, or a stream by window."""
        self.because = f"{where}: {reason}"
        super().__init__(f"{self.because}; {f'{remedy}, or ' if remedy else ''}{WINDOW_HINT}")


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
        """The error that refuses this layer, whatever is made of it, naming it."""
        return UnsupportedModelError(f"{self.where}: {reason}; {remedy}")

    def not_carried(self, reason: str, remedy: str = "") -> NotCarriedError:
        """The error that says, naming this layer, why no state can be carried through it."""
        return NotCarriedError(self.where, reason, remedy)

    @property
    def where(self) -> str:
        """What to call it."""
        return f'layer "{self.path}" ({self.kind})'

    @property
    def is_only_timestep(self) -> bool:
        """Whether it makes a vector of a sequence of exactly one timestep, which has the same numbers."""
        return (
            self.kind in ("Flatten", "Reshape")
            and len(self.input_shape) == 3
            and self.input_shape[1] == 1
            and self.output_shape[1:] == self.input_shape[2:]
        )
