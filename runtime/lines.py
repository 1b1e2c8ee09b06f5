"""Lines of an input: of a file descriptor, for readers that wait for something else as well, or of a file."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from .errors import InputError

# Bytes of a line beyond which it is none: what is no text at all is not to fill the memory.
LONGEST_LINE = 16 * 2**20


class EndlessLineError(InputError):
    """A line that is longer than any."""


# Waits until a file descriptor can be read; False ends the reading.
Wait = Callable[[int], bool]


def wait_for(file: int) -> bool:
    """Wait for a file descriptor and nothing else."""
    select.select([file], [], [])
    return True


def lines(
    file: int, read: Callable[[], bytes], wait: Wait = wait_for, longest: int = LONGEST_LINE
) -> Iterator[bytes | None]:
    """Lines of a file descriptor, each as soon as it is there; None for one that is too long, as soon as it is.

    Args:
        file: the descriptor.
        read: reads what is there; nothing is the end.
        wait: waits for it.
        longest: bytes of a line; what comes after that, up to its end, is left out.
    """
    rest, cut = b"", False
    while wait(file):
        data = read()
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if not cut:
                yield line if len(line) <= longest else None
            cut = False
        if cut or len(rest) > longest:
            if not cut:
                yield None
            rest, cut = b"", True
        if not data:
            if rest:
                yield rest
            return


def lines_of_file(file: BinaryIO, longest: int = LONGEST_LINE) -> Iterator[bytes | None]:
    """Lines of a file; None for one that is too long."""
    while line := file.readline(longest + 1):
        if len(line) <= longest or line.endswith(b"\n"):
            yield line
            continue
        yield None
        while line and not line.endswith(b"\n"):
            line = file.readline(longest)


def numbered_lines(
    found: Iterable[bytes | None], source: str, too_long: str = "the line has no end"
) -> Iterator[tuple[int, str | InputError]]:
    """Lines as text, each with its number from 1; for a line that is none, what is wrong with it.

    Args:
        found: the lines.
        source: what to call the input in an error.
        too_long: what is wrong with a line that is too long.
    """
    for number, line in enumerate(found, 1):
        where = f"{source}: line {number}"
        if line is None:
            yield number, EndlessLineError(f"{where}: {too_long}")
            continue
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            yield number, InputError(f"{where}: not UTF-8 text")
