"""The stream: one sequence in progress."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from .backends import Float32Array, Opened, Stepper
from .columns import by_name
from .errors import InputError
from .snapshot import Snapshot
from .streaming import Window
from .windows import Windows

_FLOAT32 = np.dtype(np.float32)

# `step` looks for NaN by multiplying with it, and says what it finds in an error of its own.
warnings.filterwarnings("ignore", "invalid value encountered in dot", RuntimeWarning, re.escape(__name__))


class Stream:
    """One sequence in progress: a model and a state. Owned by one thread at a time.

    Made by `Model.stream()`. Without a window, the state is carried on for ever, and every timestep has an answer. With
    one, each answer is what the model gives for the last T inputs from zero state.

    Attributes:
        window: the window, or None.
    """

    def __init__(
        self, opened: Opened, fingerprint: bytes, name: str, window: Window | None = None, named: tuple[str, ...] = ()
    ) -> None:
        if opened.fixed is not None and window is None:
            window = opened.fixed.choose(True, None, None, False)  # Says why it cannot be.
        session = opened.session()
        self.window = window
        self._opened = opened
        self._session = session
        self._fingerprint = fingerprint
        self._name = name
        self._named = named
        self._x, self._y = session.x, session.y
        self._shape, self._out_shape = session.x.shape, session.y.shape
        self._probe = np.zeros_like(session.x).dot
        self._answer = session.y.copy
        self._advance = session.advance
        self._counter: Any = self
        self._steps = 0
        self._windows: Windows | None = None
        self._ids: int | None = None
        if window is not None:
            self._windows = Windows(opened, window, 1, name, session)
            self._ids = ids_of(opened)
        elif hasattr(session, "stepper"):
            # The backend takes timesteps without Python in between. What it cannot take comes back to _Conversion,
            # which knows nothing of this stream, so that neither keeps the other alive.
            stepper: Stepper = cast(Any, session).stepper(_Conversion(name, self._shape, self._out_shape, named))
            self._counter = stepper
            self.step = stepper.step

    def step(self, x: npt.ArrayLike, out: Float32Array | None = None) -> Float32Array | None:
        """One timestep.

        Args:
            x: (features,), finite numbers; a pandas Series with the features' names is taken by name.
            out: where to write the answer, float32 and of its shape; nothing is allocated then.

        Returns:
            (outputs,) float32: `out`, or a new array; (rows, outputs) of a model whose answer is a sequence. None where
            no answer is due: the window is not full yet, or this is a timestep between two hops; `out` is as it was
            then.

        Raises:
            InputError: x or out does not fit, or a value is not finite, or none of the model's ids; the state is as it
                was.
        """
        # This is what users call a thousand times a second: every name is bound and every check chosen for its cost.
        buffer = self._x
        if type(x) is np.ndarray and x.dtype is _FLOAT32 and x.shape == self._shape:
            buffer[...] = x
        else:
            buffer[...] = _row(x, self._shape, self._name, self._named)
        # Zero times anything finite is zero, which is false; NaN is true. One call finds every NaN and infinity.
        try:
            bad = self._probe(buffer)
        except (FloatingPointError, RuntimeWarning):  # np.seterr(invalid="raise"), or warnings as errors
            bad = True
        if bad:
            raise _bad_timestep(self._name, self.steps, buffer)
        if self._ids is not None and (wrong := first_unknown(buffer[None], self._ids)) is not None:
            raise InputError(f"{self._name}: timestep {self.steps}: {wrong[1]}; the state is as it was")
        # Whatever can fail comes before the timestep: what is written to, and the memory of a new answer.
        if out is None:
            answer = self._answer()
        else:
            check_out(out, self._out_shape, self._name)
            answer = out
        if self._windows is not None:
            if not self._windows.step(buffer, self._y):
                return None
        else:
            self._advance()
            self._steps += 1
        answer[...] = self._y
        return answer

    def run(self, xs: npt.ArrayLike) -> Float32Array:
        """A chunk of timesteps: the same numbers as as many steps.

        Args:
            xs: (T, features), finite numbers; T may be 0. A DataFrame is taken by its columns' names.

        Returns:
            (T, outputs) float32; by window, the answers that came due: (0 to T, outputs), or (0 to T, rows, outputs).

        Raises:
            InputError: xs does not fit, or a value is not finite; no timestep of the chunk was taken.
        """
        if self._counter is not self:
            return self._run_natively(xs)
        chunk = self._chunk(xs)
        if self._windows is not None:
            due = len(self._windows.window.due(self.steps, self.steps + len(chunk)))
            ys = self._room(due)
            self._windows.run(chunk, ys)
            return ys
        ys = self._room(len(chunk))
        saved, steps = self._session.states(), self.steps
        try:
            self._session.run(chunk, ys)
            self._steps += len(chunk)
        except BaseException:
            self._session.restore(saved)
            self._steps = steps
            raise
        return ys

    def _run_natively(self, xs: npt.ArrayLike) -> Float32Array:
        """The backend checks the values itself, and takes all timesteps or none."""
        fits = type(xs) is np.ndarray and xs.dtype is _FLOAT32 and xs.ndim == 2 and xs.shape[1:] == self._shape
        chunk = cast(Float32Array, xs) if fits and cast(Float32Array, xs).flags.carray else self._chunk(xs)
        ys = self._room(len(chunk))
        try:
            self._session.run(chunk, ys)
        except ValueError:
            self._chunk(chunk)  # Says which value is not finite.
            raise
        return ys

    @property
    def steps(self) -> int:
        """Timesteps since the start or the last reset."""
        if self._windows is not None:
            return int(self._windows.steps[0])
        return self._steps if self._counter is self else int(self._counter.steps)

    @property
    def healthy(self) -> bool:
        """Whether every state that is carried on is a finite number. Once one is not, only a reset helps."""
        return self._windows is not None or all(bool(np.isfinite(state).all()) for state in self._session.states())

    @property
    def features(self) -> int:
        """Number of inputs of a timestep."""
        return self._shape[0]

    @property
    def outputs(self) -> int:
        """Number of outputs of an answer's row."""
        return self._out_shape[-1]

    def bare_call(self) -> Callable[[], object]:
        """The backend library's own call alone, for benchmarks: it takes a timestep with no check and no answer."""
        return self._session.bare_call()

    def reset(self) -> None:
        """Back to zero state, as at the start of a sequence."""
        if self._windows is not None:
            self._windows.reset(0)
            return
        self._session.reset()
        self._set_steps(0)

    def snapshot(self) -> bytes:
        """The state, to be restored into a stream of the same artifact later or elsewhere."""
        if self._windows is not None:
            kept = Snapshot(self.window, self.steps, self._windows.recent(0))
        else:
            kept = Snapshot(None, self.steps, np.empty((0, self.features), np.float32), self._session.states())
        return kept.to_bytes(self._fingerprint)

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot.

        Raises:
            InputError: it is damaged, of another model or artifact, or of another window; the state is as it was.
        """
        templates = self._session.states() if self._windows is None else []
        given = Snapshot.from_bytes(snapshot, self._fingerprint, self._name, self.window, self._shape[0], templates)
        if self._windows is not None:
            check_recent(given.recent, self._ids, self._name)
            self._windows.restore(0, given.steps, given.recent)
            return
        self._session.restore(given.states)
        self._set_steps(given.steps)

    def __copy__(self) -> Stream:
        """Another stream, with a state of its own, at the same timestep of the same sequence."""
        other = Stream(self._opened, self._fingerprint, self._name, self.window, self._named)
        other.restore(self.snapshot())
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        return self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise InputError(
            f"{self._name}: a stream does not pickle; pickle its model and its snapshot(), and restore that into a "
            "stream of the model"
        )

    def _set_steps(self, steps: int) -> None:
        if self._counter is self:
            self._steps = steps
        else:
            self._counter.steps = steps

    def _room(self, answers: int) -> Float32Array:
        try:
            return np.empty((answers, *self._out_shape), np.float32)
        except MemoryError as error:
            raise InputError(
                f"{self._name}: {answers:,} answers do not fit into memory; none of the chunk was taken, give it in "
                "smaller ones"
            ) from error

    def _chunk(self, xs: npt.ArrayLike) -> Float32Array:
        chunk = numbers(xs, self._name, self._named)
        if chunk.shape in ((0,), (0, 0)):  # As an empty list comes.
            return np.empty((0, *self._shape), np.float32)
        if chunk.ndim != 2 or chunk.shape[1:] != self._shape:
            raise InputError(
                f"{self._name}: a chunk has shape (timesteps, {self._shape[0]}), got an array of shape {chunk.shape}"
            )
        if (bad := first_not_finite(chunk)) is not None:
            raise InputError(f"{self._name}: timestep {bad[0]} of the chunk: {bad[1]}; none of the chunk was taken")
        if self._ids is not None and (bad := first_unknown(chunk, self._ids)) is not None:
            raise InputError(f"{self._name}: timestep {bad[0]} of the chunk: {bad[1]}; none of the chunk was taken")
        return chunk


class _Conversion:
    """Takes the timesteps that a backend's own `step` cannot: converts to float32 arrays, and says what is bad."""

    def __init__(self, name: str, shape: tuple[int, ...], out_shape: tuple[int, ...], named: tuple[str, ...]) -> None:
        self._name, self._shape, self._out_shape, self._named = name, shape, out_shape, named

    def __call__(self, stepper: Stepper, x: npt.ArrayLike, out: Float32Array | None) -> Float32Array:
        row = _row(x, self._shape, self._name, self._named)
        if not np.isfinite(row).all():
            raise _bad_timestep(self._name, stepper.steps, row)
        if out is None:
            return stepper.step(row)
        check_out(out, self._out_shape, self._name)
        out[...] = stepper.step(row)
        return out


def _row(x: npt.ArrayLike, shape: tuple[int, ...], name: str, named: tuple[str, ...]) -> Float32Array:
    row = numbers(x, name, named)
    if row.shape != shape:
        raise InputError(f"{name}: a timestep has {shape[0]} features, got an array of shape {row.shape}")
    return row


def _bad_timestep(name: str, steps: int, row: Float32Array) -> InputError:
    return InputError(f"{name}: timestep {steps}: {_not_finite(row)}; the state is as it was")


def check_out(out: Any, shape: tuple[int, ...], name: str, contiguous: bool = False) -> None:
    """Raise `InputError` unless answers of a shape can be written to `out`."""
    needed = "C-contiguous float32" if contiguous else "float32"
    kind: Any = cast(Any, type(out))
    if not isinstance(out, np.ndarray) or kind.__setitem__ is not np.ndarray.__setitem__:
        # Subclasses that write as arrays do, such as np.memmap, will do; not a masked array.
        found = f"a {kind.__name__}"
    else:
        array = cast("npt.NDArray[Any]", out)
        if array.shape != shape or array.dtype != _FLOAT32:
            found = f"{array.dtype} of shape {array.shape}"
        elif not array.flags.writeable:
            found = "one that is read-only"
        elif contiguous and not array.flags.carray:
            found = "one that is not contiguous"
        else:
            return
    raise InputError(f"{name}: out must be a {needed} array of shape {shape}, not {found}")


def is_masked(values: object) -> bool:
    """Whether values are, or a list holds, NumPy's masked arrays, of which others would take what is under the mask."""
    ma = sys.modules.get("numpy.ma")  # Where nobody loaded it, nobody has one.
    if ma is None:
        return False
    if isinstance(values, list | tuple):
        return any(isinstance(value, ma.MaskedArray) for value in cast("list[object]", values))
    return isinstance(values, ma.MaskedArray)


def numbers(values: npt.ArrayLike, name: str, named: tuple[str, ...] = ()) -> Float32Array:
    """Numbers as a C-contiguous float32 array; what carries the features' names in the order of `named`."""
    if is_masked(values):
        raise InputError(f"{name}: the input is a masked array, and no value may be missing; fill it: .filled(value)")
    try:
        array = np.asarray(by_name(values, named, name) if named else values)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # What an object's own conversion raises can be anything.
        raise InputError(f"{name}: the input is not an array of numbers ({error})") from error
    if array.dtype.kind not in "fiu" and array.size:
        raise InputError(f"{name}: the input holds {array.dtype} values, not numbers")
    try:
        with np.errstate(over="ignore"):  # What is too large for float32 becomes infinite and is refused as such.
            return np.ascontiguousarray(array.astype(np.float32))
    except MemoryError as error:
        raise InputError(f"{name}: an array of shape {array.shape} does not fit into memory as float32") from error


def first_not_finite(rows: Float32Array) -> tuple[int, str] | None:
    """Where the first row is that holds a NaN or an infinity, and which value; None where there is none."""
    finite = np.isfinite(rows).all(1)
    if finite.all():
        return None
    row = int(np.argmin(finite))
    return row, _not_finite(rows[row])


def ids_of(opened: Opened) -> int | None:
    """How many ids a model knows, where its inputs are ids."""
    return None if opened.fixed is None or opened.fixed.whole is None else opened.fixed.whole.ids


def first_unknown(rows: Float32Array, ids: int) -> tuple[int, str] | None:
    """Where the first row is that holds none of the ids 0 to `ids` - 1, and which value; None where there is none."""
    known = (rows >= 0) & (rows < ids) & (rows == np.floor(rows))
    if known.all():
        return None
    row, feature = np.unravel_index(int(np.argmin(known)), known.shape)
    value = rows[row, feature]
    return int(row), f"feature {feature} is {value:g}, and the model knows the ids 0 to {ids - 1}, whole numbers"


def check_recent(rows: Float32Array, ids: int | None, name: str) -> None:
    """Raise `InputError` unless a snapshot's inputs are the model's ids, where it takes ids."""
    if ids is not None and first_unknown(rows, ids) is not None:
        raise InputError(f"{name}: the snapshot holds values that are no ids of the model; start from zero state")


def _not_finite(row: Float32Array) -> str:
    feature = int(np.argmin(np.isfinite(row)))
    return f"feature {feature} is {row[feature]}, not a finite float32 number"
