"""A message from a broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """A message that came.

    Attributes:
        topic: where it was published; None where that is not UTF-8.
        payload: its content.
        mid: its packet identifier, 0 at QoS 0.
        qos: 0 or 1: how it came.
        dup: whether the broker sent it before, and may have had no acknowledgement.
        retain: whether it was kept by the broker and is old.
    """

    topic: str | None
    payload: bytes
    mid: int
    qos: int
    dup: bool
    retain: bool
