"""What an answer over MQTT costs: the way to a broker and back alone, and with `edgelstm-run` in between, in turn."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.bundle import Bundle
from ..runtime.errors import BackendUnavailableError, InputError
from ..runtime.mqtt.broker import broker
from ..runtime.mqtt.connection import Connection

_PATIENCE = 10.0  # Seconds for any one message.
_WARM_UP = 100


@dataclass(frozen=True)
class RoundTrip:
    """µs from before publishing to the answer in hand, at QoS 1, one message at a time.

    Attributes:
        messages: that were timed, of each kind.
        echo_p50: to the broker and back alone.
        echo_p99: the same.
        answer_p50: with a model that answers and keeps its state.
        answer_p99: the same.
    """

    messages: int
    echo_p50: float
    echo_p99: float
    answer_p50: float
    answer_p99: float


def measure_round_trip(path: Path, url: str, messages: int) -> RoundTrip:
    """Time messages over a broker.

    Args:
        path: of the bundle.
        url: of the broker, which has to take anonymous clients.
        messages: to time.

    Raises:
        EdgeLSTMError: the broker cannot be reached, or the service does not answer.
    """
    prefix = f"edgelstm-bench/{secrets.token_hex(4)}"
    payload = json.dumps(Bundle.open(path).golden().inputs[0].tolist()).encode()
    with _serving(path, url, prefix):
        address = broker(url, None, None, None, None)
        connection = Connection(address, secrets.token_hex(8), subscribe=f"{prefix}/back", announce=False)
        try:
            until = time.monotonic() + _PATIENCE
            while not connection.subscribed and time.monotonic() < until:
                connection.turn(0.1)
            echoes: list[float] = []
            answers: list[float] = []
            for _ in range(_WARM_UP + messages):
                echoes.append(_time(connection, f"{prefix}/back", payload))
                answers.append(_time(connection, f"{prefix}/in", payload))
        finally:
            connection.close()
    times = [np.percentile(kind[_WARM_UP:], share) * 1e6 for kind in (echoes, answers) for share in (50, 99)]
    return RoundTrip(messages, *(round(float(each), 1) for each in times))


def _time(connection: Connection, topic: str, payload: bytes) -> float:
    begin = time.perf_counter()
    connection.publish(topic, payload)
    while not connection.received:
        connection.turn(0.1)
        if time.perf_counter() - begin > _PATIENCE:
            raise InputError(f"no answer on the broker within {_PATIENCE:.0f} s")
    taken = time.perf_counter() - begin
    connection.acknowledge(connection.received.popleft())
    return taken


@contextmanager
def _serving(path: Path, url: str, prefix: str) -> Generator[None]:
    """The service in a process of its own, with a folder for its states."""
    with tempfile.TemporaryDirectory(prefix="edgelstm-") as folder:
        topics = ["--subscribe", f"{prefix}/in", "--publish", f"{prefix}/back", "--errors", f"{prefix}/error"]
        command = [sys.executable, "-m", "edgelstm.runtime.cli", "run", str(path), "--carry", "--mqtt", url, *topics]
        process = subprocess.Popen([*command, "--state", folder], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said: list[str] = []
        try:
            while not any("listening" in line for line in said):
                line = process.stderr.readline().decode()
                if not line or "trying again" in line:
                    words = (line or "".join(said[-1:]) or "the service ended").strip().rpartition("edgelstm: ")[2]
                    raise BackendUnavailableError(f"{url}: {words}")
                said.append(line)
            yield
        finally:
            process.terminate()
            process.communicate()
