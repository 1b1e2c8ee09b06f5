"""Lines of an input: of a file, a pipe or a port, each with where it ends, and none of them longer than any is."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from .errors import InputError

# Bytes of a line beyond which it is none, wherever it comes from: what is no text at all is not to fill the memory.
# Of a model with so many features that theirs may be longer, that many bytes for each value beside its name.
_LONGEST_LINE = 65_536
_LONGEST_VALUE = 64


class EndlessLineError(InputError):
    """A line that is longer than any."""


class Line(NamedTuple):
    """A line of an input.

    Attributes:
        number: from 1.
        text: the line, or what is wrong with it.
        end: bytes of the input up to its end, and that included.
        whole: whether it has an end: not so the last of a file that may grow, and one that is too long.
    """

    number: int
    text: str | InputError
    end: int
    whole: bool


# Waits until a file descriptor can be read; False ends the reading.
Wait = Callable[[int], bool]


def wait_for(file: int) -> bool:
    """Wait for a file descriptor and nothing else."""
    select.select([file], [], [])
    return True


def longest_line(features: Sequence[str]) -> int:
    """The length in bytes that no line of these features has."""
    return max(_LONGEST_LINE, sum(len(name.encode()) + _LONGEST_VALUE for name in features))


def lines_of(
    file: int,
    source: str,
    longest: int,
    wait: Wait | None = None,
    read: Callable[[], bytes] | None = None,
    hint: str = "",
    end: int = 0,
    number: int = 0,
) -> Iterator[Line]:
    """Lines of a file descriptor, each as soon as it is there; one that is too long as soon as it is.

    Args:
        file: the descriptor.
        source: what to call the input in an error.
        longest: bytes of a line; what comes after that, up to its end, is left out.
        wait: waits for the descriptor; None where reading waits by itself.
        read: reads what is there; nothing is the end. By default, from the descriptor.
        hint: what else to say of a line that is too long.
        end: where the first line begins.
        number: of the line before that.
    """
    read = partial(os.read, file, 65_536) if read is None else read
    rest, cut = b"", False
    while wait is None or wait(file):
        data = read()
        *found, rest = (rest + data).split(b"\n")
        for line in found:
            end += len(line) + 1
            if cut:
                cut = False
                continue
            number += 1
            yield _line(number, line, end, True, source, longest, hint)
        if cut:
            end += len(rest)
            rest = b""
        elif len(rest) > longest:
            number, cut = number + 1, True
            end += len(rest)
            yield _line(number, rest, end, False, source, longest, hint)
            rest = b""
        if not data:
            if rest:
                yield _line(number + 1, rest, end + len(rest), False, source, longest, hint)
            return


def _line(number: int, line: bytes, end: int, whole: bool, source: str, longest: int, hint: str) -> Line:
    if len(line) > longest:
        problem = f"{source}: line {number}: the line has no end: {longest} bytes without a line's end{hint}"
        return Line(number, EndlessLineError(problem), end, whole)
    try:
        return Line(number, line.decode(), end, whole)
    except UnicodeDecodeError:
        return Line(number, InputError(f"{source}: line {number}: not UTF-8 text"), end, whole)
