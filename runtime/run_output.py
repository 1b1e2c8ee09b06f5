"""The output of `run`: standard output, a pipe, or a file that is cut back to where the state has come to."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from .durable import sync_folder
from .errors import InputError
from .notes import note
from .run_state import Mark


class LineOutput:
    """Where lines go that nobody takes back: standard output, a pipe, a device, a broker.

    Attributes:
        write: writes a line.
        size: of no meaning.
        begun: whether lines are there already.
    """

    size = 0
    begun = False

    def __init__(self, write: Callable[[str], None], file: int | None = None) -> None:
        """Give lines to `write`; `file` is what is closed in the end."""
        self.write, self._file = write, file

    def mark(self, size: int) -> Mark | None:
        """None: nothing can be found again."""
        del size
        return None

    def close(self) -> None:
        """Close what is this process's own."""
        if self._file is not None:
            os.close(self._file)


class FileOutput:
    """Lines of a file, each written at once.

    Attributes:
        size: of all whole lines, in bytes.
    """

    def __init__(self, path: str, goes_on: bool, before: Mark | None) -> None:
        """Open it.

        Args:
            path: where.
            goes_on: whether to write behind what is there already, instead of anew.
            before: how far a run before had come, if it wrote to a file.

        Raises:
            OSError: it cannot be written.
            InputError: it is the file of the run before, and was changed since.
        """
        self._path, self._real = path, os.path.realpath(path)
        is_new = not os.path.exists(self._real)
        self._file = os.open(self._real, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOCTTY, 0o666)
        try:
            self.size = os.fstat(self._file).st_size
            if not goes_on:
                self._cut(0)
            elif before is not None and (
                before.named(self._real) or (before.numbered(self._file) and before.fits(self._file))
            ):
                self._go_on(before)
            else:
                self._end_line()
            if is_new:
                sync_folder(Path(self._real).parent)
        except BaseException:
            os.close(self._file)
            raise

    @property
    def begun(self) -> bool:
        """Whether lines are there already."""
        return self.size > 0

    def write(self, line: str) -> None:
        """Write a line, whole or not at all."""
        data = line.encode() + b"\n"
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            if written:
                self._cut(self.size)
            raise OSError(error.errno, error.strerror, self._path) from error
        self.size += written

    def mark(self, size: int) -> Mark | None:
        """Its mark at a size, of which all is on the disk."""
        os.fsync(self._file)
        return Mark.of(self._file, self._real, size)

    def close(self) -> None:
        """Close it."""
        os.close(self._file)

    def _go_on(self, before: Mark) -> None:
        if before.fits(self._file):
            self._cut(before.size)
        elif self.size:
            raise InputError(
                f"{self._path}: is not what the state goes on from: it was changed in the first {before.size:,} bytes, "
                f"of which {self.size:,} are there; bring it back, or choose another --output"
            )
        elif before.size:
            note(f"{self._path}: is gone, or empty; it begins anew")

    def _cut(self, size: int) -> None:
        if os.fstat(self._file).st_size != size:
            os.ftruncate(self._file, size)
        self.size = size

    def _end_line(self) -> None:
        """Have half a line, which a power cut leaves, run into no other: what is before it is not this run's."""
        if self.size and os.pread(self._file, 1, self.size - 1) != b"\n":
            os.write(self._file, b"\n")
            self.size += 1


def standard_output() -> LineOutput:
    """Standard output, each line flushed."""
    return LineOutput(_flushed(sys.stdout))


def open_output(path: str, goes_on: bool, before: Mark | None) -> LineOutput | FileOutput:
    """Open what `path` names: a file, or a pipe or a device, to which lines go as they do to standard output.

    Opening a named pipe waits for its reader.

    Raises:
        InputError: it cannot be written, or is not what `before` says.
    """
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            file = os.open(path, os.O_WRONLY | os.O_NOCTTY)
            return LineOutput(lambda line: _write_all(file, line.encode() + b"\n"), file)
        return FileOutput(path, goes_on, before)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error


def _flushed(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
