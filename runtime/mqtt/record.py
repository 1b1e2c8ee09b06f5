"""What is kept of a topic, and how a message that comes again is recognised."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..stream import Stream


@dataclass(slots=True)
class Answer:
    """What was answered to a message, and what identifies that message.

    Attributes:
        mid: packet identifier of the message.
        digest: of its content.
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
    """

    topic: str
    stream: Stream
    sequence: int | None = None
    answers: list[Answer] = field(default_factory=list[Answer])
    save: int = 0
    used: float = 0.0

    def earlier(self, mid: int, dup: bool, digest: bytes, sequence: int | None, confirmed: int) -> Answer | None:
        """The answer that was given to a message already, or None if the message is new.

        With a sequence number that is no higher than the last one it is not new; the answer to it is given or, if
        that is long gone, the last one. Without, it is known by its identifier and content, among those of which the
        broker may not know that they were taken.
        """
        if sequence is not None:
            if self.sequence is None or sequence > self.sequence:
                return None
            return next((a for a in self.answers if a.sequence == sequence), self.answers[-1])
        if not dup:
            return None
        return next(
            (a for a in self.answers if (a.mid, a.digest) == (mid, digest) and not _settled(a, confirmed)), None
        )

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
