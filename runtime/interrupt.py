"""Ctrl-C and SIGTERM as an end between two timesteps."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


class Interrupt:
    """Turns Ctrl-C and SIGTERM into an end between two timesteps: never in the middle of one.

    Attributes:
        requested: whether there was one.
        wake: a file descriptor that can be read once there was one, for those that wait in `select`.
    """

    def __init__(self, wake: int) -> None:
        self.requested = False
        self.wake = wake
        self._waiting = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        del number, frame
        self.requested = True
        if self._waiting:
            raise KeyboardInterrupt

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Around what may wait for ever, such as opening a FIFO: an interruption raises KeyboardInterrupt in it."""
        try:
            self._waiting = True
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def until(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, until they end or an interruption comes."""
        while not self.requested:
            try:
                with self.waiting():
                    item = next(items, None)
            except KeyboardInterrupt:
                return
            if item is None:
                return
            yield item


@contextmanager
def interrupts() -> Generator[Interrupt]:
    """Take Ctrl-C and SIGTERM over for the length of the block, and once there was one until the process ends."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    interrupt = Interrupt(wake)
    before = {number: signal.signal(number, interrupt.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    waker_before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield interrupt
    finally:
        signal.set_wakeup_fd(waker_before)
        for number, handler in before.items():
            # Whoever asked for the end may well ask again; on the way out there is nothing left to interrupt.
            signal.signal(number, signal.SIG_IGN if interrupt.requested else handler)
        os.close(wake)
        os.close(waker)
