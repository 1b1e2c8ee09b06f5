"""Kills `edgelstm-run` at random moments, lets it go on, and compares its output with that of a run that never ended.

By hand: `python -m tests.runtime.run_kills BUNDLE 1000`.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgelstm.runtime import cli, load

from tests.waiting import within

# Seconds between saves: at every line, now and then, and never before the end.
SAVE_EVERY = ("0", "0.002", "0.02", "10")
# How lines come, and what is made of them.
OPTIONS = ((), ("--window", "7"), ("--window", "9", "--hop", "4"), ("--window", "30", "--hop", "7", "--partial"))
LINES, LONGEST = 2000, 0.12


def forked(command: Callable[[], int], stdin: int | None, said: Path) -> int:
    """A process for a command of this interpreter, which has loaded everything already; its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stdin, sys.stderr = os.fdopen(0, closefd=False), os.fdopen(2, "w", closefd=False)
        status = command()
        sys.stderr.flush()
    finally:
        os._exit(status)


def table(rng: np.random.Generator, features: tuple[str, ...], kind: str) -> list[bytes]:
    """Lines of an input, a bad one among them now and then: `csv`, with a header in another order, or `json`."""
    lines = []
    for x in np.round(rng.standard_normal((LINES, len(features))), 4).tolist():
        values = dict(zip(features, x, strict=True))
        if kind == "json":
            lines.append("{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}")
        else:
            lines.append(",".join(["12:00", *(str(values[name]) for name in reversed(features))]))
        if rng.random() < 0.01:
            lines.append("1,2,3,4,5,6,7" if rng.random() < 0.5 else "# \u2620 nothing, that, is, a, number")
    if kind == "csv":
        lines.insert(0, ",".join(["time", *reversed(features)]))
    return [f"{line}\n".encode() for line in lines]


@dataclass
class Story:
    """A run from its first line to its last, in as many processes as it takes.

    Args:
        bundle: what runs.
        folder: where its files are; it is made.
        lines: of the input.
        options: of the command line.
        piped: whether lines come from a pipe instead of a file.
    """

    bundle: Path
    folder: Path
    lines: list[bytes]
    options: tuple[str, ...]
    piped: bool

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "in.csv").write_bytes(b"".join(self.lines))

    def unbroken(self) -> bytes:
        """The output of a run of one process, without a state."""
        output = self.folder / "unbroken.csv"
        child = forked(lambda: cli.main([*self._command("in.csv"), "--output", str(output)]), None, self._said)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, self._said.read_text()
        return output.read_bytes()

    def go_on(self, save_every: str, seconds: float) -> bool:
        """Start a process, and kill it after so many seconds; False if it came to its end before."""
        state = self.folder / "state"
        goes_on = state.exists()
        more = ["--state", str(state), "--save-every", save_every, "--output", str(self.folder / "out.csv")]
        self._said.write_bytes(b"")
        deadline = time.monotonic() + seconds
        if not self.piped:
            command = [*self._command("in.csv"), *more]
            return self._killed(forked(lambda: cli.main(command), None, self._said), deadline)
        source, feed = os.pipe()
        os.set_blocking(feed, False)

        def command_of_pipe() -> int:
            os.close(feed)
            return cli.main([*self._command("-"), *more])

        child = forked(command_of_pipe, source, self._said)
        os.close(source)
        try:
            first = self._first(deadline) if goes_on else 1
            data = memoryview(b"".join(self.lines[self._at(first) :])) if first else memoryview(b"")
            with suppress(BrokenPipeError):  # It came to its end.
                while first and data and select.select([], [feed], [], max(deadline - time.monotonic(), 0))[1]:
                    data = data[os.write(feed, data[:4096]) :]
        finally:
            if first and not data:
                os.close(feed)
        killed = self._killed(child, deadline)
        if not first or data:
            os.close(feed)
        return killed

    @property
    def _said(self) -> Path:
        return self.folder / "said"

    def _command(self, source: str) -> list[str]:
        path = source if source == "-" else str(self.folder / source)
        return ["run", str(self.bundle), path, "--skip-bad", *self.options]

    def _first(self, deadline: float) -> int:
        """The timestep with which it says that the pipe has to go on; 0 if it says nothing in time."""

        def said() -> re.Match[str] | None:
            return re.search(r"has to go on with timestep ([\d,]+)\n", self._said.read_text())

        within(said, deadline - time.monotonic(), pause=0.0005)
        return int(found[1].replace(",", "")) if (found := said()) else 0

    def _at(self, timestep: int) -> int:
        """The line of a timestep; of the first, the beginning."""
        good = [i for i, line in enumerate(self.lines) if line.startswith((b"12:00", b"{"))]
        return 0 if timestep == 1 else (*good, len(self.lines))[timestep - 1]

    def _killed(self, child: int, deadline: float) -> bool:
        """Kill it at the deadline; False if it came to its end before."""
        process = os.pidfd_open(child)
        ended, _, _ = select.select([process], [], [], max(deadline - time.monotonic(), 0))
        os.close(process)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or os.waitstatus_to_exitcode(status) == 0, self._said.read_text()
        return killed


def run(bundle: Path, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill so many times, and see that it makes no difference.

    Returns:
        How many kills there were at each `--save-every`.

    Raises:
        AssertionError: an output differs, or something is left behind.
    """
    folder.mkdir(exist_ok=True)
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    features, count, stories = load(bundle).features, dict.fromkeys(SAVE_EVERY, 0), 0
    while sum(count.values()) < kills:
        kind, piped, options = chance.choice(["csv", "json"]), chance.random() < 0.4, chance.choice(OPTIONS)
        story = Story(bundle, folder / f"story-{stories}", table(rng, features, kind), options, piped)
        stories += 1
        want = story.unbroken()
        while True:
            # Until the end it takes some luck where nothing is saved before it.
            save_every = min(SAVE_EVERY, key=lambda each: (count[each], chance.random()))
            if not story.go_on(save_every, chance.random() * LONGEST if sum(count.values()) < kills else 60):
                break
            count[save_every] += 1
        got = (story.folder / "out.csv").read_bytes()
        assert got == want, f"{story.folder}: {options}, {kind}, piped: {piped}"
        left = sorted(path.name for path in story.folder.iterdir())
        assert left == ["in.csv", "out.csv", "said", "state", "unbroken.csv"], left
    return count


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        started = time.monotonic()
        print(run(Path(sys.argv[1]), Path(place), int(sys.argv[2]), int((*sys.argv, "1")[3])))
        print(f"kills that made a difference: 0; {time.monotonic() - started:.0f} s")
