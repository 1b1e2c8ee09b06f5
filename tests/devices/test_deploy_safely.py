"""Who deploys what: several at once, killed ones, hosts and keys that are none, older bundles, files of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgelstm.devices.agent.messages import Hold, Receive, Versions, plain
from edgelstm.devices.board import Board, BoardError, pack
from edgelstm.devices.deploy import located

from tests.devices.boards import base, current, deploy, on, started
from tests.engine.toolchain import require
from tests.toolkit.conftest import call

pytestmark = pytest.mark.slow


@on("here", "armhf")
def test_what_the_agent_is_told_may_be_long(board, tmp_path):
    """Longer than a command line: NumPy's wheel has a thousand files, each with its digest."""
    with Board(board.host, board.options) as connected:
        base = connected.probe("~/x").base
        texts = {"deployment.json": '{"arguments": [], "backend": "auto", "precision": null}', "start": "y" * 300_000}
        pack({}, tmp_path / "tar")
        connected.call(Receive(base=base, id="long", files={}, texts=texts), tmp_path / "tar")
        (version,) = connected.call(Versions(base=base)).versions
        assert (version.problem, version.bytes > 300_000) == (None, True)


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


@on("here", "arm64")
def test_two_deployments_wait_for_each_other(board, bundles, wheels, monkeypatch, tmp_path):
    """Whoever is killed keeps nobody waiting. A folder for temporary files may have a long name."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with Board(board.host, board.options) as first:
        # As the board itself calls it, which sees its home elsewhere.
        place = located("pump", first.probe("~/.local/share/edgelstm/pump").base, False)
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


@on("here", "armhf")
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


@on("here")  # An emulated board's Python is what it is.
def test_a_python_that_is_too_old(board):
    """It could not even read the agent's modules."""
    python = board.folder / "commands/python3"
    code = "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    shown = call("status", board.host, *board.arguments)
    assert (shown.status, "has Python 3.9; EdgeLSTM needs 3.11 or later" in shown.out) == (1, True), shown.out


@pytest.mark.parametrize("host", ["x@-oProxyCommand=touch PWN", "a;b", "`b`", "$(b)", " ", "", "a\n-b"])
def test_a_host_that_is_none(host):
    with pytest.raises(BoardError, match="no host's name"), Board(host):
        pass


@on("here", "arm64")
def test_a_host_key_that_is_not_known_is_not_waved_through(board, bundles, wheels):
    known = board.folder / "known_hosts"
    known.write_text(known.read_text().replace("ssh-ed25519 A", "ssh-ed25519 B"))
    done = deploy(board, bundles["first"], wheels)
    assert done.status == 1
    assert "Host key verification failed" in done.out
