"""Streams that answer by window: each answer is the model on the last T inputs, from zero state.

Windows in flight are stepped together where the backend can: with T / hop states, each advanced by one timestep for
every input, an answer takes one timestep rather than T of them in a row. Other backends go through the window again for
each answer, and a graph that takes a whole window is given it. What a stream has to keep is the same in all cases: its
last T inputs.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from .backends import Float32Array, Opened, Session, answer_shape
from .backends.window import WindowSession
from .errors import InputError
from .streaming import Window


class InFlight(Protocol):
    """A backend's windows in flight, of many streams."""

    def step(self, x: Float32Array, y: Float32Array) -> bool:
        """One timestep of stream 0; whether an answer was due, which is in `y` then."""
        ...

    def run(self, xs: Float32Array, ys: Float32Array) -> int:
        """T timesteps of stream 0; how many answers came due, which are the first rows of `ys`."""
        ...

    def fleet_step(
        self, xs: Float32Array, ys: Float32Array, due: npt.NDArray[np.bool_], indices: npt.NDArray[np.uintp] | None
    ) -> None:
        """One timestep of each stream of `indices` (of all); rows of `ys` that are not `due` mean nothing."""
        ...

    def reset(self, index: int) -> None:
        """One stream back to its start."""
        ...

    def seek(self, steps: int, index: int) -> None:
        """Let a stream that was reset have taken so many timesteps, of which nothing is kept."""
        ...


class Windows:
    """So many streams by window, from their start.

    Attributes:
        steps: (streams,) timesteps of each since its start.
    """

    def __init__(self, opened: Opened, window: Window, streams: int, name: str, session: Session | None = None) -> None:
        """Make room.

        Args:
            opened: the artifact.
            window: of each stream.
            streams: how many.
            name: what to call the model in an error.
            session: one that is not used otherwise, if there is one.

        Raises:
            InputError: there is not so much memory, or the artifact takes another window.
        """
        if opened.fixed is not None:
            opened.fixed.choose(False, window.timesteps, window.hop, window.partial)
        self.window = window
        self._shape = answer_shape(opened)
        try:
            self.steps = np.zeros(streams, np.int64)
            self._ring = np.zeros((streams, window.timesteps, opened.features), np.float32)
            self._in_flight: InFlight | None = None
            if hasattr(opened, "windows"):
                self._in_flight = cast(Any, opened).windows(window, streams)
        except (MemoryError, ValueError, OverflowError) as error:
            raise InputError(
                f"{name}: {streams:,} streams by windows of {window.timesteps:,} timesteps, one every {window.hop:,}, "
                "do not fit into memory"
            ) from error
        self._session: Session | None = None
        if self._in_flight is None:
            self._session = session if isinstance(session, WindowSession) else opened.session()
        whole = window.timesteps if isinstance(self._session, WindowSession) else 0
        self._whole = np.zeros((whole, opened.features), np.float32)

    def step(self, x: Float32Array, y: Float32Array) -> bool:
        """One timestep of stream 0; whether an answer was due, which is in `y` then."""
        due = self._answer(0, x, y) if self._in_flight is None else self._in_flight.step(x, y)
        self._keep(0, x)
        return due

    def run(self, xs: Float32Array, ys: Float32Array) -> int:
        """T timesteps of stream 0, all or none; how many answers came due, which are the first rows of `ys`."""
        if self._in_flight is not None:
            count = self._in_flight.run(xs, ys)
            skipped = max(len(xs) - self.window.timesteps, 0)
            self.steps[0] += skipped
            for x in xs[skipped:]:
                self._keep(0, x)
            return count
        steps, recent, count, spare = int(self.steps[0]), self.recent(0), 0, np.empty(self._shape, np.float32)
        try:
            for x in xs:
                count += self.step(x, ys[count] if count < len(ys) else spare)
        except BaseException:
            self.restore(0, steps, recent)
            raise
        return count

    def fleet_step(
        self, xs: Float32Array, ys: Float32Array, due: npt.NDArray[np.bool_], indices: npt.NDArray[np.uintp] | None
    ) -> None:
        """One timestep of each stream of `indices` (of all), or of none; rows that are not `due` become NaN."""
        which = np.arange(len(self.steps), dtype=np.uintp) if indices is None else indices
        # Whatever needs memory comes before the timestep, so that its failure leaves every stream as it was.
        steps = self.steps[which]
        places, late = steps % self.window.timesteps, np.empty((len(which), *(1 for _ in self._shape)), np.bool_)
        steps += 1
        if self._in_flight is not None:
            self._in_flight.fleet_step(xs, ys, due, indices)
        else:
            for i, index in enumerate(which.tolist()):
                due[i] = self._answer(index, xs[i], ys[i])
        np.logical_not(due.reshape(late.shape), out=late)
        np.copyto(ys, np.float32(np.nan), where=late)
        self._ring[which, places] = xs
        self.steps[which] = steps

    def recent(self, index: int) -> Float32Array:
        """What a stream has to keep: its last inputs, oldest first, (up to T, features)."""
        steps, length = int(self.steps[index]), self.window.timesteps
        if steps < length:
            return self._ring[index, :steps].copy()
        return np.roll(self._ring[index], -(steps % length), axis=0)

    def reset(self, index: int) -> None:
        """One stream back to its start."""
        self.steps[index] = 0
        if self._in_flight is not None:
            self._in_flight.reset(index)

    def restore(self, index: int, steps: int, recent: Float32Array) -> None:
        """Let a stream have taken so many timesteps, the last of them these (up to T, features)."""
        self.reset(index)
        before = steps - len(recent)
        self.steps[index] = before
        if self._in_flight is not None:
            self._in_flight.seek(before, index)
            y, due, which = np.empty((1, *self._shape), np.float32), np.zeros(1, np.bool_), np.array([index], np.uintp)
            for x in recent:
                self._in_flight.fleet_step(x[None], y, due, which)
        for x in recent:
            self._keep(index, x)

    def _keep(self, index: int, x: Float32Array) -> None:
        self._ring[index, self.steps[index] % self.window.timesteps] = x
        self.steps[index] += 1

    def _fill(self, index: int, x: Float32Array) -> None:
        """Bring a full window into its order: the inputs behind the oldest one, whose place `x` takes, then `x`."""
        ring, at = self._ring[index], int(self.steps[index]) % self.window.timesteps
        newer = len(ring) - 1 - at
        self._whole[:newer] = ring[at + 1 :]
        self._whole[newer:-1] = ring[:at]
        self._whole[-1] = x

    def _answer(self, index: int, x: Float32Array, y: Float32Array) -> bool:
        """Go through the window anew, where an answer is due."""
        if self._session is None or not self.window.is_due(int(self.steps[index]) + 1):
            return False
        if isinstance(self._session, WindowSession):
            self._fill(index, x)
            self._session.answer(self._whole, y)
            return True
        rows = np.concatenate([self.recent(index), x[None]])[-self.window.timesteps :]
        self._session.reset()
        # The answers before the last are of no use, but a backend may need the room to compute them.
        ys = np.empty((len(rows), *self._shape), np.float32)
        self._session.run(np.ascontiguousarray(rows), ys)
        y[...] = ys[-1]
        return True
