"""Writes a damaged or an earlier database of streams anew, with all of it that can be read.

The damaged file is kept as it is, under a name of its own. A row counts if its check says that it is what was written.
"""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..durable import sync_folder
from .row import Row, Text, Whole, added, answers_from, answers_text, check, is_topics, number
from .schema import BROKEN, COLUMNS, FILE, Shape, connect, create, read_settings, shape

_LOG = "-wal"
_LOST = (
    "streams were lost through damage on disk, and of which topics is not known; if this topic had one, it starts "
    "again from zero state"
)
_KEEP = "INSERT INTO damaged VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass
class _Found:
    """What could be read: rows by topic, settings, rows that were set aside before, and whether that was all."""

    earlier: bool = False
    rows: dict[tuple[bool, bytes], tuple[Any, ...]] = field(default_factory=dict[tuple[bool, bytes], tuple[Any, ...]])
    settings: dict[str, str] = field(default_factory=dict[str, str])
    damaged: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    broken: bool = False

    @property
    def whole(self) -> Whole | None:
        """What it says of all rows."""
        return Whole.from_text(self.settings["whole"]) if "whole" in self.settings else None


def keep_aside(path: Path) -> Path:
    """Keep a file, and its log, as they are, under a name that was free; that name."""
    names = (path.with_name(f"{path.name}.damaged{f'-{i}' if i else ''}") for i in range(10**6))
    aside = next(name for name in names if not name.exists())
    for source, to in ((path, aside), (_log(path), _log(aside))):
        if source.exists() and source.stat().st_size:
            shutil.copy2(source, to)
            with to.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(path.parent)
    return aside


def keep_damaged(database: sqlite3.Connection, values: tuple[Any, ...], reason: str, known: bool = True) -> None:
    """Put a row among those that are damaged, its bytes as they are."""
    kept = [bytes(value) if isinstance(value, Text) else value for value in values]
    kept += [int(known), reason]
    database.execute(_KEEP, (*kept, check(kept)))


def rewrite(path: Path, aside: Path | None, saves: int) -> str:
    """Write a database anew.

    Args:
        path: the file.
        aside: where it is kept; None if it is not known to be damaged, but of an earlier version.
        saves: how many transactions there are known to have been, at least.

    Returns:
        What came of it, in words.

    Raises:
        OSError: it cannot be written.
        sqlite3.Error: the same.
    """
    found = _read(path)
    if found.whole is None and not found.rows and aside is not None:
        found = _read_behind_first_page(path) or found
    good, bad, unknown = _sorted(found)
    if aside is None and (bad or unknown or found.broken):
        aside = keep_aside(path)
    whole = found.whole or Whole()
    # Later than any row, so that those are told apart that were not written since.
    clock = math.ceil(whole.clock) + 1.0
    total = added(0, *(number(values[-1]) for values in good))
    settings = {name: value for name, value in found.settings.items() if name not in ("format", "whole")}
    complete = (not found.broken and not unknown) if found.earlier else len(good) + len(bad) == whole.rows
    if not complete or (found.whole is None and not found.earlier):
        settings["lost"] = _LOST
    elif total != whole.total and not bad and not found.earlier:
        settings["behind"] = f"{clock} this stream may be older than what was saved last: {FILE} was damaged"
    if whole.saves < saves and not found.earlier and found.whole is not None:
        settings["behind"] = (
            f"{clock} the last {saves - whole.saves} saves were lost through damage on disk: this stream goes on "
            "from a state that may lack its last messages"
        )
        settings["lost"] = _LOST
    _write(path, good, [*bad, *unknown], found, settings, Whole(len(good), total, max(whole.saves, saves), clock))
    if aside is None:
        return f"written anew in the format of this version, {len(good)} streams"
    return (
        f"written anew with {len(good)} streams that are whole; {len(bad)} damaged ones are set aside"
        + (", others are lost" if "lost" in settings else "")
        + f"; the damaged file is kept as {aside.name}"
    )


def finish(path: Path) -> None:
    """Put a file that was written anew, and is whole, in its place; a cut may have come before that."""
    if not _ready(path).exists():
        return
    # Never an old log beside the new file: SQLite would apply it.
    for suffix in (_LOG, "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    sync_folder(path.parent)
    os.replace(_ready(path), path)
    sync_folder(path.parent)


def _write(
    path: Path,
    good: list[tuple[Any, ...]],
    bad: list[tuple[Any, ...]],
    found: _Found,
    settings: dict[str, str],
    whole: Whole,
) -> None:
    new = path.with_name(f"{path.name}.new")
    for suffix in ("", "-journal", _LOG):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    database = connect(new)
    try:
        create(database)
        database.execute("BEGIN IMMEDIATE")
        for values in good:
            texts = [value.decode() if isinstance(value, Text) else value for value in values]
            database.execute(f"INSERT INTO streams ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", texts)
        for values in bad:
            keep_damaged(database, values, "it is not what was written", found.earlier or is_topics(values))
        for values in found.damaged:
            if check(values[:-1]) == values[-1]:
                keep_damaged(database, values[:6], values[7].decode(), bool(values[6]))
        for name, value in {**settings, "whole": whole.to_text()}.items():
            database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (name, value, check((name, value))))
        database.execute("COMMIT")
    finally:
        database.close()
    os.replace(new, _ready(path))
    sync_folder(path.parent)
    finish(path)


def _sorted(found: _Found) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Rows that are what was written; those that are not, but tell their topics; and all others."""
    good, bad, unknown = list[tuple[Any, ...]](), list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for values in found.rows.values():
        if found.earlier:
            row = _of_earlier(values)
            if row is not None:
                good.append(tuple(Text(v.encode()) if isinstance(v, str) else v for v in row.values()))
            else:
                topic, state, sequence, answers = values
                known = isinstance(topic, Text) and _decodes(topic)
                (bad if known else unknown).append((topic, 0, sequence, answers, state, None))
        elif Row.of(values) is not None:
            good.append(values)
        else:
            (bad if is_topics(values) else unknown).append(values)
    return good, bad, unknown


def _of_earlier(values: tuple[Any, ...]) -> Row | None:
    """A row of the format before, which had no check but that of the snapshot; None where that says it is damaged."""
    topic, state, sequence, answers = values
    if not isinstance(topic, Text) or not isinstance(answers, Text) or not _decodes(topic):
        return None
    if isinstance(state, Text) or not isinstance(state, bytes) or len(state) < 5:
        return None
    if struct.unpack("<I", state[-4:])[0] != zlib.crc32(state[:-4]) or not isinstance(sequence, int | None):
        return None
    try:
        kept = answers_from(answers.decode())
    except (ValueError, TypeError, AttributeError):
        return None
    # Numbered messages were known by their numbers alone: of what they held nothing comparable was kept.
    kept = [answer if answer.sequence is None else replace(answer, digest=b"") for answer in kept]
    return Row(topic.decode(), 0, sequence, answers_text(kept), state)


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(path: Path) -> _Found:
    found = _Found()
    database: sqlite3.Connection | None = None
    try:
        database = connect(path)
        found.earlier = shape(database) is Shape.EARLIER
        if found.earlier:
            found.broken = database.execute("PRAGMA quick_check(1)").fetchone()[0] != b"ok"
            settings = _all(database, found, "name, value", "settings")
            found.settings = {n.decode(): v.decode() for n, v in settings if _decodes(n) and _decodes(v)}
        else:
            found.settings = read_settings(_all(database, found, "name, value, sum", "settings"))
            found.damaged = _all(
                database, found, "topic, used, sequence, answers, state, sum, known, reason", "damaged"
            )
        columns = "topic, state, sequence, answers" if found.earlier else COLUMNS
        for values in _all(database, found, columns, "streams"):
            topic = values[0]
            if not isinstance(topic, bytes):
                topic = repr(topic).encode()
            key = isinstance(topic, Text), bytes(topic)
            before = found.rows.get(key)
            if before is None or _worth(values, found.earlier) > _worth(before, found.earlier):
                found.rows[key] = values
    except BROKEN:
        found.broken = True
    finally:
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()
    return found


def _worth(values: tuple[Any, ...], earlier: bool) -> tuple[bool, int]:
    """Of two rows with one topic, the one that is whole is better, and the later one."""
    return (True, 0) if earlier or Row.of(values) is None else (True, int(values[1]) + 1)


def _all(database: sqlite3.Connection, found: _Found, columns: str, table: str) -> list[tuple[Any, ...]]:
    """All rows in front of a damaged page, and from the other end all behind it."""
    rows = list[tuple[Any, ...]]()
    query = f"SELECT {columns} FROM {table} ORDER BY 1"
    try:
        for values in database.execute(query):
            rows.append(values)
        return rows
    except BROKEN:
        found.broken = True
    seen = {repr(values[0]) for values in rows}
    try:
        for values in database.execute(f"{query} DESC"):
            if repr(values[0]) in seen:
                break
            rows.append(values)
    except BROKEN:
        pass
    return rows


def _read_behind_first_page(path: Path) -> _Found | None:
    """The first page holds the file's header and its tables' names, and no rows: that of a new file will do."""
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        return None
    with path.open("rb") as file:
        (page,) = struct.unpack_from(">H", file.read(100).ljust(100, b"\0"), 16)
    mended, model = path.with_name(f"{path.name}.mended"), path.with_name(f"{path.name}.first")
    for page_size in dict.fromkeys((page, 4096)):
        if page_size < 512 or page_size & (page_size - 1) or size < 2 * page_size:
            continue
        _remove(mended, model)
        try:
            database = sqlite3.connect(model, isolation_level=None)
            database.execute(f"PRAGMA page_size = {page_size}")
            create(database)
            database.close()
            first = bytearray(model.read_bytes()[:page_size])
            # In pages: the size, and that none is free.
            first[28:40] = struct.pack(">III", size // page_size, 0, 0)
            shutil.copyfile(path, mended)
            if _log(path).exists():
                first[18:20] = b"\2\2"
                shutil.copyfile(_log(path), _log(mended))
            with mended.open("r+b") as file:
                file.write(first)
            found = _read(mended)
        except (*BROKEN, OSError):
            continue
        finally:
            _remove(mended, model)
        if found.whole is not None:
            return found
    return None


def _remove(*paths: Path) -> None:
    for path in paths:
        for suffix in ("", "-journal", _LOG, "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _ready(path: Path) -> Path:
    return path.with_name(f"{path.name}.ready")


def _log(path: Path) -> Path:
    return path.with_name(path.name + _LOG)
