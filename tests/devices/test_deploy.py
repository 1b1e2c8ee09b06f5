"""deploy, rollback, list and status on stand-in boards: this machine behind a real sshd, and emulated ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
from edgelstm.devices.agent.messages import Facts
from edgelstm.runtime import load

from tests.devices.boards import DIST, base, current, deploy, on, started, status
from tests.devices.stand_in import StandIn
from tests.engine.models import inputs
from tests.toolkit.conftest import call
from tests.waiting import until

pytestmark = pytest.mark.slow
NAME = "LSTM 8 32 32 4"
SERVICE = ("--", "--input", "{state}/in", "--output", "{state}/out", "--state", "{state}/stream", "--save-every", "0")


def test_a_model_is_verified_there_and_becomes_current(board, bundles, wheels):
    done = deploy(board, bundles["first"], wheels, "--precision", "int8", "--json")
    assert done.status == 0, done.err
    (result,) = json.loads(done.out)["boards"]
    assert result["parity"]["passed"]
    assert result["parity"]["parity"]["steps"] == 1025
    assert (result["step"]["backend"], result["step"]["precision"]) == ("native", "int8")
    assert 0 < result["step"]["p50"] <= result["step"]["p99"]
    assert current(board) == result["version"]
    # What was installed runs by itself, with nothing of this checkout.
    xs = inputs(NAME, 50)
    text = "\n".join(",".join(map(str, row)) for row in xs)
    answers = np.loadtxt(board.ssh("~/.local/share/edgelstm/pump/current/start", text).splitlines(), delimiter=",")
    want = load(bundles["first"], "native", "int8").stream().run(xs)
    np.testing.assert_allclose(answers, want, rtol=1e-5, atol=1e-6)


@on("here")
def test_back_and_forth(board, bundles, wheels):
    assert call("status", board.host, *board.arguments).status == 1  # Nothing is there yet.
    versions = []
    for name in ("first", "second", "first", "second"):
        done = deploy(board, bundles[name], wheels, "--keep", "3", "--json")
        versions.append(json.loads(done.out)["boards"][0]["version"])
    assert current(board) == versions[3]
    listed = json.loads(call("deploy", "pump", board.host, "--list", *board.arguments, "--json").out)["boards"][0]
    assert [v["id"] for v in listed["versions"]] == versions[1:]
    assert [v["current"] for v in listed["versions"]] == [False, False, True]
    back = call("deploy", "pump", board.host, "--rollback", *board.arguments)
    assert back.status == 0
    assert f"back to {versions[2]}" in back.out
    assert current(board) == versions[2]
    # Further back, not to and fro; and to any that is named.
    assert call("deploy", bundles["first"], board.host, "--rollback", *board.arguments).status == 0
    assert current(board) == versions[1]
    last = call("deploy", "pump", board.host, "--rollback", *board.arguments)
    assert (last.status, "no version before to go back to" in last.out) == (1, True)
    assert call("deploy", "pump", board.host, "--rollback", "--to", versions[3], *board.arguments).status == 0
    assert current(board) == versions[3]
    shown = call("status", board.host, *board.arguments)
    assert shown.status == 0
    assert re.search(rf"pump {versions[3]}: \d+\.\d dB against Keras there, step .* no service", shown.out)


def test_a_service_carries_its_state_from_version_to_version(board, bundles, wheels):
    state = base(board) / "state"
    xs = inputs(NAME, 60)
    with fed_by_hand(state) as feed:
        done = deploy(board, bundles["first"], wheels, *SERVICE)
        assert done.status == 0, done.out + done.err
        assert "service runs" in done.out
        answers = _fed(feed, state, xs[:40])
        log = board.home / ".running/edgelstm-pump.service.log"
        until(lambda: log.read_text().count("WATCHDOG=1") >= 10, "the service lives")
        assert log.read_text().startswith("READY=1")
        until(lambda: status(board)[0]["report"]["steps"] == 40, "the report says what was done")
        (shown,) = status(board)
        assert shown["running"]
        assert 0 < shown["report"]["step_us"]["p50"] <= shown["report"]["step_us"]["p99"]
        # The same bundle again: the old process is stopped with its state saved, and the new one goes on from there.
        again = deploy(board, bundles["first"], wheels, *SERVICE)
        assert again.status == 0, again.out + again.err
        answers = np.concatenate([answers, _fed(feed, state, xs[40:], 40)])
    want = load(bundles["first"], "native").stream().run(xs)
    np.testing.assert_allclose(answers, want, rtol=1e-5, atol=1e-6)


def fed_by_hand(state: Path) -> TextIO:
    """The other end of the service's input; open, or the service would see its input end."""
    state.mkdir(parents=True)
    os.mkfifo(state / "in")
    return open(os.open(state / "in", os.O_RDWR), "w")


def _fed(feed, state: Path, rows: np.ndarray, before: int = 0) -> np.ndarray:
    """The answers to these rows, behind those that were there before."""
    feed.write("".join(",".join(map(str, row)) + "\n" for row in rows))
    feed.flush()
    until(lambda: len(_lines(state)) == before + len(rows), "the answers")
    return np.loadtxt(_lines(state)[before:], delimiter=",", ndmin=2)


def _lines(state: Path) -> list[str]:
    return (state / "out").read_text().splitlines() if (state / "out").exists() else []


@on("here", "armhf")
def test_a_version_that_does_not_come_up_gives_way_to_the_one_before(board, bundles, wheels):
    with fed_by_hand(base(board) / "state"):
        assert deploy(board, bundles["first"], wheels, *SERVICE).status == 0
        before = current(board)
        done = deploy(board, bundles["second"], wheels, "--", "--input", "{state}/nowhere")
        assert done.status == 1
        assert "FAILED" in done.out
        assert "the version before runs again" in done.out
        assert current(board) == before
        (shown,) = status(board)
        assert shown["running"]


@on("here")
def test_a_service_gives_way_to_none_and_comes_back(board, bundles, wheels):
    with fed_by_hand(base(board) / "state"):
        first = deploy(board, bundles["first"], wheels, *SERVICE)
        assert first.status == 0, first.out
        assert ("UNTIL YOU LOG OUT" in first.out) != board.lingers
        assert deploy(board, bundles["second"], wheels).status == 0
        (shown,) = status(board)
        assert (shown["running"], shown["arguments"]) == (False, [])
        back = call("deploy", "pump", board.host, "--rollback", *board.arguments)
        assert (back.status, "service runs" in back.out) == (0, True), back.out
        assert status(board)[0]["running"]


@on("here")
@pytest.mark.parametrize(
    ("bundle", "arguments", "words"),
    [
        ("wrong", (), "could not be verified on the board: native float32 on native: "),
        ("second", ("--backend", "onnx", "--precision", "float32"), "no wheel of onnxruntime in"),
        ("second", ("--precision", "int16x8"), "could not be measured on the board: edgelstm"),
        ("second", ("--system", "--name", "../x"), "'../x' cannot be a folder's"),
    ],
)
def test_whatever_fails_leaves_the_old_version(board, bundles, wheels, bundle, arguments, words):
    assert deploy(board, bundles["first"], wheels).status == 0
    before = current(board)
    if "onnx" in arguments and (board.folder / "commands").exists():
        _hide(board, "onnxruntime")
    done = deploy(board, bundles[bundle], wheels, *arguments)
    assert done.status in (1, 2)
    assert words in done.out + done.err
    assert current(board) == before
    assert [path.name for path in (base(board) / "versions").iterdir()] == [before]


def _hide(board: StandIn, package: str) -> None:
    """A Python there without a package that this one has."""
    python = board.folder / "commands/python3"
    python.unlink()
    startup = board.folder / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(
        "import importlib.util as u\nreal = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name == {package!r} else real(name, *a)\n"
    )
    python.write_text(f'#!/bin/sh\nPYTHONPATH={startup}:$PYTHONPATH exec {sys.executable} "$@"\n')
    python.chmod(0o755)


@on("here", "armhf")
def test_a_wheel_that_does_not_fit(board, bundles, wheels, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    made = next(wheels.glob("*.whl"))
    shutil.copy(made, other / f"{'-'.join(made.stem.split('-')[:-1])}-manylinux_2_17_riscv64.whl")
    done = deploy(board, bundles["first"], other)
    assert done.status == 1
    assert "no wheel of edgelstm in" in done.out
    assert "it has edgelstm-" in done.out
    assert "make wheels" in done.out
    assert not base(board).exists()


@on("here", "armhf")
def test_a_connection_that_breaks_half_way(board, bundles, wheels):
    """While the files are on their way."""
    assert deploy(board, bundles["first"], wheels).status == 0
    before = current(board)
    breaking = board.folder / "breaking.py"
    breaking.write_text(
        "import os, socket, sys, threading\n"
        "there = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "def back():\n"
        "    while data := there.recv(65536): os.write(1, data)\n"
        "threading.Thread(target=back, daemon=True).start()\n"
        "left = 300_000\n"
        "while left > 0 and (data := os.read(0, 65536)): there.sendall(data); left -= len(data)\n"
        "os._exit(0)\n"
    )
    config = board.folder / "ssh_config"
    text = config.read_text()
    port = next(line.split()[1] for line in text.splitlines() if "Port" in line)
    config.write_text(text + f"  ProxyCommand {sys.executable} {breaking} {port}\n")
    done = deploy(board, bundles["second"], wheels)
    assert done.status == 1
    assert "the connection broke" in done.out
    assert current(board) == before
    config.write_text(text)
    versions = base(board) / "versions"
    until(lambda: [path.name for path in versions.iterdir()] == [before], "what had arrived is removed")
    assert deploy(board, bundles["second"], wheels).status == 0
    assert current(board) != before


@on("here", "arm64")
def test_a_full_disk(kind, bundles, wheels, monkeypatch, tmp_path):
    with started(kind, tmp_path / "board", disk_mb=3) as board:
        done = deploy(board, bundles["first"], wheels)
        assert done.status == 1
        assert "are free" in done.out
        # It fills up while the files arrive: two versions do not fit.
        monkeypatch.setattr(sys.modules["edgelstm.devices.deploy"], "_MARGIN", 0)
        first = deploy(board, bundles["first"], wheels)
        assert first.status == 0, first.out
        before = board.ssh("readlink ~/.local/share/edgelstm/pump/current")
        real = Facts.__init__
        monkeypatch.setattr(Facts, "__init__", lambda self, **raw: real(self, **{**raw, "free": 10**12}))
        done = deploy(board, bundles["second"], wheels)
        assert done.status == 1
        assert "No space left on device" in done.out
        assert board.ssh("readlink ~/.local/share/edgelstm/pump/current") == before
        assert board.ssh("ls ~/.local/share/edgelstm/pump/versions").split() == [Path(before.strip()).name]


@pytest.mark.parametrize(
    "kinds", [("here", "here"), pytest.param(("arm64", "armhf"), marks=pytest.mark.devices)], ids="-".join
)
def test_several_boards_at_once_each_with_its_own_result(kinds, bundles, tmp_path, request):
    wheels = request.getfixturevalue("own_wheel").parent if "here" in kinds else DIST
    with started(kinds[0], tmp_path / "a", "a") as a, started(kinds[1], tmp_path / "b", "b") as b:
        config = tmp_path / "both"
        config.write_text("".join((each.folder / "ssh_config").read_text() for each in (a, b)))
        hosts = ["a", "nowhere.invalid", "b"]
        done = call("deploy", bundles["first"], *hosts, f"--ssh-option=-F{config}", "--wheels", wheels, "--json")
        results = json.loads(done.out)["boards"]
        assert done.status == 1
        assert [result["host"] for result in results] == hosts
        assert ["error" in result for result in results] == [False, True, False]
        assert current(a)
        assert current(b)
