"""The streams of many topics: in memory while they are in use, on disk for ever.

One SQLite file in a folder of its own has a row per topic: the state, the last sequence number, and the latest answers
with what identifies the messages that they answer. It is written in transactions, each of which has every change since
the one before, so that the file always holds all topics as they were at one moment. A transaction is synced to disk
before it counts (write-ahead log, `synchronous=FULL`), in a thread of its own, since that may take a memory card half
a second.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackendUnavailableError, InputError
from ..stream import Stream
from .record import Answer, Record

if TYPE_CHECKING:
    import sqlite3

# Topic, state, last sequence number, answers.
_Row = tuple[str, bytes, int | None, str]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS streams"
    " (topic TEXT PRIMARY KEY, state BLOB NOT NULL, sequence INTEGER, answers TEXT NOT NULL)",
)
_SAVE = (
    "INSERT INTO streams VALUES (?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE SET"
    " state = excluded.state, sequence = excluded.sequence, answers = excluded.answers"
)


class StreamStore:
    """Streams of a model by topic.

    Attributes:
        saved: number of the last save that is on disk.
        next_save: number of the save that will have what changes now.
    """

    def __init__(self, new_stream: Callable[[], Stream], folder: Path | None, limit: int) -> None:
        """Open or create the file.

        Args:
            new_stream: makes a stream from zero state.
            folder: where to keep them; None forgets them in the end.
            limit: how many streams to hold in memory at most.

        Raises:
            InputError: the folder is unusable, in use, or of another model.
            BackendUnavailableError: this Python has no SQLite.
        """
        self._new_stream, self._limit = new_stream, limit
        self.saved, self.next_save = 0, 1
        self._name = "the states" if folder is None else str(folder)
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._changed: dict[str, Record] = {}
        # Rows of streams that left memory since the last save, and of the save that is being written.
        self._left: dict[str, _Row] = {}
        self._writing: dict[str, _Row] = {}
        self._write: Future[None] | None = None
        self._wake, self._waker = os.pipe()
        self._writer = ThreadPoolExecutor(1)
        self._database = _open(folder)
        for name in self._rows("SELECT topic FROM streams LIMIT 1"):
            self.record(name[0])  # Fails now, not at the first message, where the states are another model's.

    def __len__(self) -> int:
        """Number of streams in memory."""
        return len(self._records)

    def fileno(self) -> int:
        """A file descriptor that can be read when a save has ended; `reap` then."""
        return self._wake

    @property
    def unsaved(self) -> bool:
        """Whether there are changes that no save has."""
        return bool(self._changed or self._left)

    @property
    def saving(self) -> bool:
        """Whether a save is being written."""
        return self._write is not None

    def record(self, topic: str) -> Record:
        """The record of a topic: from memory, from disk, or new from zero state; others leave memory for it."""
        record = self._records.get(topic)
        if record is None:
            record = self._load(topic)
            while len(self._records) >= self._limit:
                self._evict(next(iter(self._records)))
            self._records[topic] = record
        self._records.move_to_end(topic)
        record.used = time.monotonic()
        return record

    def changed(self, record: Record) -> None:
        """Have the next save write a record."""
        record.save = self.next_save
        self._changed[record.topic] = record

    def evict_idle(self, seconds: float) -> None:
        """Let streams leave memory that were not used for so long."""
        before = time.monotonic() - seconds
        while self._records and (oldest := next(iter(self._records.values()))).used < before:
            self._evict(oldest.topic)

    def begin_save(self) -> Future[None]:
        """Begin to write all changes, beside what the caller does; one save at a time."""
        self._writing = {**self._left, **{topic: _row(record) for topic, record in self._changed.items()}}
        self._left, self._changed = {}, {}
        self.next_save += 1
        self._write = self._writer.submit(self._commit, list(self._writing.values()))
        self._write.add_done_callback(lambda _: os.write(self._waker, b"."))
        return self._write

    def reap(self) -> bool:
        """Take notice of a save that has ended.

        Returns:
            Whether one has.

        Raises:
            InputError: it failed.
        """
        if self._write is None or not self._write.done():
            return False
        self._finish(self._write)
        return True

    def save(self) -> None:
        """Write all changes and wait until they are on disk.

        Raises:
            InputError: that failed.
        """
        if self._write is not None:
            self._finish(self._write)
        if self.unsaved:
            self._finish(self.begin_save())

    def setting(self, name: str) -> str | None:
        """A text that is kept with the streams."""
        found = self._rows("SELECT value FROM settings WHERE name = ?", name)
        return None if not found else str(found[0][0])

    def keep_setting(self, name: str, value: str) -> None:
        """Keep a text with the streams."""
        self._rows("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value)

    def close(self) -> None:
        """Close the file, without what was not saved."""
        self._writer.shutdown()
        self._database.close()
        os.close(self._wake)
        os.close(self._waker)

    def _finish(self, write: Future[None]) -> None:
        self._write = None
        write.result()
        os.read(self._wake, 1)
        self._writing = {}
        self.saved = self.next_save - 1

    def _commit(self, rows: list[_Row]) -> None:
        import sqlite3

        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_SAVE, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise InputError(f"{self._name}: the states cannot be written ({error})") from error

    def _evict(self, topic: str) -> None:
        record = self._records.pop(topic)
        if self._changed.pop(topic, None) is not None:
            self._left[topic] = _row(record)

    def _load(self, topic: str) -> Record:
        stream = self._new_stream()
        save = 0
        if topic in self._left:
            row, save = self._left[topic], self.next_save
        elif topic in self._writing:
            row, save = self._writing[topic], self.next_save - 1
        elif found := self._rows("SELECT topic, state, sequence, answers FROM streams WHERE topic = ?", topic):
            row = found[0]
        else:
            return Record(topic, stream)
        _, state, sequence, answers = row
        try:
            stream.restore(state)
        except InputError as error:
            raise InputError(f"{self._name}: {topic}: {error}; choose another --state") from error
        kept = [
            Answer(mid, bytes.fromhex(d), n, None if text is None else text.encode("latin-1"))
            for mid, d, n, text in json.loads(answers)
        ]
        return Record(topic, stream, sequence, kept, save)

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        import sqlite3

        try:
            return self._writer.submit(lambda: self._database.execute(statement, values).fetchall()).result()
        except sqlite3.Error as error:
            raise InputError(f"{self._name}: the states cannot be read ({error})") from error


def _row(record: Record) -> _Row:
    answers = [
        (a.mid, a.digest.hex(), a.sequence, None if a.payload is None else a.payload.decode("latin-1"))
        for a in record.answers
    ]
    return record.topic, record.stream.snapshot(), record.sequence, json.dumps(answers)


def _open(folder: Path | None) -> sqlite3.Connection:
    try:
        import sqlite3
    except ImportError as error:
        raise BackendUnavailableError(f"streams are kept in SQLite, which this Python lacks ({error})") from error
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        # With an empty name SQLite takes a temporary file.
        path = "" if folder is None else str(folder / "streams.sqlite")
        database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {pragma}")
        for statement in _SCHEMA:
            database.execute(statement)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise InputError(f"{folder}: in use by another process; each needs a --state of its own") from error
        raise InputError(f"{folder}: the states cannot be opened ({error})") from error
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"{folder}: the states cannot be opened ({error})") from error
    return database
