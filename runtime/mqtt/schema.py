"""What the database of streams looks like, and whether one is sound."""

from __future__ import annotations

import os
import sqlite3
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import InputError
from .row import Row, Text, Whole, added, check, is_topics, number

FILE = "streams.sqlite"
FORMAT = 2
COLUMNS = "topic, used, sequence, answers, state, sum"
# Of rows that were set aside; the last is the check over all before it.
DAMAGED = f"{COLUMNS}, known, reason, mark"
# Of every database that is ours: the letters EDGE.
_APPLICATION = 0x45444745
# Without a rowid the topic itself orders the rows: no second tree could lead to another row, or to none.
_TABLES = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, sum BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE streams (topic TEXT PRIMARY KEY, used INTEGER NOT NULL, sequence INTEGER, answers TEXT NOT NULL,"
    " state BLOB NOT NULL, sum BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE damaged (topic, used, sequence, answers, state, sum, known INTEGER, reason TEXT, mark BLOB)",
)
_EARLIER = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE streams (topic TEXT PRIMARY KEY, state BLOB NOT NULL, sequence INTEGER, answers TEXT NOT NULL)",
)
# What SQLite answers to damage: ERROR (a schema that does not parse), CORRUPT, TOOBIG, MISMATCH, FORMAT, NOTADB, and
# one of IOERR's kinds, SHORT_READ.
_DAMAGES, _SHORT_READ, _READONLY = (1, 11, 18, 20, 24, 26), 522, 8


# Errors that reading a damaged file ends in; SQLite's own message may not be UTF-8 then, so a ValueError.
BROKEN = (sqlite3.Error, MemoryError, ValueError)


class DamageError(Exception):
    """Damage to more than rows that still tell their topics."""


class Shape(Enum):
    """What a database looks like."""

    EMPTY = 0
    EARLIER = 1
    OURS = 2


def connect(path: Path) -> sqlite3.Connection:
    """Open a database, alone; an empty path is a temporary one."""
    name = str(path) if path.name else ""
    database = sqlite3.connect(name, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        database.text_factory = Text
        for pragma in ("locking_mode = EXCLUSIVE", "synchronous = FULL", "cell_size_check = ON"):
            database.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        database.close()
        raise
    return database


def log_ahead(database: sqlite3.Connection) -> None:
    """Have transactions go to a log first, so that each takes one sync only."""
    database.execute("PRAGMA journal_mode = WAL").fetchall()


def create(database: sqlite3.Connection) -> None:
    """Put the tables into an empty database."""
    database.execute("BEGIN IMMEDIATE")
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    for statement in _TABLES:
        database.execute(statement)
    for name, value in (("format", str(FORMAT)), ("whole", Whole().to_text())):
        database.execute("INSERT INTO settings VALUES (?, ?, ?)", (name, value, check((name, value))))
    database.execute("COMMIT")


def shape(database: sqlite3.Connection) -> Shape:
    """What a database looks like.

    Raises:
        InputError: it is of a later version, or another program's.
    """
    found = _statements(database)
    ours = database.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION
    if found == list(_EARLIER) and not ours:
        return Shape.EARLIER
    if not found and not ours:
        return Shape.EMPTY
    if not ours and not any(b"streams" in name for (name,) in database.execute("SELECT name FROM sqlite_schema")):
        raise InputError(f"{FILE} there is no file of streams, but another program's; choose another --state")
    return Shape.OURS


def verify(database: sqlite3.Connection) -> tuple[Whole, list[tuple[Any, ...]]]:
    """Check everything.

    Returns:
        What is so of all rows together, and the rows that are damaged but still tell their topics.

    Raises:
        DamageError: something else is damaged.
        InputError: it is of a later version.
    """
    ours = database.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION
    settings = read_settings(database.execute("SELECT name, value, sum FROM settings").fetchall())
    if ours and settings.get("format", "").isdecimal() and int(settings["format"]) > FORMAT:
        raise InputError(
            f"{FILE} there is of a later version of EdgeLSTM (format {settings['format']}, and this one reads "
            f"{FORMAT}); update EdgeLSTM, or choose another --state"
        )
    if not ours or _statements(database) != list(_TABLES) or settings.get("format") != str(FORMAT):
        raise DamageError("its tables are not those that were made")
    (problem,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if problem != b"ok":
        raise DamageError(" ".join(problem.decode(errors="replace").split()))
    if "whole" not in settings:
        raise DamageError("what it says of all rows is not what was written")
    count, names = database.execute("SELECT count(*), count(DISTINCT name) FROM settings").fetchone()
    if not count == names == len(settings):
        raise DamageError("a setting is not what was written")
    if any(check(values[:-1]) != values[-1] for values in database.execute(f"SELECT {DAMAGED} FROM damaged")):
        raise DamageError("what was set aside is not what was written")
    whole, rows, total, bad = Whole.from_text(settings["whole"]), 0, 0, list[tuple[Any, ...]]()
    for values in database.execute(f"SELECT {COLUMNS} FROM streams"):
        rows, total = rows + 1, added(total, number(values[-1]))
        if Row.of(values) is None:
            if not is_topics(values):
                raise DamageError("a stream is damaged so that its topic is not known any more")
            bad.append(values)
    if rows != whole.rows:
        raise DamageError(f"it holds {rows} streams where {whole.rows} were written")
    if total != whole.total and not bad:
        raise DamageError("a stream is not the one that was written last")
    return whole, bad


def read_settings(rows: list[tuple[Any, ...]]) -> dict[str, str]:
    """Those settings that are what was written."""
    return {
        name.decode(): value.decode()
        for name, value, sum_ in rows
        if isinstance(name, Text) and isinstance(value, Text) and check((name, value)) == sum_
    }


def _statements(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    return [sql.decode(errors="replace") for (sql,) in found]


def damaged_by(error: Exception, path: Path) -> bool:
    """Whether an error comes from damage, and not from what is full, locked or forbidden."""
    if not isinstance(error, sqlite3.Error):
        return True
    code = int(getattr(error, "sqlite_errorcode", 0))
    # A file that may be written, and that SQLite takes for one that may not, says so itself.
    read_only = code & 0xFF == _READONLY and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code & 0xFF in _DAMAGES or code == _SHORT_READ or read_only
