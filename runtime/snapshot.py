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

# Magic, version, the model's fingerprint, window, inputs held, steps; then inputs, states, CRC-32.
_HEADER = struct.Struct("<8sH16sIIQ")
_MAGIC, _VERSION = b"EDGESTRM", 1


@dataclass(frozen=True)
class Snapshot:
    """What a stream keeps.

    Attributes:
        window: of the stream, or None.
        steps: timesteps since the last reset.
        recent: with a window, the inputs in it, oldest first.
        states: in the order of the model's `state_names`.
    """

    window: int | None
    steps: int
    recent: list[Float32Array]
    states: Sequence[npt.NDArray[Any]]

    def to_bytes(self, fingerprint: bytes) -> bytes:
        """Serialise, marked with the model's fingerprint."""
        inputs = b"".join(row.tobytes() for row in self.recent)
        states = b"".join(state.tobytes() for state in self.states)
        header = _HEADER.pack(_MAGIC, _VERSION, fingerprint, self.window or 0, len(self.recent), self.steps)
        content = header + inputs + states
        return content + struct.pack("<I", zlib.crc32(content))

    @classmethod
    def from_bytes(
        cls,
        content: bytes,
        fingerprint: bytes,
        name: str,
        window: int | None,
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
            templates: states of the same shapes and dtypes.

        Raises:
            InputError: it is damaged, of another model or artifact, or of another window.
        """
        if len(content) < _HEADER.size + 4 or content[:8] != _MAGIC:
            raise InputError(f"{name}: not a stream's snapshot")
        if struct.unpack("<I", content[-4:])[0] != zlib.crc32(content[:-4]):
            raise InputError(f"{name}: the snapshot is damaged")
        _, version, of, has_window, held, steps = _HEADER.unpack_from(content)
        if version > _VERSION:
            raise InputError(f"{name}: the snapshot is of a later version of EdgeLSTM")
        if of != fingerprint:
            raise InputError(
                f"{name}: the snapshot is of another model or artifact; states fit only the one they come from"
            )
        if has_window != (window or 0):
            raise InputError(f"{name}: the snapshot is of a stream with window {has_window or None}, not {window}")
        body = content[_HEADER.size : -4]
        width = 4 * features
        if len(body) != held * width + sum(t.nbytes for t in templates):
            raise InputError(f"{name}: the snapshot has the wrong size")
        recent = [np.frombuffer(body, np.float32, features, i * width).copy() for i in range(held)]
        at, states = held * width, list[npt.NDArray[Any]]()
        for template in templates:
            states.append(np.frombuffer(body, template.dtype, template.size, at).reshape(template.shape))
            at += template.nbytes
        return cls(window, steps, recent, states)
