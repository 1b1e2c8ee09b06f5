"""The streams of many topics: in memory while they are in use, on disk for ever or until they are forgotten.

What is on disk is `database`'s. It is written in a thread of its own, since a sync may take a card half a second.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackendUnavailableError, InputError
from ..stream import Stream
from .record import Record
from .row import Row, answers_from, answers_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from .database import Database

# As many rows are looked at for one that fits the model before the store is taken for another model's.
_SAMPLE = 100
# Bytes that streams of other topics leave free where they are kept: those that are there need room to go on.
_LEAST_FREE = 32 * 2**20


class NoRoomError(InputError):
    """One topic more than may have a stream."""


class StreamStore:
    """Streams of a model by topic.

    Attributes:
        saved: number of the last save that is on disk.
        next_save: number of the save that will have what changes now.
    """

    def __init__(
        self, new_stream: Callable[[], Stream], folder: Path | None, limit: int, most_topics: int | None = None
    ) -> None:
        """Open or create the file.

        Args:
            new_stream: makes a stream from zero state.
            folder: where to keep them; None forgets them in the end.
            limit: how many streams to hold in memory at most.
            most_topics: how many topics may have a stream; None sets no limit.

        Raises:
            InputError: the folder is unusable, in use, or of another model.
            BackendUnavailableError: this Python has no SQLite.
        """
        self._new_stream, self._limit, self._most_topics = new_stream, limit, most_topics
        self.saved, self.next_save = 0, 1
        self._folder, self._name = folder, "the states" if folder is None else str(folder)
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._changed: dict[str, Record] = {}
        # Rows of streams that left memory since the last save, and of the save that is being written.
        self._left: dict[str, Row] = {}
        self._writing: dict[str, Row] = {}
        # Topics that have a stream and no row yet.
        self._fresh: set[str] = set()
        self._write: Future[None] | None = None
        self._forgetting: Future[list[str]] | None = None
        self._database = open_database(folder)
        self._wake, self._waker = os.pipe()
        self._writer = ThreadPoolExecutor(1)
        try:
            self._check_model()
        except BaseException:
            self.close()
            raise

    def _check_model(self) -> None:
        """Fail now, not at the first message, where the states are another model's."""
        problem: InputError | None = None
        for row in self._database.first(_SAMPLE):
            try:
                self._restored(row)
                return
            except InputError as error:
                problem = InputError(f"{self._name}: {row.topic}: {error}; choose another --state")
        if problem is not None:
            raise problem

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

    @property
    def topics(self) -> int:
        """How many topics have a stream, on disk or not yet."""
        return len(self._database) + len(self._fresh)

    def record(self, topic: str) -> Record:
        """The record of a topic: from memory, from disk, or new from zero state; others leave memory for it.

        Raises:
            NoRoomError: it would be one more than there may be.
            InputError: the file cannot be read.
        """
        record = self._records.get(topic)
        if record is None:
            record = self._load(topic)
            while len(self._records) >= self._limit:
                self._evict(next(iter(self._records)))
            self._records[topic] = record
        self._records.move_to_end(topic)
        record.used = time.monotonic()
        return record

    def try_out(self, values: npt.ArrayLike) -> None:
        """Whether a stream takes a timestep; no stream of a topic's is touched.

        Raises:
            InputError: it does not.
        """
        self._new_stream().step(values)

    def changed(self, record: Record) -> None:
        """Have the next save write a record."""
        record.save = self.next_save
        self._changed[record.topic] = record
        if record.fresh:
            record.fresh = False
            self._fresh.add(record.topic)

    def evict_idle(self, seconds: float) -> None:
        """Let streams leave memory that were not used for so long."""
        before = time.monotonic() - seconds
        while self._records and (oldest := next(iter(self._records.values()))).used < before:
            self._evict(oldest.topic)

    def forget(self, seconds: float) -> None:
        """Begin to drop the streams, on disk too, that were not used for so long while the store was open."""
        if self._forgetting is not None:
            if not self._forgetting.done():
                return
            self._forgetting.result()
        before = time.monotonic() - seconds
        unsaved = self._changed.keys() | self._left.keys() | self._writing.keys()
        for topic in [t for t, record in self._records.items() if record.used < before and t not in unsaved]:
            del self._records[topic]
        kept, limit = self._records.keys() | unsaved, self._database.at(before)
        self._forgetting = self._writer.submit(
            self._database.drop, lambda topic, used: used < limit and topic not in kept
        )

    def begin_save(self) -> Future[None]:
        """Begin to write all changes, beside what the caller does; one save at a time."""
        self._writing = {**self._left, **{topic: self._row(record) for topic, record in self._changed.items()}}
        self._left, self._changed = {}, {}
        self.next_save += 1
        self._write = self._writer.submit(self._database.write, list(self._writing.values()))
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
        return self._writer.submit(self._database.setting, name).result()

    def keep_setting(self, name: str, value: str) -> None:
        """Keep a text with the streams."""
        self._writer.submit(self._database.keep_setting, name, value).result()

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
        self._fresh -= self._writing.keys()
        self._writing = {}
        self.saved = self.next_save - 1

    def _evict(self, topic: str) -> None:
        record = self._records.pop(topic)
        if self._changed.pop(topic, None) is not None:
            self._left[topic] = self._row(record)

    def _load(self, topic: str) -> Record:
        if topic in self._left:
            return self._restored(self._left[topic], self.next_save)
        if topic in self._writing:
            return self._restored(self._writing[topic], self.next_save - 1)
        row, notice = self._writer.submit(self._database.find, topic).result()
        if row is not None:
            try:
                record = self._restored(row)
                record.notice = notice
                return record
            except InputError as error:
                # The states are this model's: others' could be used.
                self._writer.submit(self._database.set_aside, row, str(error)).result()
                row, notice = self._writer.submit(self._database.find, topic).result()
        if self._most_topics is not None and self.topics >= self._most_topics:
            raise NoRoomError(
                f"{self.topics} topics have a stream, and no more may (--max-topics); --forget-after, or "
                "`edgelstm-run streams` with --drop, makes room for others"
            )
        if self._folder is not None and (free := self._free(self._folder)) < _LEAST_FREE:
            raise NoRoomError(
                f"only {free / 2**20:.0f} MiB are free where streams are kept, so no other topic's is begun; "
                "--forget-after, or `edgelstm-run streams` with --drop, makes room for others"
            )
        return Record(topic, self._new_stream(), fresh=True, notice=notice)

    def _free(self, folder: Path) -> int:
        """Bytes for further streams: on the disk and, where that has few, in the file, of streams that were dropped."""
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        return free if free >= _LEAST_FREE else free + self._writer.submit(self._database.unused).result()

    def _row(self, record: Record) -> Row:
        state = b"" if record.diverged else record.stream.snapshot()
        used = self._database.at(record.used)
        return Row(record.topic, used, record.sequence, answers_text(record.answers), state)

    def _restored(self, row: Row, save: int = 0) -> Record:
        stream = self._new_stream()
        if row.state:
            stream.restore(row.state)
        return Record(row.topic, stream, row.sequence, answers_from(row.answers), save, diverged=not row.state)


def open_database(folder: Path | None) -> Database:
    """Open or create the file.

    Raises:
        InputError: it is unusable, or in use.
        BackendUnavailableError: this Python has no SQLite.
    """
    try:
        from .database import Database
    except ImportError as error:
        raise BackendUnavailableError(f"streams are kept in SQLite, which this Python lacks ({error})") from error
    return Database(folder)
