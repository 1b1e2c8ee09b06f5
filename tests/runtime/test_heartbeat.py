"""The heartbeat of a service: what it tells systemd and when it does not, and the figures of its report."""

from __future__ import annotations

import json
import os
import socket
import threading
from threading import Thread
from types import SimpleNamespace

import pytest
from edgelstm.runtime.errors import InputError
from edgelstm.runtime.heartbeat import Heartbeat

from tests.waiting import until


@pytest.fixture
def notified(tmp_path):
    """A socket as systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def environment(notified: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": notified.getsockname(), **more}


def drained(notified: socket.socket) -> list[str]:
    notified.setblocking(False)
    found = []
    try:
        while True:
            found.append(notified.recv(4096).decode())
    except BlockingIOError:
        return found


class Rounds(threading.Event):
    """The event that ends a heartbeat, which counts the rounds that are over and keeps how long each was to be."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        return super().wait(timeout)

    def go_on(self, rounds: int) -> None:
        """Wait until so many have begun and ended from now on."""
        last = len(self.pauses) + rounds + 1
        until(lambda: len(self.pauses) >= last, f"{rounds} rounds of the heartbeat")


@pytest.fixture
def rounds(monkeypatch) -> Rounds:
    """Those of the next heartbeat."""
    made = Rounds()
    monkeypatch.setattr("edgelstm.runtime.heartbeat.threading", SimpleNamespace(Event=lambda: made, Thread=Thread))
    return made


def test_it_says_that_it_is_ready_alive_and_stopping(notified):
    with Heartbeat(environment=environment(notified, WATCHDOG_USEC="150000")) as heartbeat:
        assert notified.recv(4096) == b"READY=1"
        for _ in range(3):
            with heartbeat.step():
                pass
            assert notified.recv(4096).decode().startswith("WATCHDOG=1\nSTATUS=")
        while not (said := notified.recv(4096).decode()).endswith("STATUS=3 timesteps since the start"):
            assert said.startswith("WATCHDOG=1\nSTATUS=")
    assert drained(notified)[-1] == "STOPPING=1"


def test_a_step_that_hangs_gets_no_ping(notified, rounds):
    """Or systemd would never restart it."""
    with Heartbeat(environment=environment(notified, WATCHDOG_USEC="300000")) as heartbeat:
        with heartbeat.step():
            rounds.go_on(3)  # Of a tenth of a second: half of the watchdog's time is over.
            drained(notified)
            rounds.go_on(5)
            assert drained(notified) == []
        notified.settimeout(5)
        assert notified.recv(4096).startswith(b"WATCHDOG=1")


def test_waiting_for_input_is_no_hanging(notified, rounds):
    with Heartbeat(environment=environment(notified, WATCHDOG_USEC="150000")):
        assert notified.recv(4096) == b"READY=1"
        for _ in range(5):
            assert notified.recv(4096).startswith(b"WATCHDOG=1")
    assert max(rounds.pauses) <= 0.15 / 2  # As systemd's manual advises.


def test_an_abstract_socket(tmp_path):
    name = f"\0edgelstm-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        receiver.settimeout(5)
        with Heartbeat(environment={"NOTIFY_SOCKET": "@" + name[1:]}):
            assert receiver.recv(4096) == b"READY=1"


def test_a_watchdog_meant_for_another_process_is_left_alone(notified, rounds, monkeypatch):
    monkeypatch.setattr("edgelstm.runtime.heartbeat.REPORT_SECONDS", 0.05)
    other = environment(notified, WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    with Heartbeat(environment=other):
        rounds.go_on(4)
    assert drained(notified) == ["READY=1", "STOPPING=1"]


def test_without_systemd_it_is_silent_and_has_no_thread(tmp_path):
    with Heartbeat(environment={}) as heartbeat, heartbeat.step():
        pass


class Clock:
    """A clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1.7e9


def test_the_report(tmp_path, monkeypatch):
    clock, report = Clock(), tmp_path / "report.json"
    monkeypatch.setattr("edgelstm.runtime.heartbeat.time", clock)
    with Heartbeat(report, {"backend": "native"}, environment={}) as heartbeat:
        at_start = json.loads(report.read_text())
        assert (at_start["steps"], at_start["step_us"]) == (0, {"p50": None, "p99": None})
        for i in range(100):
            with heartbeat.step():
                clock.now += 0.003 if i % 50 == 0 else 0.0005
    figures = json.loads(report.read_text())
    assert figures["steps"] == 100
    assert (figures["backend"], figures["pid"]) == ("native", os.getpid())
    assert figures["written"] == pytest.approx(clock.time(), abs=1e-3)
    assert figures["up"] == pytest.approx(98 * 0.0005 + 2 * 0.003, abs=1e-3)
    assert figures["step_us"] == pytest.approx({"p50": 500, "p99": 3000})
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_step_that_fails_is_not_counted(tmp_path):
    with Heartbeat(environment={}) as heartbeat:
        with pytest.raises(ValueError, match="bad"), heartbeat.step():
            raise ValueError("bad")
        assert heartbeat.figures()["steps"] == 0


def test_a_report_that_cannot_be_written_is_said_at_once(tmp_path):
    nowhere = tmp_path / "nowhere" / "report.json"
    with pytest.raises(InputError, match="the report cannot be written"), Heartbeat(nowhere, environment={}):
        pass
