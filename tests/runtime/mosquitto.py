"""A mosquitto of the test's own on a free loopback port, and a client to talk to it."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt

from tests.engine.toolchain import find
from tests.waiting import until

# Nothing is dropped while a reader is away, all is kept over a restart, and small packets do not wait.
SETTINGS = "persistence true\nmax_queued_messages 0\nset_tcp_nodelay true\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """A broker as a process, which can be stopped and started again where it was."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true\n") -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        # As root it would change to a user of its own, who may not write here.
        text = f"user root\nlistener {self.port} 127.0.0.1\n{SETTINGS}persistence_location {folder}/\n{settings}"
        (folder / "mosquitto.conf").write_text(text)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        with (self._folder / "log").open("ab") as log:
            command = [str(find("mosquitto")), "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, "mosquitto answers")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, (self._folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Peer:
    """A client of the broker: publishes, and keeps what comes, by topic."""

    def __init__(
        self, broker: Mosquitto, *topics: str, name: str = "", prepare: Callable[[mqtt.Client], None] = id
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.distinct: set[tuple[str, bytes]] = set()
        self.subscribed = False
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, clean_session=not name)
        client.on_message = self._keep
        client.on_connect = lambda *_: [client.subscribe(topic, 1) for topic in topics]
        client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.max_inflight_messages_set(0)
        client.reconnect_delay_set(1, 1)
        prepare(client)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        self.client = client
        until(client.is_connected, "the test's client is connected")
        if topics:
            until(lambda: self.subscribed, "the test's client is subscribed")

    def _keep(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.received.append((message.topic, message.payload))
        self.distinct.add(self.received[-1])

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        self.client.publish(topic, payload, 1, retain).wait_for_publish(30)

    def on(self, topic: str) -> list[bytes]:
        return [payload for where, payload in list(self.received) if where == topic]

    def wait(self, topic: str, count: int) -> list[bytes]:
        until(lambda: len(self.on(topic)) >= count, f"{count} messages on {topic}")
        return self.on(topic)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
