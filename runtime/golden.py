"""Golden vectors: inputs that a bundle carries, with Keras's answers, to be replayed anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import BundleError
from .streaming import Window


@dataclass(frozen=True)
class Golden:
    """Golden vectors: sequences of inputs, each from a reset, and Keras's outputs for them.

    Attributes:
        inputs: (T, features).
        outputs: Keras's answers. Without a window (T, outputs), each on all inputs since the reset; with one, a row for
            each answer that comes due, (answers, outputs) or (answers, rows, outputs); for a sequence graph that
            answers a sequence as a whole, as many for each sequence.
        starts: indices of the timesteps before which the state is reset; the first is 0.
        window: of the stream that gives these answers, or None where its state is carried.
    """

    inputs: npt.NDArray[np.float32]
    outputs: npt.NDArray[np.float32]
    starts: tuple[int, ...]
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.outputs.ndim not in ((2,) if self.window is None else (2, 3)):
            raise ValueError(f"unexpected shapes {self.inputs.shape}, {self.outputs.shape}")
        if not self.starts or self.starts[0] != 0:
            raise ValueError("no start")
        if list(self.starts) != sorted(set(self.starts)) or self.starts[-1] >= len(self.inputs):
            raise ValueError("unordered resets")
        lengths = np.diff((*self.starts, len(self.inputs)))
        if self.window is not None:
            expected = {sum(len(self.window.due(0, int(length))) for length in lengths)}
        else:
            # A sequence graph may give any number of answers to a sequence, such as a decoder's.
            each = len(self.outputs) // len(self.starts) * len(self.starts)
            expected = {len(self.inputs), each}
        if len(self.outputs) not in expected or len(self.outputs) == 0:
            raise ValueError(f"{len(self.outputs)} answers to {len(self.inputs)} inputs")
        if not (np.isfinite(self.inputs).all() and np.isfinite(self.outputs).all()):
            raise ValueError("values that are not finite")

    def sequences(self) -> Iterator[npt.NDArray[np.float32]]:
        """The inputs of each sequence."""
        for start, stop in zip(self.starts, (*self.starts[1:], len(self.inputs)), strict=True):
            yield self.inputs[start:stop]

    def windows(self) -> Iterator[npt.NDArray[np.float32]]:
        """With a window: the inputs of each answer, (up to window, features)."""
        if self.window is None:
            return
        for sequence in self.sequences():
            for t in self.window.due(0, len(sequence)):
                yield sequence[max(t + 1 - self.window.timesteps, 0) : t + 1]

    def to_bytes(self) -> bytes:
        """A `.npz` file; the same vectors give the same bytes."""
        arrays = {"inputs": self.inputs, "outputs": self.outputs, "starts": np.array(self.starts, np.int64)}
        if self.window is not None:
            arrays["window"] = np.array([self.window.timesteps, self.window.hop], np.int64)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> Golden:
        """Read golden vectors.

        Raises:
            BundleError: the file is damaged.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                inputs = np.asarray(arrays["inputs"], np.float32)
                outputs = np.asarray(arrays["outputs"], np.float32)
                starts = tuple(int(s) for s in arrays["starts"])
                window = None
                if "window" in arrays.files:
                    timesteps, hop = (int(n) for n in arrays["window"])
                    window = Window(timesteps, hop)
            return cls(inputs, outputs, starts, window)
        except Exception as error:  # NumPy's reader evaluates a text, so that anything can come of it.
            raise BundleError(f"{source}: not readable golden vectors ({error})") from error
