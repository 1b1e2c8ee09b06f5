"""Backends: what runs an artifact. Each is imported only when it is asked for.

A backend's module has one class that opens an artifact and hands out sessions, one per stream.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..streaming import Streaming

Float32Array = npt.NDArray[np.float32]


class Session(Protocol):
    """The state of one stream inside a backend. Not thread-safe.

    The caller writes a timestep into `x`, calls `advance`, and reads the answer from `y`.
    """

    x: Float32Array
    y: Float32Array

    def advance(self) -> None:
        """One timestep; if it raises, the state is as it was."""
        ...

    def run(self, xs: Float32Array, ys: Float32Array) -> None:
        """T timesteps: reads (T, features), writes (T, outputs)."""
        ...

    def states(self) -> list[npt.NDArray[Any]]:
        """Copies of the states, in the order of the model's `state_names`."""
        ...

    def restore(self, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        ...

    def reset(self) -> None:
        """Back to zero state."""
        ...

    def bare_call(self) -> Callable[[], object]:
        """The library's own call alone, on what is bound: what a step costs at the least. For benchmarks."""
        ...


class Stepper(Protocol):
    """What takes a stream's timesteps by itself: checks the input, counts, and gives the answer.

    Attributes:
        steps: timesteps taken since the last reset.
    """

    steps: int

    def step(self, x: npt.ArrayLike, out: Float32Array | None = None) -> Float32Array:
        """One timestep, as `Stream.step` has it."""
        ...


class StreamGroup(Protocol):
    """The states of many streams on one set of weights, stepped together."""

    def step(self, xs: Float32Array, ys: Float32Array, indices: npt.NDArray[np.uintp] | None) -> None:
        """One timestep of each stream of `indices` (of all): reads (n, features), writes (n, outputs)."""
        ...

    def reset(self, index: int) -> None:
        """One stream back to zero state."""
        ...

    def states(self, index: int) -> list[npt.NDArray[Any]]:
        """Copies of one stream's states."""
        ...

    def restore(self, index: int, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        ...


class Opened(Protocol):
    """An opened artifact: immutable, shared by streams and threads.

    Attributes:
        features: width of a timestep.
        outputs: width of an answer's row.
        state_names: names of the states, in order.
        metadata: the texts that the file carries.
        fixed: of a graph that takes a whole window, how it streams, which is its only way; None for step graphs.
    """

    features: int
    outputs: int
    state_names: tuple[str, ...]
    metadata: dict[str, str]
    fixed: Streaming | None

    def session(self) -> Session:
        """A new session in zero state."""
        ...

    @property
    def state_bytes(self) -> int:
        """Size of one stream's states."""
        ...


# Backend → (format of the artifacts it runs, what opens them in the module of the same name), in the order of `auto`.
BACKENDS = {
    "native": ("native", "NativeArtifact"),
    "tflite": ("tflite", "open_tflite"),
    "onnx": ("onnx", "open_onnx"),
    "numpy": ("native", "NumpyArtifact"),
}


def answer_shape(opened: Opened) -> tuple[int, ...]:
    """The shape of an answer: (outputs,), or (rows, outputs) where it is a sequence."""
    rows = None if opened.fixed is None or opened.fixed.whole is None else opened.fixed.whole.rows
    return (opened.outputs,) if rows is None else (rows, opened.outputs)


def open_artifact(backend: str, content: bytes, source: str) -> Opened:
    """Open an artifact's content with a backend.

    Raises:
        BackendUnavailableError: the backend's library is not installed.
        BundleError: the content is damaged, or no step or window graph that EdgeLSTM wrote.
        InputError: there is no such backend.
    """
    if backend not in BACKENDS:
        raise InputError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    module = importlib.import_module(f".{backend}", __name__)
    return cast(Opened, getattr(module, BACKENDS[backend][1])(content, source))
