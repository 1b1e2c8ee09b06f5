"""Graphs that take a whole window at once, whatever library runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, InputError, reason_of
from ..streaming import MOST_NUMBERS, Streaming
from ..typed_json import from_json
from . import Float32Array, Opened, answer_shape


@dataclass(frozen=True)
class Described:
    """What a window graph's file says of it.

    Attributes:
        text: all of it, as JSON.
        streaming: how it streams, with a window and what is `whole` about it.
        features: width of a timestep.
        outputs: width of an answer's row.
    """

    text: str
    streaming: Streaming
    features: int
    outputs: int

    @property
    def batch(self) -> tuple[int, int, int]:
        """The shape of what the graph takes."""
        return 1, self.streaming.window or 1, self.features


def described_window(text: str, source: str) -> Described | None:
    """What a file's description says of a window graph; None where it is of another graph, or none.

    Raises:
        BundleError: it is damaged.
    """
    try:
        raw: Any = json.loads(text) if text else None
        if type(raw) is not dict or cast("dict[str, Any]", raw).get("graph") != "window":
            return None
        raw = cast("dict[str, Any]", raw)
        streaming = from_json(Streaming, raw["streaming"], "streaming")
        features, outputs = len(raw["features"]), len(raw["outputs"])
        if streaming.whole is None or not features or not outputs:
            raise ValueError("it has no window")
        if max((streaming.window or 1) * features, (streaming.whole.rows or 1) * outputs) > MOST_NUMBERS:
            raise ValueError("its window is too large")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{source}: the description of its window is damaged ({error}); export it again") from error
    return Described(text, streaming, features, outputs)


class WindowSession:
    """One stream's way to a window graph. There is no state: the stream keeps the window, and gives it whole."""

    def __init__(
        self, opened: Opened, call: Callable[[Float32Array], Float32Array], bare: Callable[[], object], source: str
    ) -> None:
        """Answer with `call`: (1, T, features) → (1, outputs) or (1, rows, outputs)."""
        self.x: Float32Array = np.zeros(opened.features, np.float32)
        self.y: Float32Array = np.zeros(answer_shape(opened), np.float32)
        self._call, self._bare, self._source = call, bare, source

    def answer(self, rows: Float32Array, y: Float32Array) -> None:
        """Write the answer to a window (T, features) into `y`."""
        try:
            found = self._call(rows[None])
        except Exception as error:  # Runtimes' exceptions have no common root.
            raise BundleError(f"{self._source}: cannot be run ({reason_of(error)}); the state is as it was") from error
        if found.shape != (1, *self.y.shape):
            raise BundleError(
                f"{self._source}: gives an answer of shape {found.shape[1:]}, where its description says "
                f"{self.y.shape}; export it again"
            )
        y[...] = found[0]

    def advance(self) -> NoReturn:
        """No single timestep."""
        raise InputError(f"{self._source}: takes a whole window at once, not a timestep")

    def run(self, xs: Float32Array, ys: Float32Array) -> NoReturn:
        """No single timesteps."""
        self.advance()

    def states(self) -> list[npt.NDArray[Any]]:
        """None."""
        return []

    def restore(self, states: Sequence[npt.NDArray[Any]]) -> None:
        """Nothing to take over."""

    def reset(self) -> None:
        """Nothing to begin anew."""

    def bare_call(self) -> Callable[[], object]:
        """The library's own call on a window."""
        return self._bare
