"""Lines of a file descriptor, for readers that wait for something else as well."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

from .errors import InputError

# Waits until a file descriptor can be read; False ends the reading.
Wait = Callable[[int], bool]


def wait_for(file: int) -> bool:
    """Wait for a file descriptor and nothing else."""
    select.select([file], [], [])
    return True


def lines(
    file: int, read: Callable[[], bytes], name: str, wait: Wait = wait_for, longest: int | None = None
) -> Iterator[bytes]:
    """Lines of a file descriptor, each as soon as it is there.

    Args:
        file: the descriptor.
        read: reads what is there; nothing is the end.
        name: what to call it in an error.
        wait: waits for it.
        longest: bytes without a line's end after which there is none to be expected; None for any number.

    Raises:
        InputError: a line has no end.
    """
    rest = b""
    while wait(file):
        data = read()
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if longest is not None and len(rest) > longest:
            raise InputError(f"{name}: {len(rest)} bytes without a line's end; is --baud right?")
        if not data:
            if rest:
                yield rest
            return
