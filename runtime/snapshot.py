"""A stream's state as bytes, for `Stream.snapshot` and `Fleet.snapshot`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends import Float32Array
from .errors import InputError
from .streaming import Window

# Magic, version, the model's fingerprint, window, hop, inputs held, steps; then inputs or states, CRC-32.
_HEADER = struct.Struct("<8sH16sIIIQ")
_MAGIC, _VERSION = b"EDGESTRM", 2
# What may stand behind a snapshot: a note of whoever keeps it; then its length, its CRC-32 and this.
_NOTE = struct.Struct("<II8s")
_NOTE_MAGIC = b"EDGENOTE"
_MOST_STEPS = 2**62  # As far as the engine counts from: FURTHEST_SEEK in window.c.


@dataclass(frozen=True)
class Snapshot:
    """What a stream keeps: its states where these are carried on, its last inputs where it answers by window.

    Attributes:
        window: of the stream, or None.
        steps: timesteps since the last reset.
        recent: with a window, the last inputs, oldest first: (up to window, features).
        states: without one, in the order of the model's `state_names`.
    """

    window: Window | None
    steps: int
    recent: Float32Array
    states: Sequence[npt.NDArray[Any]] = ()

    def to_bytes(self, fingerprint: bytes) -> bytes:
        """Serialise, marked with the model's fingerprint."""
        window, hop = (0, 0) if self.window is None else (self.window.timesteps, self.window.hop)
        header = _HEADER.pack(_MAGIC, _VERSION, fingerprint, window, hop, len(self.recent), self.steps)
        content = header + self.recent.tobytes() + b"".join(state.tobytes() for state in self.states)
        return content + struct.pack("<I", zlib.crc32(content))

    @classmethod
    def from_bytes(
        cls,
        content: bytes,
        fingerprint: bytes,
        name: str,
        window: Window | None,
        features: int,
        templates: Sequence[npt.NDArray[Any]],
    ) -> Snapshot:
        """Read what `to_bytes` wrote.

        Args:
            content: the bytes.
            fingerprint: of the model that is to continue.
            name: what to call it in an error.
            window: of the stream that is to continue.
            features: of the model.
            templates: states of the same shapes and dtypes; none for a stream by window.

        Raises:
            InputError: it is damaged, of another model or artifact, or of a stream that answers otherwise.
        """
        if not isinstance(content, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{name}: a snapshot is bytes, not {type(content).__name__}")
        content = bytes(content)
        if len(content) < _HEADER.size + 4 or content[:8] != _MAGIC:
            raise InputError(f"{name}: not a stream's snapshot")
        content, _ = split_note(content)
        if struct.unpack("<I", content[-4:])[0] != zlib.crc32(content[:-4]):
            raise InputError(f"{name}: the snapshot is damaged")
        _, version, of, timesteps, hop, held, steps = _HEADER.unpack_from(content)
        if version != _VERSION:
            age = "a later" if version > _VERSION else "an earlier"
            raise InputError(f"{name}: the snapshot is of {age} version of EdgeLSTM; start from zero state")
        if of != fingerprint:
            raise InputError(
                f"{name}: the snapshot is of another model or artifact; states fit only the one they come from"
            )
        if (timesteps, hop) != ((0, 0) if window is None else (window.timesteps, window.hop)):
            raise InputError(
                f"{name}: the snapshot is of a stream that {_answers(timesteps, hop)}, and this one "
                f"{_answers(0, 0) if window is None else _answers(window.timesteps, window.hop)}; ask for the same"
            )
        body = content[_HEADER.size : -4]
        width = 4 * features
        expected_held = 0 if window is None else min(steps, window.timesteps)
        if steps > _MOST_STEPS:
            raise InputError(f"{name}: the snapshot is of {steps} timesteps, which no stream has taken")
        if held != expected_held or len(body) != held * width + sum(t.nbytes for t in templates):
            raise InputError(f"{name}: the snapshot has the wrong size")
        recent = np.frombuffer(body, np.float32, held * features).reshape(held, features).copy()
        at, states = held * width, list[npt.NDArray[Any]]()
        for template in templates:
            states.append(np.frombuffer(body, template.dtype, template.size, at).reshape(template.shape))
            at += template.nbytes
        if not all(np.isfinite(values).all() for values in (recent, *states)):
            raise InputError(f"{name}: the snapshot holds values that are not finite; start from zero state")
        return cls(window, steps, recent, states)


def with_note(snapshot: bytes, note: bytes) -> bytes:
    """A snapshot with a note of whoever keeps it; it restores as it did without."""
    return snapshot + note + _NOTE.pack(len(note), zlib.crc32(note), _NOTE_MAGIC)


def split_note(content: bytes) -> tuple[bytes, bytes | None]:
    """A snapshot, and the note behind it, if there is one that is undamaged."""
    if content[-8:] != _NOTE_MAGIC or len(content) < _NOTE.size:
        return content, None
    length, check, _ = _NOTE.unpack(content[-_NOTE.size :])
    start = len(content) - _NOTE.size - length
    note = content[max(start, 0) : -_NOTE.size]
    return (content[:start], note) if start >= 0 and zlib.crc32(note) == check else (content, None)


def _answers(timesteps: int, hop: int) -> str:
    if timesteps == 0:
        return "carries its state on"
    every = "timestep" if hop == 1 else f"{hop} timesteps"
    return f"answers on the last {timesteps} inputs every {every}"
