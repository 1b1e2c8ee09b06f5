"""A broker that does what a test says, packet by packet, as MQTT 3.1.1 has them; it shares nothing with a client."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass

import numpy as np

TOPIC = "plant/7/in"
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PING, _PONG = 1, 2, 3, 4, 8, 9, 12, 13


@dataclass(frozen=True)
class Publish:
    """What a client published."""

    topic: str
    payload: bytes
    mid: int
    dup: bool


class ScriptedBroker:
    """One connection at a time, on a free loopback port."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self._connection: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self, session_present: bool) -> None:
        """Take a connection, and what a client does first: it connects and subscribes."""
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(20)
        kind, _, _ = self._packet()
        assert kind == _CONNECT
        self._connection.sendall(bytes([_CONNACK << 4, 2, session_present, 0]))
        again = []
        while (packet := self._packet())[0] != _SUBSCRIBE:
            # What it published on the last connection without our having confirmed that comes first.
            again.append(packet)
        assert [kind for kind, _, _ in again] == [_PUBLISH] * len(again)
        self._connection.sendall(bytes([_SUBACK << 4, 3, *packet[2][:2], 1]))

    def drop(self) -> None:
        """End the connection without a word."""
        assert self._connection is not None
        self._connection.close()

    def send(self, topic: str, payload: bytes, mid: int, dup: bool = False, retain: bool = False) -> None:
        """Publish to the client at QoS 1."""
        assert self._connection is not None
        body = struct.pack(">H", len(topic)) + topic.encode() + struct.pack(">H", mid) + payload
        assert len(body) < 16384
        head = bytes([_PUBLISH << 4 | dup << 3 | 1 << 1 | retain, len(body) & 127 | 128, len(body) >> 7])
        self._connection.sendall(head + body)

    def answer(self) -> Publish:
        """The next packet, which is to be something published."""
        kind, flags, body = self._packet()
        assert kind == _PUBLISH
        at = 2 + int.from_bytes(body[:2], "big")
        mid = int.from_bytes(body[at : at + 2], "big")
        return Publish(body[2:at].decode(), body[at + 2 :], mid, bool(flags & 8))

    def confirm(self, publish: Publish) -> None:
        """Confirm that we have what the client published."""
        assert self._connection is not None
        self._connection.sendall(bytes([_PUBACK << 4, 2]) + struct.pack(">H", publish.mid))

    def acknowledged(self) -> int:
        """The next packet, which is to be an acknowledgement: of which message."""
        kind, _, body = self._packet()
        assert kind == _PUBACK
        return int.from_bytes(body, "big")

    def silent(self, seconds: float = 0.4) -> bool:
        """Whether the client sends nothing for a while."""
        assert self._connection is not None
        self._connection.settimeout(seconds)
        try:
            assert self._connection.recv(1, socket.MSG_PEEK), "the client has gone"
            return False
        except TimeoutError:
            return True
        finally:
            self._connection.settimeout(20)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()

    def _packet(self) -> tuple[int, int, bytes]:
        while True:
            head = self._bytes(1)[0]
            size = shift = 0
            while True:
                byte = self._bytes(1)[0]
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = self._bytes(size)
            if head >> 4 != _PING:
                return head >> 4, head & 15, body
            assert self._connection is not None
            self._connection.sendall(bytes([_PONG << 4, 0]))

    def _bytes(self, count: int) -> bytes:
        assert self._connection is not None
        data = b""
        while len(data) < count:
            more = self._connection.recv(count - len(data))
            assert more, "the client has gone"
            data += more
        return data


def message(x: np.ndarray, sequence: int | None = None) -> bytes:
    fields = {"a": float(x[0]), "b": float(x[1]), "c": float(x[2])}
    return json.dumps(fields if sequence is None else {"seq": sequence, **fields}).encode()


def numbers(payload: bytes) -> list[float]:
    answer = json.loads(payload)
    return [answer["u"], answer["v"]]


def close(payload: bytes, want: np.ndarray) -> bool:
    return bool(np.allclose(numbers(payload), want, atol=2e-6))


def exchange(broker: ScriptedBroker, payload: bytes, mid: int, dup: bool = False, topic: str = TOPIC) -> bytes:
    """A message, its answer, the confirmation of that, and the acknowledgement of the message."""
    broker.send(topic, payload, mid, dup)
    answer = broker.answer()
    assert answer.topic == topic.removesuffix("in") + "out", answer.payload
    broker.confirm(answer)
    assert broker.acknowledged() == mid
    return answer.payload


def reported(broker: ScriptedBroker, topic: str = TOPIC) -> str:
    """The next packet, which is to be an error on a topic."""
    report = broker.answer()
    assert report.topic == topic.removesuffix("in") + "out/error", report.payload
    broker.confirm(report)
    return json.loads(report.payload)["error"]
