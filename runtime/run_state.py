"""What `run` keeps in `--state`: the stream's snapshot, and how far input and output had come at that moment.

The three are one story. Of a file that it reads, the state knows how many bytes were taken; of a file that it writes,
how many belong to those timesteps. A run that was killed, or lost its power, leaves more in the output than the state
knows of, perhaps half a line; the next one cuts that off, goes on where the state is, and writes it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from .durable import OwnedFile
from .errors import InputError
from .lines import Line
from .rows import Layout
from .snapshot import split_note, with_note
from .stream import Stream
from .typed_json import from_json

# Bytes at the beginning of what was read or written, and as many at its end, by which it is known again.
_PIECE = 4096


@dataclass(frozen=True)
class Mark:
    """How far a file had come, and what it is known again by.

    Attributes:
        path: the file's, without symbolic links; empty for standard input.
        device: number of the file system that it is on.
        inode: its number there.
        size: bytes that were read, or written.
        first: SHA-256 of the first of these.
        last: SHA-256 of the last of these.
    """

    path: str
    device: int
    inode: int
    size: int
    first: str
    last: str

    @classmethod
    def of(cls, file: int, path: str, size: int) -> Mark:
        """The mark of an open file, which may be read, at a size."""
        found = os.fstat(file)
        return cls(path, found.st_dev, found.st_ino, size, *_digests(file, size))

    def named(self, path: str) -> bool:
        """Whether a file has the name that it had."""
        return bool(path) and path == self.path

    def numbered(self, file: int) -> bool:
        """Whether a file is the same one, whatever it is called."""
        found = os.fstat(file)
        return (found.st_dev, found.st_ino) == (self.device, self.inode)

    def fits(self, file: int) -> bool:
        """Whether a file holds what it held, up to there."""
        return os.fstat(file).st_size >= self.size and _digests(file, self.size) == (self.first, self.last)

    def begins(self, file: int) -> bool:
        """Whether a file begins as it did, though it may have changed since."""
        return self.size > _PIECE and _digests(file, self.size)[0] == self.first


def _digests(file: int, size: int) -> tuple[str, str]:
    piece = min(size, _PIECE)
    first, last = os.pread(file, piece, 0), os.pread(file, piece, size - piece)
    return hashlib.sha256(first).hexdigest(), hashlib.sha256(last).hexdigest()


@dataclass(frozen=True)
class Progress:
    """How far a run had come.

    Attributes:
        input: the file that was read; None for a pipe or a port.
        lines: of the input.
        layout: what its lines are.
        open_line: the last line of the file, which had no end yet: it was answered, but is not in the state, in case
            that it goes on.
        output: the file that was written; None for anything else.
        ended: whether the run has ended by itself, with nothing answered that is not in the state.
    """

    input: Mark | None = None
    lines: int = 0
    layout: Layout | None = None
    open_line: str | None = None
    output: Mark | None = None
    ended: bool = True


class Marked(Protocol):
    """An input or an output that the state knows how far it has come."""

    def mark(self, size: int) -> Mark | None:
        """Its mark at a size, of which all is on the disk; None for what is no file."""
        ...


class Written(Marked, Protocol):
    """An output."""

    size: int


class RunState:
    """The state file of a run. It is this process's until it is closed.

    Attributes:
        path: where it is.
        snapshot: the stream's, as the file was found; None if there was none.
        progress: how far the run before had come.
    """

    def __init__(self, path: Path) -> None:
        """Take the file.

        Raises:
            InputError: it cannot be read, is damaged, or is another process's now.
        """
        self.path = path
        try:
            self._file = OwnedFile(path)
        except BlockingIOError as error:
            raise InputError(f"{path}: in use by another process; each needs a --state of its own") from error
        except OSError as error:
            done = "read" if path.exists() else "written"
            raise InputError(f"{path}: the state cannot be {done} ({error.strerror})") from error
        self.snapshot, note = (None, None) if self._file.content is None else split_note(self._file.content)
        try:
            self.progress = Progress() if note is None else from_json(Progress, json.loads(note))
        except ValueError as error:
            self.close()
            raise InputError(f"{path}: the state is damaged, or of another version of EdgeLSTM ({error})") from error
        self._at, self._lines, self._layout = 0, 0, self.progress.layout
        self._held: tuple[bytes, int] | None = None

    def follow(
        self, stream: Stream, source: Marked, output: Written, at: int, lines: int, settle: Callable[[], None]
    ) -> None:
        """Say what the states are of from now on, and save the first: fails now, not after hours, where it cannot.

        Args:
            stream: the stream.
            source: the input.
            output: where answers go.
            at: bytes of the input that are taken.
            lines: of these.
            settle: waits until what was answered is where it belongs.

        Raises:
            InputError: it cannot be written.
        """
        self._stream, self._source, self._output, self._settle = stream, source, output, settle
        self._at, self._lines, self._steps = at, lines, stream.steps
        self._write(stream.snapshot(), output.size, True, None)

    def hold(self) -> None:
        """Remember this moment: the line that comes next has no end yet."""
        self._held = self._stream.snapshot(), self._output.size

    def took(self, line: Line, layout: Layout | None, answered: bool) -> None:
        """A line is done with, and its answer written, if it had one."""
        self._layout = layout
        if self._held is None:
            self._steps = self._stream.steps
            if line.whole:
                self._at, self._lines = line.end, line.number
        elif answered and isinstance(line.text, str):
            self._write(*self._held, True, line.text)  # Nothing is saved after this: it would have that line.

    def save(self, ended: bool = False) -> None:
        """Write the state, unless it is ahead of what was answered, or no state to go on from.

        Args:
            ended: whether nothing will be answered after this.

        Raises:
            InputError: it cannot be written.
        """
        if not ended:
            self._settle()
        if self._steps == self._stream.steps and self._stream.healthy:
            self._write(self._stream.snapshot(), self._output.size, ended, None)

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def _write(self, snapshot: bytes, size: int, ended: bool, open_line: str | None) -> None:
        try:
            output, source = self._output.mark(size), self._source.mark(self._at)
            progress = Progress(source, self._lines, self._layout, open_line, output, ended)
            self._file.replace(with_note(snapshot, json.dumps(asdict(progress)).encode()))
        except OSError as error:
            raise InputError(f"{self.path}: the state cannot be written ({error.strerror})") from error
