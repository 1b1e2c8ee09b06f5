"""A store of streams for tests: rows, what is read of them, and bits of it changed."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path

from edgelstm.runtime.mqtt.database import Database
from edgelstm.runtime.mqtt.row import Row

FILE = "streams.sqlite"
NEW = "plant/new/in"


def row(topic: str, value: int = 7, sequence: int | None = 5) -> Row:
    return Row(topic, 0, sequence, f'[[1, "0102", {json.dumps(sequence)}, "{{}}"]]', bytes([value]) * 40)


def topics(count: int) -> list[str]:
    return [f"plant/{k}/in" for k in range(count)]


def opened(folder: Path, expected: dict[str, Row]) -> tuple[list[str], list[str], str | None]:
    """Topics whose row is as it was, those of which damage is said, and what is said to a new topic."""
    with closing(Database(folder)) as database:
        found = {topic: database.find(topic) for topic in expected}
        about_new = database.find(NEW)[1]
        client_id = database.setting("client_id")
    assert client_id in (None, "edgelstm-7")
    same = [topic for topic, (kept, _) in found.items() if kept == expected[topic]]
    told = [topic for topic, (_, notice) in found.items() if notice]
    return same, told, about_new


def flips(content: bytes, seed: int) -> list[bytearray]:
    """The content with one bit of each byte changed; of long runs of zeros, which no table uses, now and then one."""
    rng, made = random.Random(seed), list[bytearray]()
    for at, byte in enumerate(content):
        if byte or any(content[at - 4 : at + 4]) or at % 64 == 0:
            changed = bytearray(content)
            changed[at] ^= 1 << rng.randrange(8)
            made.append(changed)
    return made


EARLIER = (
    "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS streams"
    " (topic TEXT PRIMARY KEY, state BLOB NOT NULL, sequence INTEGER, answers TEXT NOT NULL)",
)
