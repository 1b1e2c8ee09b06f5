"""Reads flatbuffers where they lie: tables by the number of a field, vectors of bytes, numbers and tables.

Format: https://flatbuffers.dev/internals. A damaged buffer raises struct.error, IndexError or ValueError.
"""

from __future__ import annotations

import struct
from typing import Any


def u32(content: bytes, at: int) -> int:
    """The unsigned number at a position; the root table's position stands at 0."""
    return struct.unpack_from("<I", content, at)[0]


def field(content: bytes, table: int, number: int) -> int | None:
    """Position of a table's field, or None where it is left out."""
    vtable = table - struct.unpack_from("<i", content, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", content, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", content, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def scalar(content: bytes, table: int, number: int, kind: str) -> int:
    """A field that is a whole number, of a kind such as `<I`; 0 where it is left out."""
    at = field(content, table, number)
    return 0 if at is None else struct.unpack_from(kind, content, at)[0]


def vector(content: bytes, at: int, item: int = 1) -> bytes:
    """The bytes of a vector or a text, whose field is at a position."""
    start = at + u32(content, at)
    size = item * u32(content, start)
    if start + 4 + size > len(content):
        raise ValueError("vector beyond the end")
    return content[start + 4 : start + 4 + size]


def numbers(content: bytes, table: int, number: int, kind: str) -> tuple[Any, ...]:
    """A field that is a vector of numbers, of a kind such as `i`; empty where it is left out."""
    at = field(content, table, number)
    if at is None:
        return ()
    size = struct.calcsize(f"<{kind}")
    found = vector(content, at, size)
    return struct.unpack(f"<{len(found) // size}{kind}", found)


def text(content: bytes, table: int, number: int) -> str:
    """A field that is a text; empty where it is left out."""
    at = field(content, table, number)
    return "" if at is None else vector(content, at).decode()


def tables(content: bytes, at: int) -> list[int]:
    """Positions of the tables of a vector, whose field is at a position."""
    start = at + u32(content, at)
    count = u32(content, start)
    if start + 4 + 4 * count > len(content):
        raise ValueError("vector beyond the end")
    return [at + u32(content, at) for at in range(start + 4, start + 4 + 4 * count, 4)]
