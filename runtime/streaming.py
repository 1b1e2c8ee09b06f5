"""How a model streams: with its state carried on for ever, or by windows."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from .errors import InputError

CARRY, WINDOW = "carry", "window"

# Beyond this many timesteps nobody's window goes, and within it no count of them leaves 64 bits.
MAX_TIMESTEPS = 2**31 - 1
# What a graph takes or gives at once has no more numbers: as many as fill 64 MiB.
MOST_NUMBERS = 2**24


@dataclass(frozen=True)
class Window:
    """A stream whose answer is the model on the last inputs, from zero state.

    Attributes:
        timesteps: how many inputs: T.
        hop: timesteps between two answers.
        partial: whether there are answers before T inputs are there, on those that are.
    """

    timesteps: int
    hop: int = 1
    partial: bool = False

    def __post_init__(self) -> None:
        for what, value in (("window", self.timesteps), ("hop", self.hop)):
            if not 1 <= value <= MAX_TIMESTEPS:
                raise InputError(f"a {what} has at least 1 timestep, and {MAX_TIMESTEPS:,} at most, not {value}")

    @property
    def in_flight(self) -> int:
        """Windows that overlap at any moment, and so the states that it takes to step them together."""
        return -(-self.timesteps // self.hop)

    def is_due(self, steps: int) -> bool:
        """Whether there is an answer once so many timesteps were taken."""
        return (steps >= self.timesteps or self.partial) and (steps - self.timesteps) % self.hop == 0

    def due(self, first: int, stop: int) -> range:
        """Of the timesteps from `first` to before `stop`, counted from 0, those with an answer."""
        earliest = max(first, 0 if self.partial else self.timesteps - 1)
        return range(earliest + (self.timesteps - 1 - earliest) % self.hop, stop, self.hop)


@dataclass(frozen=True)
class Whole:
    """What is so of a model whose graph takes a whole window at once: it streams by this window and no other way.

    Attributes:
        because: what in the model leaves no state to carry: a layer by name, and the reason.
        rows: of an answer, where that is a sequence: (rows, outputs); None where it is a single row.
        ids: how many identifiers there are, where the inputs are 0, 1, …, ids - 1; None where they are any numbers.
    """

    because: str
    rows: int | None = None
    ids: int | None = None

    def __post_init__(self) -> None:
        for what, value in (("rows", self.rows), ("ids", self.ids)):
            if value is not None and not 1 <= value <= MAX_TIMESTEPS:
                raise ValueError(f"{value} {what} cannot be")


@dataclass(frozen=True)
class Streaming:
    """What a bundle says of how its model streams.

    Attributes:
        mode: `carry`, the state is carried on for ever; or `window`, each answer is the model on the last `window`
            inputs from zero state.
        window: timesteps that the model was trained on at a time, if known.
        hop: in `window` mode, timesteps between two answers.
        bounded: whether the state can be carried past the window; not where states or outputs grow without bound then.
        carried_snr_db: signal-to-noise ratio of answers with the state carried, against those on windows, where the
            window is known: -200 at the least, where they have nothing in common.
        whole: of a model that streams by its window alone, what its graph takes and gives; else None.
    """

    mode: str = CARRY
    window: int | None = None
    hop: int = 1
    bounded: bool = True
    carried_snr_db: float | None = None
    whole: Whole | None = None

    def __post_init__(self) -> None:
        if self.mode not in (CARRY, WINDOW):
            raise ValueError(f"no way to stream is called {self.mode!r}")
        for what, value in (("window", self.window), ("hop", self.hop)):
            if value is not None and not 1 <= value <= MAX_TIMESTEPS:
                raise ValueError(f"a {what} of {value} timesteps cannot be")
        if self.mode == WINDOW and self.window is None:
            raise ValueError("a model that streams by window has one")
        if self.whole is not None and self.mode != WINDOW:
            raise ValueError("a graph of a whole window does not carry a state")

    @property
    def default(self) -> Window | None:
        """The window of a stream that nobody asked to be otherwise; None carries the state on."""
        return Window(self.window, self.hop) if self.mode == WINDOW and self.window is not None else None

    def choose(self, carry: bool, window: int | None, hop: int | None, partial: bool) -> Window | None:
        """The window of a stream that was asked for; None carries the state on.

        Raises:
            InputError: the wishes contradict each other.
        """
        if self.whole is not None and (carry or partial or window not in (None, self.window)):
            wish = "carries no state" if carry else "gives no partial answers" if partial else "takes no other window"
            raise InputError(
                f"this model {wish}: it answers on its last {self.window} inputs at once, because of "
                f"{self.whole.because}; it takes a hop alone"
            )
        if carry:
            if window is not None or hop is not None or partial:
                raise InputError("carry goes with neither window, hop nor partial: the state is carried on for ever")
            return None
        default = self.default
        length = whole("window", window) if window is not None else default.timesteps if default else None
        if length is None:
            if hop is not None or partial:
                raise InputError(
                    "hop and partial go with a window, and this model carries its state on; give a window as well"
                )
            return None
        inherited = default.hop if default is not None and default.timesteps == length else 1
        return Window(length, inherited if hop is None else whole("hop", hop), partial)


def whole(what: str, value: Any) -> int:
    """A whole number; `True` is none, since who gives it means something else.

    Raises:
        InputError: it is none.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise InputError(f"a {what} is a whole number, not {value!r}")
