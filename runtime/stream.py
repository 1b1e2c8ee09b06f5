"""The stream: one sequence in progress."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends import Float32Array, Session
from .errors import InputError

# Snapshot: magic, version, the model's fingerprint, window, inputs held, steps; then inputs, states, CRC-32.
_HEADER = struct.Struct("<8sH16sIIQ")
_MAGIC, _VERSION = b"EDGESTRM", 1
_FLOAT32 = np.dtype(np.float32)

# `step` looks for NaN by multiplying with it, and says what it finds in an error of its own.
warnings.filterwarnings("ignore", "invalid value encountered in dot", RuntimeWarning, re.escape(__name__))


class Stream:
    """One sequence in progress: a model and a state. Owned by one thread at a time.

    Made by `Model.stream()`. With `window=T` the answer to each timestep is what the model gives for the last T
    inputs from zero state, and costs T steps; without, the state is carried on for ever.

    Attributes:
        steps: timesteps since the start or the last reset.
    """

    def __init__(self, session: Session, fingerprint: bytes, name: str, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise InputError(f"a window has at least 1 timestep, not {window}")
        self._session = session
        self._fingerprint = fingerprint
        self._name = name
        self._window = window
        self._recent: list[Float32Array] = []
        self._x, self._y = session.x, session.y
        self._shape, self._out_shape = session.x.shape, session.y.shape
        self._probe = np.zeros_like(session.x).dot
        self._answer = session.y.copy
        self._advance = session.advance if window is None else self._advance_window
        self.steps = 0

    def step(self, x: npt.ArrayLike, out: Float32Array | None = None) -> Float32Array:
        """One timestep.

        Args:
            x: (features,), finite numbers.
            out: where to write the answer, (outputs,) float32; nothing is allocated then.

        Returns:
            (outputs,) float32: `out`, or a new array.

        Raises:
            InputError: x or out does not fit, or a value is not finite; the state is as it was.
        """
        # This is what users call a thousand times a second: every name is bound and every check chosen for its cost.
        buffer = self._x
        if type(x) is np.ndarray and x.dtype is _FLOAT32 and x.shape == self._shape:
            buffer[...] = x
        else:
            buffer[...] = self._row(x)
        # Zero times anything finite is zero, which is false; NaN is true. One call finds every NaN and infinity.
        try:
            bad = self._probe(buffer)
        except (FloatingPointError, RuntimeWarning):  # np.seterr(invalid="raise"), or warnings as errors
            bad = True
        if bad:
            raise InputError(f"{self._name}: timestep {self.steps}: {_not_finite(buffer)}; the state is as it was")
        if out is None:
            self._advance()
            self.steps += 1
            return self._answer()
        if out.shape != self._out_shape or out.dtype != _FLOAT32:
            raise InputError(
                f"{self._name}: out must be a float32 array of shape {self._out_shape}, "
                f"not {out.dtype} of shape {out.shape}"
            )
        self._advance()
        self.steps += 1
        out[...] = self._y
        return out

    def run(self, xs: npt.ArrayLike) -> Float32Array:
        """A chunk of timesteps: the same numbers as as many steps.

        Args:
            xs: (T, features), finite numbers; T may be 0.

        Returns:
            (T, outputs) float32.

        Raises:
            InputError: xs does not fit, or a value is not finite; no timestep of the chunk was taken.
        """
        chunk = self._chunk(xs)
        ys = np.empty((len(chunk), *self._out_shape), np.float32)
        saved = self._session.states()
        recent, steps = list(self._recent), self.steps
        try:
            if self._window is None:
                self._session.run(chunk, ys)
                self.steps += len(chunk)
            else:
                for t in range(len(chunk)):
                    ys[t] = self.step(chunk[t])
        except BaseException:
            self._session.restore(saved)
            self._recent, self.steps = recent, steps
            raise
        return ys

    @property
    def healthy(self) -> bool:
        """Whether every state that is carried on is a finite number. Once one is not, only a reset helps."""
        return self._window is not None or all(bool(np.isfinite(state).all()) for state in self._session.states())

    @property
    def features(self) -> int:
        """Number of inputs of a timestep."""
        return self._shape[0]

    @property
    def outputs(self) -> int:
        """Number of outputs of a timestep."""
        return self._out_shape[0]

    def bare_call(self) -> Callable[[], object]:
        """The backend library's own call alone, for benchmarks: it takes a timestep with no check and no answer."""
        return self._session.bare_call()

    def reset(self) -> None:
        """Back to zero state, as at the start of a sequence."""
        self._session.reset()
        self._recent.clear()
        self.steps = 0

    def snapshot(self) -> bytes:
        """The state, to be restored into a stream of the same artifact later or elsewhere."""
        inputs = b"".join(row.tobytes() for row in self._recent)
        states = b"".join(state.tobytes() for state in self._session.states())
        header = _HEADER.pack(_MAGIC, _VERSION, self._fingerprint, self._window or 0, len(self._recent), self.steps)
        content = header + inputs + states
        return content + struct.pack("<I", zlib.crc32(content))

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot.

        Raises:
            InputError: it is damaged, of another model or artifact, or of another window; the state is as it was.
        """
        recent, states, steps = self._parse(snapshot)
        self._session.restore(states)
        self._recent, self.steps = recent, steps

    def _advance_window(self) -> None:
        newest = self._x.copy()
        recent = [*self._recent, newest][-(self._window or 1) :]
        # The answers before the last are of no use, but a backend may need the room to compute them.
        self._session.reset()
        ys = np.empty((len(recent), *self._out_shape), np.float32)
        self._session.run(np.stack(recent), ys)
        self._y[...] = ys[-1]
        self._recent = recent

    def _row(self, x: npt.ArrayLike) -> Float32Array:
        row = _numbers(x, self._name)
        if row.shape != self._shape:
            raise InputError(
                f"{self._name}: a timestep has {self._shape[0]} features, got an array of shape {row.shape}"
            )
        return row

    def _chunk(self, xs: npt.ArrayLike) -> Float32Array:
        chunk = _numbers(xs, self._name)
        if chunk.size == 0 and chunk.ndim <= 2:
            return np.empty((0, *self._shape), np.float32)
        if chunk.ndim != 2 or chunk.shape[1:] != self._shape:
            raise InputError(
                f"{self._name}: a chunk has shape (timesteps, {self._shape[0]}), got an array of shape {chunk.shape}"
            )
        finite = np.isfinite(chunk).all(1)
        if not finite.all():
            t = int(np.argmin(finite))
            raise InputError(
                f"{self._name}: timestep {t} of the chunk: {_not_finite(chunk[t])}; none of the chunk was taken"
            )
        return chunk

    def _parse(self, snapshot: bytes) -> tuple[list[Float32Array], list[npt.NDArray[Any]], int]:
        if len(snapshot) < _HEADER.size + 4 or snapshot[:8] != _MAGIC:
            raise InputError(f"{self._name}: not a stream's snapshot")
        if struct.unpack("<I", snapshot[-4:])[0] != zlib.crc32(snapshot[:-4]):
            raise InputError(f"{self._name}: the snapshot is damaged")
        _, version, fingerprint, window, held, steps = _HEADER.unpack_from(snapshot)
        if version > _VERSION:
            raise InputError(f"{self._name}: the snapshot is of a later version of EdgeLSTM")
        if fingerprint != self._fingerprint:
            raise InputError(
                f"{self._name}: the snapshot is of another model or artifact; states fit only the one they come from"
            )
        if window != (self._window or 0):
            raise InputError(
                f"{self._name}: the snapshot is of a stream with window {window or None}, not {self._window}"
            )
        body = snapshot[_HEADER.size : -4]
        templates: Sequence[npt.NDArray[Any]] = self._session.states()
        features = self._shape[0]
        width = 4 * features
        if len(body) != held * width + sum(t.nbytes for t in templates):
            raise InputError(f"{self._name}: the snapshot has the wrong size")
        recent = [np.frombuffer(body, np.float32, features, i * width).copy() for i in range(held)]
        at, states = held * width, list[npt.NDArray[Any]]()
        for template in templates:
            states.append(np.frombuffer(body, template.dtype, template.size, at).reshape(template.shape))
            at += template.nbytes
        return recent, states, steps


def _numbers(values: npt.ArrayLike, name: str) -> Float32Array:
    """Numbers as a C-contiguous float32 array."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: the input is not an array of numbers ({error})") from error
    if array.dtype.kind not in "fiu" and array.size:
        raise InputError(f"{name}: the input holds {array.dtype} values, not numbers")
    with np.errstate(over="ignore"):  # What is too large for float32 becomes infinite and is refused as such.
        return np.ascontiguousarray(array.astype(np.float32))


def _not_finite(row: Float32Array) -> str:
    feature = int(np.argmin(np.isfinite(row)))
    return f"feature {feature} is {row[feature]}, not a finite float32 number"
