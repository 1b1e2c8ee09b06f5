"""The service: what is done with each message, and when it is acknowledged. The package says why in this order."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..heartbeat import Heartbeat
from ..interrupt import Interrupt
from ..notes import note
from .connection import Connection
from .message import Message
from .payload import PayloadReader, Reading
from .record import Answer, Record, Seen
from .store import NoRoomError, StreamStore
from .topics import Subscription, TopicTemplate

# Seconds between two looks for streams that are idle, and until what is unacknowledged at the end is given up; it will
# be recognised when it comes again.
_HOUSEKEEPING, _PARTING = 1.0, 5.0
# With a broker that sends without end, a save is begun after so many messages all the same.
_MOST_UNSAVED = 1000
_LONGEST_TOPIC = 65_535  # Bytes (MQTT 3.1.1, 4.7.3).
_DIVERGED = (
    "the state of this topic's stream is not a finite number any more, and no later answer will be one; it does not "
    "stay bounded when its state is carried on. Answer on the last inputs only (--window T)"
)
# Looks for streams to forget, in the time after which one is forgotten: what is late by so little does no harm.
_LOOKS = 20


@dataclass(frozen=True)
class Topics:
    """Where messages come from and go to.

    Attributes:
        subscription: the topics of messages.
        answers: where each is answered.
        errors: where malformed ones are reported.
    """

    subscription: Subscription
    answers: TopicTemplate
    errors: TopicTemplate


@dataclass(frozen=True)
class Keeping:
    """How long streams are kept, and where.

    Attributes:
        idle: seconds after which an unused stream leaves memory.
        forget: seconds after which it is dropped; None keeps it for ever.
        save_every: seconds between two saves, at least.
        restart: the sequence number with which a sensor begins anew; None if none does.
    """

    idle: float = 600.0
    forget: float | None = None
    save_every: float = 0.0
    restart: int | None = None


@dataclass
class Counts:
    """What was done so far.

    Attributes:
        messages: those that stepped a stream.
        duplicates: those that came again.
        malformed: those that were reported.
        ignored: retained ones, and those of other topics.
    """

    messages: int = 0
    duplicates: int = 0
    malformed: int = 0
    ignored: int = 0


@dataclass(slots=True)
class _Open:
    """A message that is not acknowledged yet.

    Attributes:
        message: it.
        answer: the one that is kept of it, if its topic keeps one.
        save: number of the save that must be on disk first.
        confirmed: whether the broker has all that was published on account of it.
    """

    message: Message
    answer: Answer | None = None
    save: int = 0
    confirmed: bool = False

    def confirm(self) -> None:
        self.confirmed = True


class Service:
    """Answers the messages of a subscription until it is interrupted."""

    def __init__(
        self,
        store: StreamStore,
        connection: Connection,
        topics: Topics,
        reader: PayloadReader,
        keeping: Keeping,
        heartbeat: Heartbeat,
    ) -> None:
        """Prepare.

        Args:
            store: the streams.
            connection: to the broker.
            topics: where messages come from and go to.
            reader: of what they hold.
            keeping: how long streams are kept.
            heartbeat: to say what was done.
        """
        self.counts = Counts()
        self._store, self._connection, self._topics, self._reader = store, connection, topics, reader
        self._keeping, self._heartbeat = keeping, heartbeat
        self._open: deque[_Open] = deque()
        # Of messages that are acknowledged, but the broker may not have heard of it.
        self._unheard: deque[Answer] = deque()
        self._losses = 0
        self._warned = False
        self._unsaved = 0
        self._saved_at, self._looked_at, self._forgot_at = -math.inf, 0.0, -math.inf

    def run(self, stop: Interrupt) -> None:
        """Answer until interrupted; then save, acknowledge and leave.

        Raises:
            InputError: the broker refuses, or the states cannot be written.
        """
        while not stop.requested:
            ready = self._connection.turn(self._patience(), self._store.fileno(), stop.wake)
            self._take_messages()
            self._store.reap()
            if -1 not in ready or self._unsaved >= _MOST_UNSAVED:
                self._save_if_due()
            self._acknowledge()
            self._let_go()
        self._end()

    def _take_messages(self) -> None:
        self._notice_loss()
        received = self._connection.received
        while received:
            self._take(received.popleft())

    def _notice_loss(self) -> None:
        """What was not acknowledged on a connection that ended, as far as the broker knows, comes again on the next."""
        if self._connection.losses == self._losses:
            return
        self._losses = self._connection.losses
        self._open.clear()
        for answer in self._unheard:
            if (answer.acknowledged or 0) > self._connection.confirmed:
                answer.acknowledged = None
        self._unheard.clear()

    def _take(self, message: Message) -> None:
        entry = _Open(message)
        if message.qos:
            self._open.append(entry)
        matched = None if message.topic is None else self._topics.subscription.match(message.topic)
        if message.topic is None or matched is None or message.retain:
            self.counts.ignored += 1
            entry.confirm()
            return
        try:
            reading = self._reader.read(message.payload)
        except InputError as error:
            self._report(entry, matched, str(error), None)
            return
        try:
            record = self._store.record(message.topic)
        except NoRoomError as error:
            self._report(entry, matched, str(error), reading.sequence)
            return
        if record.notice is not None:
            self._send(self._topics.errors, matched, _error(message.topic, record.notice, reading.sequence))
            record.notice = None
        digest = _digest(message.payload, reading)
        confirmed = self._connection.confirmed
        seen, answer = record.seen(message.mid, message.dup, digest, reading.sequence, confirmed, self._keeping.restart)
        if seen is Seen.CONFLICT:
            self._report(entry, matched, _conflict(reading.sequence), reading.sequence)
            return
        if answer is not None:
            self.counts.duplicates += 1
            if reading.sequence is not None and answer.sequence != reading.sequence and answer.digest != digest:
                text = (
                    f"the last number was {record.sequence}, so {reading.sequence} was taken for a repetition; if the "
                    "sensor counts anew, --sequence-reset starts its stream again"
                )
                self._send(self._topics.errors, matched, _error(message.topic, text, reading.sequence))
        else:
            try:
                payload = self._step(record, reading, seen is Seen.RESTART)
            except InputError as error:
                self._report(entry, matched, str(error), reading.sequence)
                return
            self.counts.messages += 1
            self._unsaved += 1
            answer = Answer(message.mid, digest, reading.sequence, payload, None if message.qos else 0)
            record.add(answer, confirmed)
            self._store.changed(record)
        entry.answer, entry.save = answer, record.save
        if answer.payload is None:
            entry.confirm()
        elif answer.payload:
            self._send(self._topics.answers, matched, answer.payload, entry)
        else:
            self._send(self._topics.errors, matched, _error(message.topic, _DIVERGED, answer.sequence), entry)

    def _step(self, record: Record, reading: Reading, anew: bool) -> bytes | None:
        if anew:
            # A reading that does not fit changes nothing, so it is tried on another stream first.
            self._store.try_out(reading.values)
            record.begin_anew()
            note(f"{record.topic[:200]}: its numbers start again at {reading.sequence}, and its stream from zero state")
        if record.diverged:
            return b""
        with self._heartbeat.step():
            y = record.stream.step(reading.values)
        if y is None:
            return None
        if np.isfinite(y).all() or record.stream.healthy:
            return self._reader.answer(reading, y)
        record.diverged = True
        return b""

    def _report(self, entry: _Open, matched: tuple[str, ...], text: str, sequence: int | None) -> None:
        self.counts.malformed += 1
        self._send(self._topics.errors, matched, _error(str(entry.message.topic), text, sequence), entry)

    def _send(
        self, template: TopicTemplate, matched: tuple[str, ...], payload: bytes, entry: _Open | None = None
    ) -> None:
        topic = template.topic(matched)
        fits = 0 < len(topic.encode()) <= _LONGEST_TOPIC
        if fits and self._topics.subscription.match(topic) is None:
            self._connection.publish(topic, payload, None if entry is None else entry.confirm)
            return
        # The template was checked, but a sensor's name can make what it likes of it.
        if not self._warned:
            why = "which is read here" if fits else "which is no topic"
            note(f"nothing is published to {topic[:200]!r}, {why}")
            self._warned = True
        if entry is not None:
            entry.confirm()

    def _patience(self) -> float:
        """Seconds to wait for something to happen."""
        if not self._store.unsaved or self._store.saving:
            return _HOUSEKEEPING
        return min(_HOUSEKEEPING, max(0.0, self._saved_at + self._keeping.save_every - time.monotonic()))

    def _save_if_due(self) -> None:
        now = time.monotonic()
        if self._store.unsaved and not self._store.saving and now - self._saved_at >= self._keeping.save_every:
            self._store.begin_save()
            self._saved_at, self._unsaved = now, 0

    def _acknowledge(self) -> None:
        """Acknowledge, in the order in which they came (MQTT 3.1.1, 4.6), what is saved and answered."""
        self._notice_loss()
        while self._open and self._open[0].confirmed and self._open[0].save <= self._store.saved:
            entry = self._open.popleft()
            number = self._connection.acknowledge(entry.message)
            if entry.answer is not None:
                entry.answer.acknowledged = number
                self._unheard.append(entry.answer)
        while self._unheard and (self._unheard[0].acknowledged or 0) <= self._connection.confirmed:
            self._unheard.popleft()

    def _let_go(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= _HOUSEKEEPING:
            self._looked_at = now
            self._store.evict_idle(self._keeping.idle)
            forget = self._keeping.forget
            if forget is not None and now - self._forgot_at >= forget / _LOOKS:
                self._forgot_at = now
                self._store.forget(forget)

    def _end(self) -> None:
        self._store.save()
        until = time.monotonic() + _PARTING
        self._acknowledge()
        while self._open and self._connection.connected and time.monotonic() < until:
            self._connection.turn(0.1)
            self._connection.received.clear()  # Neither stepped nor acknowledged: they come again.
            self._acknowledge()
        self._connection.close()


def _digest(payload: bytes, reading: Reading) -> bytes:
    """Of a message's content; with a number, of what the model sees of it, for a sender may write it anew."""
    content = payload if reading.sequence is None else repr((reading.sequence, list(reading.values))).encode()
    return hashlib.blake2b(content, digest_size=8).digest()


def _conflict(sequence: int | None) -> str:
    return (
        f"number {sequence} came before with other values, so this is no repetition, and it is not answered; each "
        "reading needs a number of its own. If the sensor counts anew, --sequence-reset starts its stream again"
    )


def _error(topic: str, text: str, sequence: int | None) -> bytes:
    report = {"topic": topic, "error": text if len(text) <= 500 else text[:500] + " …"}
    if sequence is not None:
        return json.dumps({**report, "sequence": sequence}).encode()
    return json.dumps(report).encode()
