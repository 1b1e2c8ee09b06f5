"""What is kept of a topic, and how a message that comes again is recognised."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..stream import Stream


class Seen(Enum):
    """What a message is: new, one that was answered, the first after a restart of its sensor, or none of these."""

    NEW = 0
    AGAIN = 1
    RESTART = 2
    CONFLICT = 3


@dataclass(slots=True)
class Answer:
    """What was answered to a message, and what identifies that message.

    Attributes:
        mid: packet identifier of the message.
        digest: of its content; empty where that is not known, of a store of an earlier version.
        sequence: its sequence number, or None.
        payload: the answer; None where none was due, empty where the model had none that is a finite number.
        acknowledged: number of the acknowledgement of the message, as `Connection.acknowledge` counts; None before.
    """

    mid: int
    digest: bytes
    sequence: int | None
    payload: bytes | None
    acknowledged: int | None = None


@dataclass(slots=True)
class Record:
    """What is kept of a topic.

    Attributes:
        topic: its name.
        stream: its stream.
        sequence: the last sequence number, or None before the first.
        answers: the latest, oldest first.
        save: number of the save that has its latest change; 0 where it comes from disk.
        used: when it was last used, in seconds of the monotonic clock.
        diverged: whether the stream's state is not a finite number any more.
        fresh: whether nothing of it was ever to be saved.
        notice: what is to be reported of damage to it, once.
    """

    topic: str
    stream: Stream
    sequence: int | None = None
    answers: list[Answer] = field(default_factory=list[Answer])
    save: int = 0
    used: float = 0.0
    diverged: bool = False
    fresh: bool = False
    notice: str | None = None

    def seen(
        self, mid: int, dup: bool, digest: bytes, sequence: int | None, confirmed: int, restart: int | None
    ) -> tuple[Seen, Answer | None]:
        """What a message is, and the answer that was given to it or to the one it is in conflict with.

        With a sequence number that is no higher than the last one it is not new; the answer to it is given or, if
        that is long gone, the last one. If what it holds is not what the message of that number held, it is in
        conflict. Without a number, it is known by its identifier and content, among those of which the broker may not
        know that they were taken; so is one from before a restart.

        Args:
            mid: its packet identifier.
            dup: whether the broker sent it before.
            digest: of its content.
            sequence: its number, or None.
            confirmed: how many acknowledgements the broker is known to have.
            restart: the number with which a sensor begins anew; None if none does.
        """
        if dup:
            for answer in self.answers:
                unnumbered = answer.sequence is None and (answer.mid, answer.digest) == (mid, digest)
                if unnumbered and not _settled(answer, confirmed):
                    return Seen.AGAIN, answer
        if sequence is None or self.sequence is None or sequence > self.sequence:
            return Seen.NEW, None
        of_that_number = [answer for answer in self.answers if answer.sequence == sequence]
        for answer in of_that_number:
            if answer.digest in (digest, b""):
                return Seen.AGAIN, answer
        if sequence == restart:
            return Seen.RESTART, None
        if of_that_number:
            return Seen.CONFLICT, of_that_number[-1]
        return Seen.AGAIN, self.answers[-1]

    def begin_anew(self) -> None:
        """Back to zero state and before the first number; what may still come again of the numbers before is known."""
        self.stream.reset()
        self.diverged, self.sequence = False, None
        for answer in self.answers:
            answer.sequence = None

    def add(self, answer: Answer, confirmed: int) -> None:
        """Add the newest answer, and drop those to messages that cannot come again.

        A broker sends the messages of a topic in order: if one of them is settled, so are those before it.
        """
        for i in reversed(range(len(self.answers))):
            if _settled(self.answers[i], confirmed):
                del self.answers[: i + 1]
                break
        self.answers.append(answer)
        if answer.sequence is not None:
            self.sequence = answer.sequence


def _settled(answer: Answer, confirmed: int) -> bool:
    return answer.acknowledged is not None and answer.acknowledged <= confirmed
