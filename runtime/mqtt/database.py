"""The file in which streams are kept: one SQLite database in a folder of its own, for one process at a time.

It has a row per topic (`row`) and is written in transactions, each of which has every change since the one before, so
that it always holds all topics as they were at one moment. A transaction is synced before it counts (write-ahead log,
`synchronous=FULL`).

All of it is checked when it is opened. A damaged row is set aside into a table of its own, its bytes kept; where more
than rows is damaged, `salvage` writes the file anew with what can be read.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..notes import note
from . import salvage
from .place import Place, in_use
from .row import Row, Text, Whole, added, check, number
from .schema import BROKEN, COLUMNS, FILE, DamageError, Shape, connect, create, damaged_by, log_ahead, shape, verify

_PUT = (
    f"INSERT INTO streams ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE SET used = excluded.used,"
    " sequence = excluded.sequence, answers = excluded.answers, state = excluded.state, sum = excluded.sum"
)
_NOT_WRITTEN = "it is not what was written"


class Database:
    """A file of streams, or without a folder a temporary one. Every error that is SQLite's becomes an `InputError`."""

    def __init__(self, folder: Path | None) -> None:
        """Open or create it, and check all of it.

        Raises:
            InputError: it is in use, or cannot be opened; or it is of a later version, or another program's.
        """
        self._name = "the states" if folder is None else str(folder)
        self._folder = folder
        self._place = None if folder is None else Place(folder)
        self._whole = Whole()
        # From the monotonic clock to the store's.
        self._offset = -time.monotonic()
        self._damaged: dict[str, str] = {}
        self._lost: str | None = None
        self._behind: tuple[float, str] | None = None
        try:
            with self._errors("opened"):
                self._database = self._open()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of streams."""
        return self._whole.rows

    @property
    def clock(self) -> float:
        """Seconds for which it was open, all in all."""
        return self._offset + time.monotonic()

    def at(self, used: float) -> int:
        """A moment of the monotonic clock, on the store's."""
        return max(0, int(self._offset + used))

    def find(self, topic: str) -> tuple[Row | None, str | None]:
        """A topic's row, if there is one, and what is to be said of damage to it."""
        with self._errors("read"):
            found = self._database.execute(f"SELECT {COLUMNS} FROM streams WHERE topic = ?", (topic,)).fetchone()
            if found is not None:
                row = Row.of(found)
                if row is None:
                    self._set_aside([found], _NOT_WRITTEN)
                    note(f"{self._name}: a damaged stream is set aside; `edgelstm-run streams` shows it")
                elif self._behind is not None and row.used < self._behind[0]:
                    return row, self._behind[1]
                else:
                    return row, None
        if topic in self._damaged:
            text = f"the stream of this topic was damaged on disk ({self._damaged[topic]})"
            return None, f"{text}; what is left of it is set aside, and it starts again from zero state"
        return None, self._lost

    def first(self, count: int) -> list[Row]:
        """Some rows."""
        with self._errors("read"):
            found = self._database.execute(f"SELECT {COLUMNS} FROM streams LIMIT ?", (count,)).fetchall()
        return [row for row in map(Row.of, found) if row is not None]

    def rows(self) -> Generator[Row]:
        """All rows, in the order of their topics."""
        with self._errors("read"):
            for values in self._database.execute(f"SELECT {COLUMNS} FROM streams ORDER BY topic"):
                if (row := Row.of(values)) is not None:
                    yield row

    def damaged(self) -> list[tuple[str | None, str]]:
        """What was set aside: topic, where that is known, and why."""
        with self._errors("read"):
            found = self._database.execute("SELECT topic, known, reason FROM damaged ORDER BY rowid").fetchall()
        return [(topic.decode() if known else None, reason.decode()) for topic, known, reason in found]

    @property
    def lost(self) -> str | None:
        """What is to be said to topics without a row, where rows were lost."""
        return self._lost

    def write(self, rows: Iterable[Row]) -> None:
        """Put rows into the place of those of their topics, in one transaction that is on disk in the end."""
        with self._transaction("written"):
            total, more = self._whole.total, 0
            for row in rows:
                values = row.values()
                old = self._database.execute("SELECT sum FROM streams WHERE topic = ?", (row.topic,)).fetchone()
                self._database.execute(_PUT, values)
                total = added(total, number(values[-1]), -number(old[0]) if old else 0)
                more += old is None
            self._finish(self._whole.rows + more, total)

    def unused(self) -> int:
        """Bytes of the file that hold nothing any more, and are there for other rows."""
        with self._errors("read"):
            pages, size = (
                self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
            )
        return pages * size

    def set_aside(self, row: Row, reason: str) -> None:
        """Keep a row that cannot be used apart from the others."""
        with self._errors("written"):
            self._set_aside([(*(Text(v.encode()) if isinstance(v, str) else v for v in row.values()),)], reason)

    def drop(self, chosen: Callable[[str, int], bool]) -> list[str]:
        """Drop the rows of which a function of topic and time of last use says so; their topics."""
        dropped: list[tuple[str, int]] = []
        with self._errors("read"):
            for topic, used, sum_ in self._database.execute("SELECT topic, used, sum FROM streams"):
                if isinstance(used, int) and chosen(text := topic.decode(errors="replace"), used):
                    dropped.append((text, number(sum_)))
        if dropped:
            with self._transaction("written"):
                gone = [(topic,) for topic, _ in dropped]
                if self._database.executemany("DELETE FROM streams WHERE topic = ?", gone).rowcount != len(gone):
                    raise DamageError("a row is not in its place")
                total = added(self._whole.total, *(-sum_ for _, sum_ in dropped))
                self._finish(self._whole.rows - len(dropped), total)
        return [topic for topic, _ in dropped]

    def drop_damaged(self) -> int:
        """Drop what was set aside, and all that is said of it; how many rows it was."""
        with self._transaction("written"):
            count = self._database.execute("DELETE FROM damaged").rowcount
            self._database.execute("DELETE FROM settings WHERE name IN ('lost', 'behind')")
            self._finish(self._whole.rows, self._whole.total)
        self._damaged, self._lost, self._behind = {}, None, None
        return count

    def setting(self, name: str) -> str | None:
        """A text that is kept with the streams."""
        with self._errors("read"):
            found = self._database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0].decode()

    def keep_setting(self, name: str, value: str) -> None:
        """Keep a text with the streams."""
        with self._transaction("written"):
            self._keep(name, value)
            self._finish(self._whole.rows, self._whole.total)

    def close(self) -> None:
        """Close it."""
        if hasattr(self, "_database"):
            with suppress(InputError, sqlite3.Error):
                if self._place is not None:
                    with self._transaction("written"):  # For its clock.
                        self._finish(self._whole.rows, self._whole.total)
            self._database.close()
        if self._place is not None:
            self._place.close()
            self._place = None

    def _open(self) -> sqlite3.Connection:
        if self._folder is None or self._place is None:
            database = connect(Path())
            create(database)
            return database
        path, saves = self._folder / FILE, self._place.saves
        for each in (path, path.with_name(f"{FILE}-wal")):
            if each.is_symlink():
                raise InputError(f"{each}: is a link, and not the file itself; make the folder a link instead")
        salvage.finish(path)
        sound, aside = self._sound(path, saves)
        if not sound:
            note(f"{self._folder}: {salvage.rewrite(path, aside, saves)}")
            if not self._sound(path, 0)[0]:
                raise InputError(f"{self._folder}: the states were written anew and cannot be read; check the disk")
        self._place.note(self._whole.saves)
        self._load_notices()
        self._place.settle()
        return self._database

    def _sound(self, path: Path, saves: int) -> tuple[bool, Path | None]:
        """Whether the file can be used as it is; if not and it is damaged, where it is kept."""
        database: sqlite3.Connection | None = None
        try:
            database = connect(path)
            kind = shape(database)
            if kind is Shape.EARLIER:
                database.close()
                return False, None
            if kind is Shape.EMPTY and saves:
                raise DamageError("it is gone, or empty")
            log_ahead(database)
            if kind is Shape.EMPTY:
                create(database)
            whole, bad = verify(database)
            if whole.saves < saves:
                raise DamageError(f"the last {saves - whole.saves} saves in its log are gone")
            self._database, self._whole = database, whole
            self._offset = whole.clock - time.monotonic()
            if bad:
                self._set_aside(bad, _NOT_WRITTEN)
                note(f"{self._folder}: {len(bad)} damaged streams are set aside; `edgelstm-run streams` shows them")
            return True, None
        except (DamageError, *BROKEN) as error:
            if not damaged_by(error, path):
                raise
            note(f"{path}: damaged ({error})")
            # As long as the database is open: when it is closed, its log is worked into it.
            aside = salvage.keep_aside(path)
            if database is not None:
                database.close()
            return False, aside
        except InputError:
            if database is not None:
                database.close()
            raise

    def _load_notices(self) -> None:
        for topic, reason in self.damaged():
            if topic is not None:
                self._damaged[topic] = reason
        self._lost = self.setting("lost")
        behind = self.setting("behind")
        if behind is not None:
            clock, _, text = behind.partition(" ")
            self._behind = float(clock), text

    def _set_aside(self, bad: Collection[tuple[Any, ...]], reason: str) -> None:
        """Move damaged rows that still tell their topics into a table of their own."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for values in bad:
                salvage.keep_damaged(self._database, values, reason)
                gone = self._database.execute("DELETE FROM streams WHERE topic = ?", (values[0].decode(),)).rowcount
                if gone != 1:
                    raise DamageError("a row is not in its place")
                self._damaged[values[0].decode()] = reason
            found = self._database.execute("SELECT sum FROM streams").fetchall()
            self._finish(len(found), added(0, *(number(sum_) for (sum_,) in found)))
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def _keep(self, name: str, value: str) -> None:
        sum_ = check((name, value))
        self._database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (name, value, sum_))

    def _finish(self, rows: int, total: int) -> None:
        """The last of a transaction."""
        whole = Whole(rows, total, self._whole.saves + 1, self.clock)
        self._keep("whole", whole.to_text())
        self._database.execute("COMMIT")
        self._whole = whole
        if self._place is not None:
            self._place.note(whole.saves)

    @contextmanager
    def _transaction(self, what: str) -> Generator[None]:
        with self._errors(what):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, what: str) -> Generator[None]:
        try:
            yield
        except (DamageError, *BROKEN) as error:
            if "locked" in str(error):
                raise in_use(self._name) from error
            remedy = ""
            if self._folder is not None and damaged_by(error, self._folder / FILE):
                remedy = "; start again: what can be read is kept then, and the damaged file is set aside"
            raise InputError(f"{self._name}: the states cannot be {what} ({error}){remedy}") from error
        except OSError as error:
            raise InputError(f"{self._name}: the states cannot be {what} ({error})") from error
