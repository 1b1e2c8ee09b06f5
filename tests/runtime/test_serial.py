"""Timesteps from a serial port, here a pseudo-terminal, and answers to an MQTT topic."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime import load
from edgelstm.runtime.serial_port import _SILENCE

from tests.engine.toolchain import require
from tests.runtime.command_line import COMMAND, call, refused
from tests.runtime.mosquitto import Mosquitto, Peer
from tests.runtime.served import Served
from tests.runtime.test_run_command import csv, numbers
from tests.waiting import until


class Port:
    """A pseudo-terminal; the command has the one end, the test the other."""

    def __init__(self) -> None:
        self.end, self._other = os.openpty()
        self.name = os.ttyname(self._other)

    def opened_by(self, process: subprocess.Popen[bytes], report: Path) -> None:
        """Wait until a process says by its report that it has opened it; then be silent for as long as it takes for
        what comes to be whole."""

        def is_open() -> bool:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            return report.exists()

        until(is_open, "the port is opened")
        silent_until = time.monotonic() + _SILENCE
        until(lambda: time.monotonic() > silent_until, "the silence is over")

    def write(self, data: str | bytes) -> None:
        data = data.encode() if isinstance(data, str) else data
        while data:
            data = data[os.write(self.end, data) :]

    def vanish(self) -> None:
        os.close(self._other)
        os.close(self.end)


@pytest.fixture
def port():
    return Port()


@pytest.fixture
def start(bundle, port, tmp_path):
    running: list[subprocess.Popen[bytes]] = []

    def run(*options: object) -> subprocess.Popen[bytes]:
        report = tmp_path / f"report-{len(running)}"
        command = [*COMMAND, bundle, "--input", port.name, "--baud", 115200, "--report", report, *options]
        process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        running.append(process)
        port.opened_by(process, report)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[bytes], count: int) -> str:
    return b"".join(process.stdout.readline() for _ in range(count)).decode()


def test_lines_are_answered_as_they_come(start, port, xs, expected):
    process = start()
    for x, want in zip(xs[:20], expected, strict=False):
        port.write(csv([x]))
        np.testing.assert_allclose(numbers(lines(process, 1))[0], want, atol=2e-6)
    port.write(csv(xs[20:]).replace("\n", "\r\n"))
    np.testing.assert_allclose(numbers(lines(process, len(xs) - 20)), expected[20:], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cut", [".5,1.25\n", ",3\n", "\n", '"b": 1, "c": 2}\n', "mp,humidity,b,c\n", b"\x81\xfe\x00,1\n", b"\xff.5,1,2\n"]
)
def test_a_first_line_that_is_cut_off_is_left_out(start, port, xs, expected, cut):
    process = start()
    port.write(cut)
    port.write(csv(xs[:10]))
    np.testing.assert_allclose(numbers(lines(process, 10)), expected[:10], atol=2e-6)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stderr.read().count(b"the first line is left out") == (cut != "\n")


def test_joining_in_the_middle_of_a_line_takes_no_half_number(start, bundle, port):
    # The end of a line, such as 34,1.567,1.890 of 1.234,1.567,1.890, would be a line too.
    rows = np.random.default_rng(6).integers(0, 1000, (100_000, 3))
    stop = threading.Event()

    def send() -> None:
        for a, b, c in rows.tolist():
            port.write(f"1.{a:03},1.{b:03},1.{c:03}\n")
            if stop.is_set():
                return

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    process = start()
    got = numbers(lines(process, 50))
    stop.set()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert b"the first line is left out" in said
    # From some line on, and that one whole, it has taken all.
    xs, stream = (1 + rows / 1000).astype(np.float32), load(bundle).stream()
    answers = []
    for k in range(5000):
        stream.reset()
        answers.append(stream.run(xs[k : k + 50]))
    assert np.abs(np.array(answers) - got).max((1, 2)).min() < 2e-6


def test_a_header_and_json_show_that_they_are_whole(start, port, xs, expected):
    process = start()
    port.write("c,a,b\n" + "".join(f"{c},{a},{b}\n" for a, b, c in xs[:10]))
    assert lines(process, 1) == "u,v\n"
    np.testing.assert_allclose(numbers(lines(process, 10)), expected[:10], atol=2e-6)


def test_a_port_that_vanishes_ends_it_with_the_state_saved(start, port, bundle, xs, expected, tmp_path):
    process = start("--state", tmp_path / "state")
    port.write(csv(xs[:10]))
    lines(process, 10)
    port.vanish()
    assert process.wait(10) == 2
    said = process.stderr.read().decode()
    assert f"{port.name}: the port is gone" in said
    assert "Traceback" not in said
    done = call(bundle, "--state", tmp_path / "state", stdin=csv(xs[10:20]))
    np.testing.assert_allclose(numbers(done.stdout), expected[10:20], atol=2e-6)


def test_bad_lines_stop_it_or_are_skipped(start, port, xs, expected):
    process = start("--skip-bad")
    port.write(csv(xs[:5]) + "1,2\n1,\xff,3\n" + csv(xs[5:10]))
    np.testing.assert_allclose(numbers(lines(process, 10)), expected[:10], atol=2e-6)
    process.kill()
    process = start()
    port.write(csv(xs[:1]) + "1,2\n")
    assert process.wait(10) == 2
    assert b"line 2: 2 values where 3 belong" in process.stderr.read()


def test_noise_without_lines_is_an_error(start, port):
    process = start()
    port.write(b"\xfe" * 70_000)
    assert process.wait(10) == 2
    assert b"without a line's end; is --baud right?" in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--baud", "9600"], "--baud goes with --input"),
        (["in.csv", "--input", "/dev/ttyUSB0"], "give one of them"),
        (["--input", "/dev/absent", "--baud", "9600"], "/dev/absent: the serial port cannot be opened"),
    ],
)
def test_bad_options(bundle, arguments, words):
    assert words in refused(bundle, *arguments)


def test_input_without_a_baud_is_a_file(bundle, xs, expected, tmp_path):
    (tmp_path / "in.csv").write_text(csv(xs))
    done = call(bundle, "--input", tmp_path / "in.csv")
    np.testing.assert_allclose(numbers(done.stdout), expected, atol=2e-6)


def test_without_pyserial_it_says_what_to_install(bundle, port):
    code = (
        "import sys; sys.modules['serial'] = None; from edgelstm.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    options = [str(bundle), "--input", port.name, "--baud", "9600"]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert 'pip install "edgelstm[serial]"' in done.stderr


@pytest.fixture
def broker(tmp_path):
    require("mosquitto")
    made = Mosquitto(tmp_path / "broker").start()
    yield made
    made.stop()


def answered(peer: Peer, count: int) -> np.ndarray:
    """So many answers that differ; on a connection that was lost, some may have been sent twice."""
    until(lambda: len(set(peer.on("out"))) >= count, f"{count} answers")
    return np.array([[json.loads(p)["u"], json.loads(p)["v"]] for p in dict.fromkeys(peer.on("out"))])


def test_a_serial_port_is_answered_on_a_topic(bundle, broker, port, xs, expected, tmp_path):
    options = ("--input", port.name, "--baud", 115200, "--publish", "out", "--status", "on", "--state", tmp_path / "s")
    report = tmp_path / "report"
    reader = Peer(broker, "#", name="reader")
    with Served(bundle, broker.url, *options, "--report", report, ready=False, topics=False) as served:
        port.opened_by(served.process, report)
        port.write(csv(xs[:50]))
        np.testing.assert_allclose(answered(reader, 50), expected[:50], atol=2e-6)
        broker.stop()
        until(lambda: "is lost" in served.said, "it has noticed that the broker is away")
        port.write(csv(xs[50:100]))
        broker.start()
        np.testing.assert_allclose(answered(reader, 100), expected[:100], atol=2e-6)
        served.end()
    until(lambda: reader.on("on")[-1:] == [b"offline"], "it says that it has left")
    done = call(bundle, "--state", tmp_path / "s", stdin=csv(xs[100:110]))
    np.testing.assert_allclose(numbers(done.stdout), expected[100:110], atol=2e-6)
    reader.close()


def test_a_port_that_vanishes_leaves_no_answer_unpublished(bundle, broker, port, xs, expected, tmp_path):
    reader, report = Peer(broker, "#"), tmp_path / "report"
    options = ("--input", port.name, "--baud", 115200, "--publish", "out", "--status", "status")
    with Served(bundle, broker.url, *options, "--report", report, ready=False, topics=False) as served:
        port.opened_by(served.process, report)
        port.write(csv(xs[:50]))
        until(lambda: reader.on("out"), "an answer")
        port.vanish()
        assert served.process.wait(20) == 2
        assert "the port is gone" in served.said
    np.testing.assert_allclose(answered(reader, 50), expected[:50], atol=2e-6)
    reader.close()


@pytest.mark.slow
def test_a_file_is_answered_on_a_topic_and_waits_for_the_broker(bundle, broker, xs, expected, tmp_path):
    # More than may wait at once, and than a pipe holds.
    many = np.concatenate([xs, np.random.default_rng(4).standard_normal((15_000, 3)).astype(np.float32)])
    (tmp_path / "in.csv").write_text(csv(many, "a,b,c"))
    reader = Peer(broker, "#", name="reader")
    broker.stop()
    options = ("--input", tmp_path / "in.csv", "--publish", "out")
    with Served(bundle, broker.url, *options, ready=False, topics=False) as served:
        until(lambda: "cannot be reached" in served.said, "it says that there is no broker")
        broker.start()
        assert served.process.wait(60) == 0
    got = answered(reader, len(many))
    np.testing.assert_allclose(got[: len(xs)], expected, atol=2e-6)
    np.testing.assert_array_equal(got.astype(np.float32), load(bundle).stream().run(many))
    reader.close()
