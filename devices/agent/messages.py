"""What a computer and a board say to each other: one dataclass for each request and each answer, used by both sides.

They cross the wire as JSON, and are read by `typed_json.from_json`: an unknown key, a missing one and a value of
another type are refused with a sentence, whichever side sent them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

A = TypeVar("A")


def plain(message: object) -> dict[str, Any]:
    """What JSON takes."""
    return asdict(cast(Any, message))


class Request(Generic[A]):
    """What a board is asked for, by the name of a command; `answer` is what it answers with."""

    command: ClassVar[str]
    answer: ClassVar[type]


# ---------------------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Done:
    """It was done."""


@dataclass(frozen=True)
class Facts:
    """What a board says of itself.

    Attributes:
        machine: as `uname -m` has it.
        bits: of its userland's pointers.
        python: version.
        libc: name and version.
        packages: that are installed for that Python, with their versions; None for those that are not.
        systemctl: whether it has systemd's.
        requires_signatures: whether it opens signed bundles only.
        free: bytes, where versions are kept.
        base: the folder of this model there, absolute.
        deployed: names of the models that are deployed beside it.
        uid: of the user.
        system: in words.
    """

    machine: str
    bits: int
    python: tuple[int, ...]
    libc: tuple[str, ...]
    packages: dict[str, str | None]
    systemctl: bool
    requires_signatures: bool
    free: int
    base: str
    deployed: tuple[str, ...]
    uid: int
    system: str

    def __post_init__(self) -> None:
        if len(self.python) != 3 or len(self.libc) != 2:
            raise ValueError("its versions have other parts than versions have")

    @property
    def platform(self) -> str:
        """What wheels call it: the userland counts, not the kernel."""
        narrow = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
        return narrow.get(self.machine, self.machine) if self.bits == 32 else self.machine


@dataclass(frozen=True)
class Received:
    """A version arrived whole."""

    version: str


@dataclass(frozen=True)
class Step:
    """What was chosen there, and how long a step of it takes: microseconds."""

    backend: str
    precision: str | None
    format: str | None
    p50: float
    p99: float


@dataclass(frozen=True)
class Verified:
    """A version computes on the board what Keras computed; `parity` is what `edgelstm-run verify --json` says."""

    step: Step
    parity: dict[str, Any]


@dataclass(frozen=True)
class Activated:
    """A version is current.

    Attributes:
        version: which.
        before: the one before it.
        service: whether a service runs it.
        lingers: whether that stays when nobody is logged in.
        notes: what was found and put right on the way, in words.
    """

    version: str
    before: str | None
    service: bool
    lingers: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """Versions that are gone."""

    removed: tuple[str, ...]


@dataclass(frozen=True)
class Deployed:
    """What a version says of itself, in its `deployment.json`; `deployed` is when, in seconds of Unix time."""

    arguments: tuple[str, ...]
    backend: str
    precision: str | None
    name: str = ""
    bundle: str = ""
    edgelstm: str = ""
    wheels: tuple[str, ...] = ()
    deployed: float = 0.0


@dataclass(frozen=True)
class Listed:
    """A version that is there; `problem` says what is wrong with it."""

    id: str
    current: bool
    bytes: int
    deployed: Deployed | None
    problem: str | None = None


@dataclass(frozen=True)
class Listing:
    """All versions, the newest last, and what is wrong with the rest of the folder."""

    versions: tuple[Listed, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepTimes:
    """Percentiles of a service's steps in microseconds; None before the first one."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Report:
    """What a service says of itself: times in seconds, counts since its start."""

    pid: int
    written: float
    up: float
    steps: int
    step_us: StepTimes
    model: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.pid < 2**31 or self.steps < 0 or not all(0 <= x < math.inf for x in (self.up, self.written)):
            raise ValueError("its figures are such as no service has")


@dataclass(frozen=True)
class Condition:
    """How a deployed model does.

    Attributes:
        version: that is current.
        active: whether systemd holds its service for active.
        running: whether that is so and its report is new.
        lingers: as in `Activated`.
        now: the board's clock.
        deployed: what the version says of itself.
        report: what the service says of itself, if it has said anything.
        step: measured now.
        parity: as in `Verified`.
        damaged: what is damaged, in words.
        notes: as in `Activated`.
    """

    version: str
    active: bool
    running: bool
    lingers: bool
    now: float
    deployed: Deployed
    report: Report | None
    step: Step
    parity: dict[str, Any]
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True, kw_only=True)
class Probe(Request[Facts]):
    """What the board is; `base` is the model's folder there, in which `~` is the user's home."""

    command: ClassVar[str] = "probe"
    answer: ClassVar[type] = Facts
    base: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model on a board.

    Attributes:
        base: its folder, absolute.
        system: whether it is the whole system's, or the user's.
        unit: name of its service's unit.
        state: folder for what the service keeps.
        settle: seconds for which a restarted service must stay up.
    """

    base: str
    system: bool = False
    unit: str = ""
    state: str = ""
    settle: int = 3


@dataclass(frozen=True, kw_only=True)
class Hold(Place, Request[Done]):
    """Wait until nobody else deploys to this board, and keep others waiting until the connection ends."""

    command: ClassVar[str] = "hold"
    answer: ClassVar[type] = Done


@dataclass(frozen=True, kw_only=True)
class Receive(Place, Request[Received]):
    """Take a version, a tar behind the request: the SHA-256 of its files, and short texts beside them."""

    command: ClassVar[str] = "receive"
    answer: ClassVar[type] = Received
    id: str
    files: dict[str, str]
    texts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Verify(Place, Request[Verified]):
    """Replay the golden vectors on a version, and measure so many steps of it."""

    command: ClassVar[str] = "verify"
    answer: ClassVar[type] = Verified
    id: str
    backend: str = "auto"
    precision: str | None = None
    steps: int = 2000
    allow_older: bool = False


@dataclass(frozen=True, kw_only=True)
class Activate(Place, Request[Activated]):
    """Make a version current; `allow_older`: also where a later one was accepted before."""

    command: ClassVar[str] = "activate"
    answer: ClassVar[type] = Activated
    id: str
    allow_older: bool = False


@dataclass(frozen=True, kw_only=True)
class Rollback(Place, Request[Activated]):
    """Make the version before current again, or the one that is named."""

    command: ClassVar[str] = "rollback"
    answer: ClassVar[type] = Activated
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prune(Place, Request[Pruned]):
    """Remove the oldest versions but so many."""

    command: ClassVar[str] = "prune"
    answer: ClassVar[type] = Pruned
    keep: int


@dataclass(frozen=True, kw_only=True)
class Discard(Place, Request[Done]):
    """Remove a version that is not to run."""

    command: ClassVar[str] = "discard"
    answer: ClassVar[type] = Done
    id: str


@dataclass(frozen=True, kw_only=True)
class Versions(Place, Request[Listing]):
    """Which versions are there."""

    command: ClassVar[str] = "versions"
    answer: ClassVar[type] = Listing


@dataclass(frozen=True, kw_only=True)
class Status(Place, Request[Condition]):
    """How the model does."""

    command: ClassVar[str] = "status"
    answer: ClassVar[type] = Condition
