"""Waits for what a test waits for; only a fault takes as long as the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds between two looks.
PAUSE = 0.005


def until(condition: Callable[[], object], what: str, seconds: float = 60, pause: float = PAUSE) -> None:
    """Return as soon as a condition holds.

    Args:
        condition: asked again and again.
        what: is to be so, for the message of a failure.
        seconds: the deadline: generous, since machines are slow at times.
        pause: between two looks, longer where a look is dear.
    """
    assert within(condition, seconds, pause), f"not within {seconds} s: {what}"


def within(condition: Callable[[], object], seconds: float, pause: float = PAUSE) -> bool:
    """Return whether a condition came to hold within so many seconds, as soon as that is known."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
