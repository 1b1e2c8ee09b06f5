"""What is given is never written over, by whatever name, and nothing waits for ever on what is no file."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime.bundle import is_bundle

from tests.runtime.command_line import COMMAND, call, refused, start
from tests.runtime.test_run_command import csv, numbers
from tests.waiting import until

SECONDS = 60  # In which a command that waits for ever is found out.


@pytest.fixture
def given(bundle, xs, tmp_path):
    """What a run is given: a bundle, a folder of the same, an input and a state."""
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.unpack_archive(shutil.copy(bundle, folder / "b.zip"), folder / "bundle")
    (folder / "b.zip").rename(folder / "b.edge")
    (folder / "in.csv").write_text(csv(xs[:5]))
    assert call(bundle, folder / "in.csv", "--state", folder / "s").returncode == 0
    return folder


def contents(folder: Path) -> dict[str, bytes | str]:
    """All that is there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


SAME = [
    (("b.edge", "in.csv", "--output", "in.csv"), "--output", "the input"),
    (("b.edge", "in.csv", "--output", "b.edge"), "--output", "the model"),
    (("b.edge", "in.csv", "--report", "b.edge"), "--report", "the model"),
    (("b.edge", "in.csv", "--report", "in.csv"), "--report", "the input"),
    (("b.edge", "in.csv", "--state", "in.csv"), "--state", "the input"),
    (("b.edge", "in.csv", "--state", "b.edge"), "--state", "the model"),
    (("b.edge", "in.csv", "--state", "s", "--output", "s"), "--state", "--output"),
    (("b.edge", "in.csv", "--state", "s", "--report", "s"), "--report", "--state"),
    (("b.edge", "in.csv", "--report", "new", "--output", "new"), "--report", "--output"),
    (("b.edge", "in.csv", "--state", "s", "--output", ".s.new"), "--state", "--output"),
    (("b.edge", "in.csv", "--allowed-signers", "s", "--output", "s"), "--output", "the allowed signers"),
    (("bundle", "in.csv", "--output", "bundle/model.float32.elm"), "--output", "the model's"),
    (("bundle", "in.csv", "--report", "bundle/manifest.json"), "--report", "the model's"),
    (("bundle/model.float32.elm", "in.csv", "--output", "bundle/model.float32.elm"), "--output", "the model"),
]


@pytest.mark.parametrize("how", ["the same name", "another name", "a symbolic link", "a hard link"])
@pytest.mark.parametrize(("arguments", "option", "what"), SAME)
def test_what_is_given_is_not_written_over(given, arguments, option, what, how, monkeypatch):
    words = list(arguments)
    target = words[-1]
    (given / "links").mkdir()
    if how == "another name":
        words[-1] = f"links/../{target}"
    elif how == "a symbolic link":
        (given / "links/x").symlink_to(given / target)
        words[-1] = "links/x"
    elif how == "a hard link" and (given / target).exists():
        (given / "links/x").hardlink_to(given / target)
        words[-1] = "links/x"
    before = contents(given)
    monkeypatch.chdir(given)
    said = refused(*words)
    assert option in said
    assert what in said
    assert "name another" in said
    assert contents(given) == before


def test_nor_is_standard_input(bundle, given):
    before = contents(given)
    with (given / "in.csv").open() as source:
        command = [*COMMAND, str(bundle), "--output", str(given / "in.csv")]
        done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "the input, which is standard input" in done.stderr
    with (given / "in.csv").open("a") as target:
        command = [*COMMAND, str(bundle), str(given / "in.csv")]
        done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "standard output is the same file as the input" in done.stderr
    assert contents(given) == before


def test_a_device_is_not_read_and_written(bundle, tmp_path):
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    (tmp_path / "link").symlink_to(name)
    for output in (name, tmp_path / "link"):
        for more in ((), ("--baud", "9600")):
            assert "is the same file as the input" in refused(bundle, "--input", name, "--output", output, *more)
    os.close(ours)
    os.close(theirs)


def test_the_terminal_may_be_both(bundle, xs, expected):
    ours, theirs = pty.openpty()
    command = [*COMMAND, str(bundle), "-", "--output", os.ttyname(theirs)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.write(ours, csv(xs[:1]).encode() + b"\x04")
        said = b""
        while b"\r\n" not in said.partition(b"\r\n")[2]:  # The terminal shows the line itself first.
            said += os.read(ours, 1000)
        assert process.wait(SECONDS) == 0
    np.testing.assert_allclose(numbers(said.decode().splitlines()[1])[0], expected[0], atol=2e-6)
    os.close(ours)
    os.close(theirs)


# ---- what is no file ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "{fifo}.edge"),
        ("run", "{fifo}.elm"),
        ("run", "{fifo}.tflite"),
        ("inspect", "{fifo}.edge"),
        ("inspect", "{fifo}.elm"),
        ("inspect", "{folder}"),
        ("verify", "{fifo}.edge"),
        ("run", "{bundle}", "--state", "{fifo}.edge"),
        ("run", "{bundle}", "--report", "{fifo}.edge"),
        ("run", "{bundle}", "--allowed-signers", "{fifo}.edge"),
    ],
)
def test_a_named_pipe_is_not_waited_for(bundle, tmp_path, arguments):
    (tmp_path / "folder").mkdir()
    for name in ("x.edge", "x.elm", "x.tflite", "folder/manifest.json"):
        os.mkfifo(tmp_path / name)
    words = [word.format(bundle=bundle, fifo=tmp_path / "x", folder=tmp_path / "folder") for word in arguments]
    done = subprocess.run([*COMMAND, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr


@pytest.mark.parametrize("option", ["--state", "--report"])
@pytest.mark.parametrize(("path", "kind"), [("/dev/null", "a device"), ("{folder}", "a folder")])
def test_what_is_replaced_is_a_file(bundle, tmp_path, option, path, kind):
    said = refused(bundle, option, path.format(folder=tmp_path))
    assert f"is {kind}, where only a file can be" in said
    assert Path("/dev/null").is_char_device()


def test_is_bundle_takes_no_other_zip(bundle, tmp_path):
    import zipfile

    assert is_bundle(bundle)
    with zipfile.ZipFile(tmp_path / "report.docx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    assert not is_bundle(tmp_path / "report.docx")
    os.mkfifo(tmp_path / "fifo")
    assert not is_bundle(tmp_path / "fifo")


def test_pipes_and_devices_are_outputs_as_standard_output_is(bundle, xs, expected, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = start(bundle, "--output", tmp_path / "fifo", "--state", tmp_path / "s")
    with (tmp_path / "fifo").open() as reader:
        process.stdin.write(csv(xs[:3]).encode())
        process.stdin.close()
        np.testing.assert_allclose(numbers(reader.read()), expected[:3], atol=2e-6)
    assert process.wait(SECONDS) == 0
    assert call(bundle, "--output", "/dev/null", stdin=csv(xs[:3])).returncode == 0


def test_waiting_for_the_reader_of_a_pipe_can_be_interrupted(bundle, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = start(bundle, "--output", tmp_path / "fifo", "--state", tmp_path / "s")

    def waits() -> bool:
        return (tmp_path / ".s.new").exists()  # Of a state that is not there yet; what follows is the output.

    until(waits, "it is about to open it")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / ".s.new").exists()
