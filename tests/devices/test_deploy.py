"""deploy, rollback, list and status on stand-in boards: this machine behind a real sshd, and emulated ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
from edgelstm.devices.agent.messages import Facts, Hold, Receive, Versions, plain
from edgelstm.devices.board import Board, BoardError, pack
from edgelstm.devices.deploy import located
from edgelstm.export import export
from edgelstm.runtime import load

from tests.devices.boards import DIST, EMULATED, base, current, deploy, started, status
from tests.devices.stand_in import StandIn
from tests.engine.models import inputs, network
from tests.engine.toolchain import require
from tests.toolkit.conftest import call
from tests.waiting import until
from tests.wheel import build_wheel

pytestmark = pytest.mark.slow
NAME = "LSTM 8 32 32 4"
SERVICE = ("--", "--input", "{state}/in", "--output", "{state}/out", "--state", "{state}/stream", "--save-every", "0")


KINDS = ["here", *(pytest.param(kind, marks=pytest.mark.devices) for kind in EMULATED)]


@pytest.fixture(params=KINDS)
def kind(request):
    """This machine, or the architecture of an emulated one."""
    return request.param


@pytest.fixture(scope="module")
def own_wheel(tmp_path_factory):
    """A wheel for this machine."""
    return build_wheel(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def wheels(kind, request):
    """A folder with a wheel for the board."""
    return request.getfixturevalue("own_wheel").parent if kind == "here" else DIST


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two models of one name, and one that does not compute what its golden vectors say."""
    folder = tmp_path_factory.mktemp("bundles")
    first = export(network(NAME), folder / "first.edge", ["native"], ["float32", "int8"], name="pump").path
    second = export(network(NAME), folder / "second.edge", ["native"], ["float16"], name="pump").path
    wrong = folder / "wrong.edge"
    _falsify(first, wrong)
    return {"first": first, "second": second, "wrong": wrong}


def _falsify(source, to):
    """As if the board's arithmetic were broken: the golden outputs are other ones, and the manifest says so."""
    import hashlib
    import io

    with zipfile.ZipFile(source) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    golden = dict(np.load(io.BytesIO(content["golden.npz"])))
    golden["outputs"] = golden["outputs"] + np.float32(0.01)
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    content["golden.npz"] = buffer.getvalue()
    manifest = json.loads(content["manifest.json"])
    manifest["golden"] |= {"size": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    content["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.fixture
def board(kind, tmp_path):
    with started(kind, tmp_path / "board") as running:
        yield running


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


def test_what_the_agent_is_told_may_be_long(board, tmp_path):
    """Longer than a command line: NumPy's wheel has a thousand files, each with its digest."""
    with Board(board.host, board.options) as connected:
        base = connected.probe("~/x").base
        texts = {"deployment.json": '{"arguments": [], "backend": "auto", "precision": null}', "start": "y" * 300_000}
        pack({}, tmp_path / "tar")
        connected.call(Receive(base=base, id="long", files={}, texts=texts), tmp_path / "tar")
        (version,) = connected.call(Versions(base=base)).versions
        assert (version.problem, version.bytes > 300_000) == (None, True)


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


def test_a_full_disk(kind, bundles, wheels, monkeypatch, tmp_path):
    with started(kind, tmp_path / "board", disk_mb=2) as board:
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


def test_a_board_that_requires_signatures(kind, bundles, wheels, tmp_path):
    require("ssh-keygen")
    for key in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    signers = f"builder {(tmp_path / 'ours.pub').read_text()}"
    bundle = Path(shutil.copy(bundles["first"], tmp_path / "pump.edge"))
    with started(kind, tmp_path / "board") as board:
        if kind == "here":  # Every program of the board is told so, since /etc is this machine's.
            (tmp_path / "allowed").write_text(signers)
            python = board.folder / "commands/python3"
            python.unlink()
            python.write_text(f'#!/bin/sh\nEDGELSTM_ALLOWED_SIGNERS={tmp_path}/allowed exec {sys.executable} "$@"\n')
            python.chmod(0o755)
        else:
            board.ssh("mkdir /etc/edgelstm && cat > /etc/edgelstm/allowed_signers", signers)
        unsigned = deploy(board, bundle, wheels)
        assert (unsigned.status, "is not signed" in unsigned.out) == (1, True), unsigned.out
        assert call("sign", bundle, "--key", tmp_path / "theirs").status == 0
        stolen = deploy(board, bundle, wheels)
        assert (stolen.status, "signed by nobody whom" in stolen.out) == (1, True), stolen.out
        assert call("sign", bundle, "--key", tmp_path / "ours").status == 0
        content = bytearray(bundle.read_bytes())
        at = content.index(b'"parameters"')
        content[at + 15] ^= 1
        flipped = tmp_path / "flipped.edge"
        flipped.write_bytes(content)
        assert deploy(board, flipped, wheels, "--name", "pump").status in (1, 2)
        assert current(board) is None
        old = Path(shutil.copy(bundle, tmp_path / "old.edge"))
        assert call("sign", bundle, "--key", tmp_path / "ours").status == 0
        done = deploy(board, bundle, wheels)
        assert done.status == 0, done.out
        newest = current(board)
        replayed = deploy(board, old, wheels)
        assert (replayed.status, "is older than one that was accepted here" in replayed.out) == (1, True), replayed.out
        assert current(board) == newest
        allowed = deploy(board, old, wheels, "--allow-older")
        assert allowed.status == 0, allowed.out
        assert current(board) != newest
        assert deploy(board, old, wheels).status == 0  # That is the one now.
        accepted = base(board).parent / "accepted.json"
        accepted.write_bytes(accepted.read_bytes().replace(b":", b";", 1))
        damaged = deploy(board, bundle, wheels)
        assert (damaged.status, "accepted.json is damaged" in damaged.out) == (1, True), damaged.out
        assert deploy(board, bundle, wheels, "--allow-older").status == 0


def test_two_deployments_wait_for_each_other(board, bundles, wheels, monkeypatch, tmp_path):
    """Whoever is killed keeps nobody waiting. A folder for temporary files may have a long name."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    place = located("pump", str(base(board)), False)
    with Board(board.host, board.options) as first:
        first.call(Hold(**plain(place)))
        command = [sys.executable, "-m", "edgelstm.toolkit.cli", "deploy", bundles["first"], board.host]
        command += [*board.arguments, "--wheels", wheels]
        seconds = [
            subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True, env={**os.environ}) for _ in "ab"
        ]
        for second in seconds:
            assert second.stdout is not None
            said = []
            while "waits until another deployment here ends" not in (line := second.stdout.readline()):
                said.append(line)
                assert line, said
            assert "process" in line
        assert current(board) is None
        assert first._process is not None
        first._process.kill()
        for second in seconds:
            out, _ = second.communicate(timeout=120)
            assert second.returncode == 0, out
    assert len(list((base(board) / "versions").iterdir())) == 2


def test_a_report_that_nobody_writes_is_not_waited_for(board, bundles, wheels):
    assert deploy(board, bundles["first"], wheels).status == 0
    state = base(board) / "state"
    os.mkfifo(state / "report.json")
    shown = call("status", board.host, *board.arguments)
    assert (shown.status, "report.json: is no file, so it is not the service's report" in shown.out) == (1, True)
    (state / "report.json").unlink()
    start = base(board) / "current/start"
    start.write_text(start.read_text() + "# more\n")
    shown = call("status", board.host, *board.arguments)
    assert (shown.status, "start is not the file that arrived" in shown.out) == (1, True)
    listed = call("deploy", "pump", board.host, "--list", *board.arguments)
    assert "current, DAMAGED" in listed.out


def test_a_python_that_is_too_old(board):
    """It could not even read the agent's modules."""
    if not (board.folder / "commands").exists():
        pytest.skip("an emulated board's Python is what it is")
    python = board.folder / "commands/python3"
    code = "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    shown = call("status", board.host, *board.arguments)
    assert (shown.status, "has Python 3.9; EdgeLSTM needs 3.11 or later" in shown.out) == (1, True), shown.out


@pytest.mark.parametrize("host", ["x@-oProxyCommand=touch PWN", "a;b", "`b`", "$(b)", " ", "", "a\n-b"])
def test_a_host_that_is_none(host):
    with pytest.raises(BoardError, match="no host's name"), Board(host):
        pass


def test_a_host_key_that_is_not_known_is_not_waved_through(board, bundles, wheels):
    known = board.folder / "known_hosts"
    known.write_text(known.read_text().replace("ssh-ed25519 A", "ssh-ed25519 B"))
    done = deploy(board, bundles["first"], wheels)
    assert done.status == 1
    assert "Host key verification failed" in done.out


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
