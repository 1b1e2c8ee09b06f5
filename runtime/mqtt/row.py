"""What the store keeps of a topic, as a row; and the check over all of it.

Each row carries a check over every value in it, types included: four bytes over the topic alone, so that a damaged row
can still tell whose it is, and twelve over all. The sum of these over all rows is kept too (`Whole`), by which a row
that is missing or older than the others is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .record import Answer

_TOPIC, _ALL = 4, 12
# Sums of checks are numbers of that many bits.
_BITS = 128


class Text(bytes):
    """TEXT as SQLite has it, UTF-8 or not: with damage it may be none, and TEXT and BLOB differ in their order."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the store keeps of a topic.

    Attributes:
        topic: its name.
        used: when it had its last message, on the store's clock, in seconds.
        sequence: the last sequence number, or None.
        answers: the latest, as JSON.
        state: the stream's snapshot; empty where it is not a finite number any more.
    """

    topic: str
    used: int
    sequence: int | None
    answers: str
    state: bytes

    def values(self) -> tuple[Any, ...]:
        """What SQLite takes, the check last."""
        values = (self.topic, self.used, self.sequence, self.answers, self.state)
        return (*values, check(values))

    @classmethod
    def of(cls, values: Sequence[Any]) -> Row | None:
        """A row from what SQLite has, or None where that is not what was written."""
        if check(values[:-1]) != values[-1]:
            return None
        topic, used, sequence, answers, state = values[:-1]
        return cls(topic.decode(), used, sequence, answers.decode(), state)


def check(values: Sequence[Any]) -> bytes:
    """The check of a row, of which the first value is the topic."""
    return _digest(values[:1], _TOPIC) + _digest(values, _ALL)


def is_topics(values: Sequence[Any]) -> bool:
    """Whether a row that is damaged still tells its topic."""
    return isinstance(values[-1], bytes) and values[-1][:_TOPIC] == _digest(values[:1], _TOPIC)


def number(sum_: object) -> int:
    """A check as a number, to be added to others."""
    return int.from_bytes(sum_, "big") if isinstance(sum_, bytes) else 0


def added(total: int, *changes: int) -> int:
    """A sum of checks, with what is added or taken away."""
    return (total + sum(changes)) % 2**_BITS


def _digest(values: Sequence[Any], size: int) -> bytes:
    # Each value with its type and its length, so that no two rows are the same bytes.
    digest = hashlib.blake2b(digest_size=size)
    for value in values:
        if isinstance(value, str | Text):
            kind, content = b"t", value.encode() if isinstance(value, str) else value
        elif isinstance(value, bytes):
            kind, content = b"b", value
        else:
            kind, content = b"n", repr(value).encode()
        digest.update(b"%s%d:%s" % (kind, len(content), content))
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Whole:
    """What is so of all rows together.

    Attributes:
        rows: how many there are.
        total: sum of their checks.
        saves: how many transactions there were.
        clock: the store's, in seconds: how long it was open, all in all. No clock of the machine's jumps in it.
    """

    rows: int = 0
    total: int = 0
    saves: int = 0
    clock: float = 0.0

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps([self.rows, f"{self.total:x}", self.saves, self.clock])

    @classmethod
    def from_text(cls, text: str) -> Whole:
        """What `to_text` wrote."""
        rows, total, saves, clock = json.loads(text)
        return cls(rows, int(total, 16), saves, clock)


def answers_text(answers: Sequence[Answer]) -> str:
    """Answers as JSON."""
    return json.dumps(
        [
            (a.mid, a.digest.hex(), a.sequence, None if a.payload is None else a.payload.decode("latin-1"))
            for a in answers
        ]
    )


def answers_from(text: str) -> list[Answer]:
    """What `answers_text` wrote."""
    return [
        Answer(mid, bytes.fromhex(digest), n, None if payload is None else payload.encode("latin-1"))
        for mid, digest, n, payload in json.loads(text)
    ]
