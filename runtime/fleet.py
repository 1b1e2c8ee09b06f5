"""The fleet: many streams of one model, stepped together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from .backends import Float32Array, Opened, Session, StreamGroup, answer_shape
from .errors import InputError
from .snapshot import Snapshot
from .stream import check_out, check_recent, first_not_finite, first_unknown, ids_of, is_masked, numbers
from .streaming import Window
from .windows import Windows

# More than any memory has room for.
MAX_STREAMS = 2**31 - 1


class Fleet:
    """Many streams of one model, from zero state. Owned by one thread at a time. Made by `Model.fleet()`.

    Each row's answers are those that a stream of its own would give.

    Attributes:
        window: the window of each stream; None where the state is carried on.
        due: (n,) which rows of the last step have an answer: all of them, where the state is carried on.
    """

    def __init__(
        self,
        opened: Opened,
        streams: int,
        fingerprint: bytes,
        name: str,
        window: Window | None = None,
        named: tuple[str, ...] = (),
    ) -> None:
        if not 1 <= streams <= MAX_STREAMS:
            raise InputError(f"{name}: a fleet has at least 1 stream, and {MAX_STREAMS:,} at most, not {streams}")
        if opened.fixed is not None and window is None:
            window = opened.fixed.choose(True, None, None, False)  # Says why it cannot be.
        self._opened = opened
        self._features, self._shape, self._ids = opened.features, answer_shape(opened), ids_of(opened)
        self._fingerprint = fingerprint
        self._name = name
        self._named = named
        self.window = window
        self.due: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._windows = None if window is None else Windows(opened, window, streams, name)
        self._group: StreamGroup | None = None
        if self._windows is not None:
            self._steps = self._windows.steps
            return
        # A backend that cannot step streams together steps them one by one.
        together = hasattr(opened, "group")
        try:
            self._group = cast(Any, opened).group(streams) if together else _OneByOne(opened, streams)
            self._steps = np.zeros(streams, np.int64)
        except (MemoryError, ValueError) as error:
            raise InputError(f"{name}: {streams:,} streams do not fit into memory") from error

    def __len__(self) -> int:
        """Number of streams."""
        return len(self._steps)

    def step(
        self, xs: npt.ArrayLike, indices: npt.ArrayLike | None = None, out: Float32Array | None = None
    ) -> Float32Array:
        """One timestep of every stream, or of some.

        Args:
            xs: (n, features), finite numbers: a row per stream. A DataFrame is taken by its columns' names.
            indices: (n,), which streams take a timestep, each once; all, in order, by default.
            out: where to write the answers, float32 and of their shape, C-contiguous.

        Returns:
            (n, outputs) float32, or (n, rows, outputs) of a model whose answer is a sequence: `out`, or a new array. By
            window, the answers of streams that have none yet are NaN; `due` says which have one.

        Raises:
            InputError: xs, indices or out do not fit, or a value is not finite, or none of the model's ids; no stream
                was stepped.
        """
        rows = numbers(xs, self._name, self._named)
        which = None if indices is None else self._indices(indices)
        count = len(self) if which is None else len(which)
        if rows.size == 0 and count == 0:
            rows = rows.reshape(0, self._features)
        if rows.shape != (count, self._features):
            raise InputError(
                f"{self._name}: {count} streams take an array of shape ({count}, {self._features}), not {rows.shape}"
            )
        if which is not None and len(np.unique(which)) != count:
            raise InputError(f"{self._name}: a stream is named twice; each takes one timestep at a time")
        if (bad := first_not_finite(rows)) is not None:
            raise InputError(f"{self._name}: row {bad[0]}: {bad[1]}; no stream was stepped")
        if self._ids is not None and (bad := first_unknown(rows, self._ids)) is not None:
            raise InputError(f"{self._name}: row {bad[0]}: {bad[1]}; no stream was stepped")
        if out is None:
            out = np.empty((count, *self._shape), np.float32)
        else:
            check_out(out, (count, *self._shape), self._name, contiguous=True)
        # Whatever needs memory comes before the timestep.
        answers = out.view(np.ndarray)
        if self._windows is not None:
            due = np.zeros(count, np.bool_)
            self._windows.fleet_step(rows, answers, due, which)
            self.due = due
            return out
        due = self.due if len(self.due) == count else np.ones(count, np.bool_)
        steps = (self._steps if which is None else self._steps[which]) + 1
        self._streams.step(rows, answers, which)
        if which is None:
            self._steps = steps
        else:
            self._steps[which] = steps
        self.due = due
        return out

    def steps(self, index: int) -> int:
        """Timesteps of a stream since the start or its last reset."""
        return int(self._steps[self._indices([index])[0]])

    def reset(self, indices: npt.ArrayLike | None = None) -> None:
        """Some streams, or all, back to zero state.

        Raises:
            InputError: there is no such stream; none was reset.
        """
        for index in range(len(self)) if indices is None else self._indices(indices).tolist():
            if self._windows is not None:
                self._windows.reset(index)
            else:
                self._streams.reset(index)
                self._steps[index] = 0

    def snapshot(self, index: int) -> bytes:
        """One stream's state, to be restored into a fleet or a stream of the same artifact."""
        at = int(self._indices([index])[0])
        if self._windows is not None:
            kept = Snapshot(self.window, int(self._steps[at]), self._windows.recent(at))
        else:
            none = np.empty((0, self._features), np.float32)
            kept = Snapshot(None, int(self._steps[at]), none, self._streams.states(at))
        return kept.to_bytes(self._fingerprint)

    def restore(self, index: int, snapshot: bytes) -> None:
        """Continue one stream from a snapshot of a fleet's stream, or of a stream that answers alike.

        Raises:
            InputError: there is no such stream, or the snapshot does not fit; every state is as it was.
        """
        at = int(self._indices([index])[0])
        templates = [] if self._windows is not None else self._streams.states(at)
        given = Snapshot.from_bytes(snapshot, self._fingerprint, self._name, self.window, self._features, templates)
        if self._windows is not None:
            check_recent(given.recent, self._ids, self._name)
            self._windows.restore(at, given.steps, given.recent)
            return
        self._streams.restore(at, given.states)
        self._steps[at] = given.steps

    def __copy__(self) -> Fleet:
        """Another fleet, with states of its own, each stream at the same timestep of the same sequence."""
        other = Fleet(self._opened, len(self), self._fingerprint, self._name, self.window, self._named)
        for index in range(len(self)):
            other.restore(index, self.snapshot(index))
        other.due = self.due.copy()
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Fleet:
        return self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise InputError(
            f"{self._name}: a fleet does not pickle; pickle its model and its streams' snapshot(i), and restore these "
            "into a fleet of the model"
        )

    @property
    def _streams(self) -> StreamGroup:
        assert self._group is not None
        return self._group

    def _indices(self, indices: npt.ArrayLike) -> npt.NDArray[np.uintp]:
        given = np.asarray(indices)
        if is_masked(indices):
            raise InputError(f"{self._name}: streams are named by a list of whole numbers, not by a masked array")
        if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
            raise InputError(f"{self._name}: streams are named by a list of whole numbers")
        if given.size and (given.min() < 0 or given.max() >= len(self)):
            raise InputError(f"{self._name}: there are streams 0 to {len(self) - 1}, no other")
        return np.ascontiguousarray(given.astype(np.uintp))


class _OneByOne:
    """A group of sessions on a backend that cannot step them together."""

    def __init__(self, opened: Opened, streams: int) -> None:
        self._sessions: list[Session] = [opened.session() for _ in range(streams)]

    def step(self, xs: Float32Array, ys: Float32Array, indices: npt.NDArray[np.uintp] | None) -> None:
        """One timestep of each; if one raises, the states of all are as they were."""
        which = range(len(self._sessions)) if indices is None else indices.tolist()
        before: list[tuple[Session, list[npt.NDArray[Any]]]] = []
        try:
            for x, y, index in zip(xs, ys, which, strict=True):
                session = self._sessions[index]
                session.x[...] = x
                before.append((session, session.states()))
                session.advance()
                y[...] = session.y
        except BaseException:
            for session, states in before:
                session.restore(states)
            raise

    def reset(self, index: int) -> None:
        """One stream back to zero state."""
        self._sessions[index].reset()

    def states(self, index: int) -> list[npt.NDArray[Any]]:
        """Copies of one stream's states."""
        return self._sessions[index].states()

    def restore(self, index: int, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        self._sessions[index].restore(states)
