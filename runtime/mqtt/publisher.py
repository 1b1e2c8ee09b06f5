"""Answers to what is read from a file or a port, published on one topic."""

from __future__ import annotations

from ..interrupt import Interrupt
from ..notes import note
from .connection import Connection

# Answers that are held while the broker is away.
_MOST_HELD = 10_000


class Publisher:
    """Publishes lines on a topic, and keeps the connection up while its caller waits for input."""

    def __init__(self, connection: Connection, topic: str, stop: Interrupt, patient: bool) -> None:
        """Publish on a topic.

        Args:
            connection: to the broker.
            topic: where to publish.
            stop: the interruption that ends waiting.
            patient: whether the input can wait while the broker is away. A serial port cannot: what it sends
                meanwhile would be lost, and the state wrong. Then the oldest answers are given up instead.
        """
        self._connection, self._topic, self._stop, self._patient = connection, topic, stop, patient
        self._dropped = 0

    def write(self, line: str) -> None:
        """Publish a line."""
        connection = self._connection
        while connection.unpublished >= _MOST_HELD and not self._stop.requested:
            if not self._patient and connection.drop_oldest():
                self._dropped += 1
                if self._dropped == 1:
                    note(f"the broker is away for too long; of {_MOST_HELD} answers that wait, the oldest are dropped")
            else:
                connection.turn(1.0, self._stop.wake)
        connection.publish(self._topic, line.encode())

    def wait(self, file: int) -> bool:
        """Wait until a file descriptor can be read; False if an interruption comes first."""
        while not self._stop.requested:
            if file in self._connection.turn(1.0, file, self._stop.wake):
                return not self._stop.requested
        return False

    def finish(self) -> None:
        """Wait until the broker has all, or an interruption comes."""
        while self._connection.unpublished and not self._stop.requested:
            self._connection.turn(1.0, self._stop.wake)

    def close(self) -> None:
        """Leave, with a last few seconds for what the broker does not have yet."""
        lost = self._connection.close() + self._dropped
        if lost:
            note(f"{lost} answers were not published")
