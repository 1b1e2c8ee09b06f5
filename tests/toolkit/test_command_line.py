"""What every command has in common: how it fails, in words and under `--json`, what it suggests, and its completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgelstm.runtime import cli as runtime_cli
from edgelstm.toolkit import cli

from tests.engine.toolchain import require
from tests.toolkit.conftest import call


def run(*arguments):
    """`edgelstm-run ARGUMENTS`."""
    return call(*arguments, main=runtime_cli.main)


def failure(done):
    """The one object that a failure printed."""
    found = json.loads(done.out)
    assert found["error"]["status"] == done.status
    assert found["error"]["message"] in done.err
    return found["error"]


# ---- failures ----

NOT_THERE = {
    "train": ("data.csv", "--target", "x"),
    "export": ("model.keras",),
    "verify": ("model.edge",),
    "inspect": ("model.edge",),
    "run": ("model.edge",),
    "streams": ("pump.streams",),
    "bench": ("model.edge",),
    "sign": ("model.edge", "--key", "key"),
    "devices": ("nothing-of-this-name",),
    "fit": ("model.edge",),
    "deploy": ("model.edge", "pi@nowhere.invalid"),
    "status": (),
    "demo": ("-o", "nothing/demo"),
}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_fails_with_an_object(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(command, *NOT_THERE[command], "--json")
    assert done.status == 2, done
    failure(done)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_bad_usage_fails_with_an_object(command):
    for arguments in ((command, "--nonsense", "--json"), (command, "--json", "--nonsense=1")):
        done = call(*arguments)
        assert done.status == 2
        assert failure(done)["type"] == "UsageError"
        assert done.err.startswith("usage: edgelstm")


@pytest.mark.parametrize("command", runtime_cli.COMMANDS)
def test_on_a_device_too(command, tmp_path):
    of_no_bundle = "InputError" if command == "streams" else "BundleError"
    assert failure(run(command, tmp_path / "x.edge", "--json"))["type"] == of_no_bundle
    assert failure(run(command, "--json"))["type"] == "UsageError"


def test_the_short_form_too(tmp_path):
    assert failure(run(tmp_path / "x.edge", "--json"))["type"] == "BundleError"


def test_without_json_there_is_no_object(tmp_path):
    for done in (call("verify", tmp_path / "x.edge"), call("verify"), call("verify", "a", "--nonsense")):
        assert (done.status, done.out) == (2, "")


def test_what_stands_behind_two_dashes_asks_for_nothing(tmp_path):
    assert call("deploy", tmp_path / "x.edge", "pi@nowhere.invalid", "--", "--json").out == ""


@pytest.mark.slow
def test_a_failed_export_says_what_it_measured(keras_file, tmp_path):
    output = tmp_path / "x.edge"
    done = call("export", keras_file, "-o", output, "--format", "native", "--min-snr", 500, "--json")
    assert done.status == 1
    assert failure(done)["type"] == "ParityError"
    found = json.loads(done.out)
    assert found["bundle"] is None
    assert [artifact["passed"] for artifact in found["artifacts"]] == [False]


@pytest.mark.slow
def test_a_bad_line_of_input(bundle, tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n1,2,3\n1,2\n")
    done = call("run", bundle, tmp_path / "x.csv", "--json")
    first, last = done.out.splitlines()
    assert done.status == 2
    assert json.loads(first)["u"]
    assert "line 3: 2 values" in json.loads(last)["error"]["message"]


# ---- suggestions ----


@pytest.mark.parametrize(("typed", "meant"), [("exprot", "export"), ("inspekt", "inspect"), ("trian", "train")])
def test_the_nearest_command(typed, meant):
    for arguments in ((typed,), (typed, "--help"), ("--json", typed, "x")):
        done = call(*arguments)
        assert done.status == 2
        assert f"no command {typed!r}; did you mean {meant!r}?" in done.err
    assert "there are train, export" in call("qqqqq").err


def test_the_nearest_command_on_a_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'verify'?" in run("verfy", "x.edge").err
    # What is there is a bundle, whatever it is called.
    Path("verfy").write_text("")
    assert "did you mean" not in run("verfy").err


# ---- completion ----


@pytest.mark.parametrize(
    ("program", "typed", "completed"),
    [
        ("edgelstm", "exp", "export "),
        ("edgelstm", "export --overw", "--overwrite "),
        ("edgelstm", "export pum", "pump.keras "),
        ("edgelstm", "train --cell g", "gru "),
        ("edgelstm-run", "ver", "verify "),
        ("edgelstm-run", "run pum", "pump.keras "),
        ("edgelstm-run", "pum", "pump.keras "),
    ],
)
def test_completion_in_bash(scripts, tmp_path, program, typed, completed):
    (tmp_path / "pump.keras").touch()
    shown = press_tab(f"source {scripts[program]}", f"{program} {typed}", tmp_path)
    assert f"{program} {typed.rsplit(' ', 1)[0] + ' ' if ' ' in typed else ''}{completed}" in shown


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    require("bash")
    folder = tmp_path_factory.mktemp("completion")
    for program, called in (("edgelstm", call), ("edgelstm-run", run)):
        for shell in ("bash", "zsh", "tcsh"):
            done = called("--print-completion", shell)
            assert done.status == 0, done.err
            assert program in done.out
        (folder / program).write_text(called("--print-completion", "bash").out)
    return {program: folder / program for program in ("edgelstm", "edgelstm-run")}


def press_tab(before: str, line: str, folder: Path) -> str:
    """What an interactive bash shows after a line and the tabulator."""
    import pty

    terminal, end = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "INPUTRC": "/dev/null", "PS1": "ready> "}
    command = [shutil.which("bash") or "bash", "--noprofile", "--norc", "-i"]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, cwd=folder, env=environment)
    os.close(end)
    seen = ""
    try:
        seen += until(terminal, r"ready> $")
        os.write(terminal, f"{before}\n".encode())
        seen = until(terminal, r"ready> $")
        os.write(terminal, f"{line}\t".encode())
        return until(terminal, re.escape(line.split()[-1]) + r"\S* $")
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def until(terminal: int, pattern: str) -> str:
    """What a terminal shows until that fits; all of it after ten seconds."""
    import select

    seen, begin = "", time.monotonic()
    while not re.search(pattern, seen) and time.monotonic() - begin < 10:
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def test_completion_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code = (
        "import sys; sys.modules['shtab'] = None; from edgelstm.toolkit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--print-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "edgelstm[completion]"' in done.stderr
