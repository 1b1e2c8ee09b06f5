"""The heartbeat of a service: what it tells systemd and when it does not, and the figures of its report."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
from edgelstm.runtime.errors import InputError
from edgelstm.runtime.heartbeat import Heartbeat


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


def test_it_says_that_it_is_ready_alive_and_stopping(notified):
    with Heartbeat(environment=environment(notified, WATCHDOG_USEC="150000")) as heartbeat:
        assert notified.recv(4096) == b"READY=1"
        for _ in range(3):
            with heartbeat.step():
                pass
            assert notified.recv(4096).decode().startswith("WATCHDOG=1\nSTATUS=")
        time.sleep(0.1)
        assert drained(notified)[-1].endswith("STATUS=3 timesteps since the start")
    assert drained(notified)[-1] == "STOPPING=1"


def test_a_step_that_hangs_gets_no_ping(notified):
    """Or systemd would never restart it."""
    with Heartbeat(environment=environment(notified, WATCHDOG_USEC="300000")) as heartbeat:
        with heartbeat.step():
            time.sleep(0.25)
            drained(notified)
            time.sleep(0.6)
            assert drained(notified) == []
        notified.settimeout(5)
        assert notified.recv(4096).startswith(b"WATCHDOG=1")


def test_waiting_for_input_is_no_hanging(notified):
    with Heartbeat(environment=environment(notified, WATCHDOG_USEC="150000")):
        time.sleep(0.6)
        assert sum(message.startswith("WATCHDOG=1") for message in drained(notified)) >= 5


def test_an_abstract_socket(tmp_path):
    name = f"\0edgelstm-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        receiver.settimeout(5)
        with Heartbeat(environment={"NOTIFY_SOCKET": "@" + name[1:]}):
            assert receiver.recv(4096) == b"READY=1"


def test_a_watchdog_meant_for_another_process_is_left_alone(notified):
    other = environment(notified, WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    with Heartbeat(environment=other):
        time.sleep(0.3)
    assert drained(notified) == ["READY=1", "STOPPING=1"]


def test_without_systemd_it_is_silent_and_has_no_thread(tmp_path):
    with Heartbeat(environment={}) as heartbeat, heartbeat.step():
        pass


def test_the_report(tmp_path):
    report = tmp_path / "report.json"
    before = round(time.time(), 3)
    with Heartbeat(report, {"backend": "native"}, environment={}) as heartbeat:
        at_start = json.loads(report.read_text())
        assert (at_start["steps"], at_start["step_us"]) == (0, {"p50": None, "p99": None})
        for i in range(100):
            with heartbeat.step():
                time.sleep(0.003 if i % 50 == 0 else 0.0005)
    figures = json.loads(report.read_text())
    assert figures["steps"] == 100
    assert (figures["backend"], figures["pid"]) == ("native", os.getpid())
    assert before <= figures["written"] <= round(time.time(), 3)
    assert 0.05 <= figures["up"] <= time.time() - before + 0.01
    # What was slept, and what sleeping takes besides.
    assert 500 <= figures["step_us"]["p50"] < 3000 <= figures["step_us"]["p99"]
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
