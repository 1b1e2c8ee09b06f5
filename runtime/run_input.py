"""The input of `run`: a file, which it goes on reading where its state has come to, a pipe, or standard input."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .run_state import Mark, Progress


@dataclass
class RunInput:
    """An input.

    Attributes:
        name: what to call it.
        file: its descriptor; None for a serial port.
        path: where it is, without symbolic links; empty for standard input.
        is_file: whether it is a file, in which places can be found again.
        is_named_pipe: whether it is one, whose writer may come later.
        at: where to begin, in bytes.
        lines: before that.
        goes_on: whether it is the input that a state has come from.
    """

    name: str
    file: int | None = None
    path: str = ""
    is_file: bool = False
    is_named_pipe: bool = False
    at: int = 0
    lines: int = 0
    goes_on: bool = False

    def mark(self, size: int) -> Mark | None:
        """Its mark at a size."""
        return Mark.of(self.file, self.path, size) if self.is_file and self.file is not None else None

    def go_on(self, before: Progress) -> None:
        """Begin where a run before has come to, if this is what it read.

        Raises:
            InputError: it is, but was changed since.
        """
        mark, file = before.input, self.file
        if mark is None or file is None or not self.is_file or not (mark.named(self.path) or mark.numbered(file)):
            return
        if mark.fits(file):
            self.at, self.lines, self.goes_on = mark.size, before.lines, True
            os.lseek(file, mark.size, os.SEEK_SET)
        elif mark.begins(file):
            raise InputError(
                f"{self.name}: was changed in what the state has taken of it, {mark.size:,} bytes; to take all of it "
                "again, behind that, pipe it in (cat FILE | …), or choose another --state"
            )


def open_input(source: str) -> RunInput:
    """Open what `source` names; - is standard input. A named pipe is opened without waiting for its writer.

    Its lines are waited for as any input's are. To wait here would keep a service from being ready, and whoever writes
    to none but a ready one from writing. Whoever opens it closes it.

    Raises:
        InputError: it cannot be opened.
    """
    if source == "-":
        try:
            file = sys.stdin.fileno()
        except (AttributeError, ValueError) as error:  # None, where a program was started without it.
            raise InputError("there is no standard input; name a file") from error
        found = os.fstat(file)
        # A file without a name is nobody's to come back to, and one that was read from before is somebody's already.
        is_file = stat.S_ISREG(found.st_mode) and found.st_nlink > 0 and os.lseek(file, 0, os.SEEK_CUR) == 0
        return RunInput("standard input", file, "", is_file)
    try:
        pipe = Path(source).is_fifo()
        file = os.open(source, os.O_RDONLY | os.O_NOCTTY | (os.O_NONBLOCK if pipe else 0))
        os.set_blocking(file, True)
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            os.close(file)
            raise InputError(f"{source}: is a folder, not a table")
    except OSError as error:
        raise InputError(f"{source}: cannot be opened ({error.strerror})") from error
    return RunInput(source, file, os.path.realpath(source), stat.S_ISREG(mode), pipe)
