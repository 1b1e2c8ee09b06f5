"""A power cut at every write of `run`: whatever the disk holds then, the next run ends where an unbroken one does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgelstm.runtime import durable

from tests.devices.power_cuts import Disk, copied, recorded
from tests.runtime.command_line import call
from tests.runtime.test_run_command import csv


def in_halves(calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The calls, every write as two: a cut may come in the middle."""
    halves = []
    for name, path, *more in calls:
        if name == "write":
            data = more[0]
            halves += [(name, path, data[: len(data) // 2]), (name, path, data[len(data) // 2 :])]
        else:
            halves.append((name, path, *more))
    return halves


def cuts(start: Path, calls: list[tuple[Any, ...]], disk: Path) -> Iterator[tuple[int, str]]:
    """Have the disk be what a cut after so many calls leaves of it, in every way that it may; how many, and the way."""
    for count in range(len(calls) + 1):
        for kind in ("all", "names", "synced"):
            left = Disk(start)
            for each in calls[:count]:
                left.do(each)
            shutil.rmtree(disk)
            disk.mkdir()
            left.left(kind, disk)
            yield count, kind


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Where the state and the output are; this machine's own disk is not what is cut off."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    (tmp_path / "disk" / "answers").mkdir(parents=True)
    return tmp_path / "disk"


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "a run that was broken off", "an older output"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--save-every", "0"), marks=pytest.mark.slow),
        ("--save-every", "9", "--window", "3", "--hop", "2"),
    ],
)
def test_a_cut_makes_no_difference(bundle, xs, disk, tmp_path, monkeypatch, before, options):
    source = tmp_path / "in.csv"
    command = (bundle, source, "--state", disk / "s", "--output", disk / "answers/out", *options)
    rows = csv(xs[:5], "a,b,c")
    if before == "a run that was broken off":
        source.write_text(csv(xs[:2], "a,b,c"))
        assert call(*command).returncode == 0
        with (disk / "answers/out").open("a") as file:
            file.write("1,2\n3")
    elif before == "an older output":
        (disk / "answers/out").write_text("of another run\n")
    source.write_text(rows)
    start = copied(disk, tmp_path / "start")
    with recorded(disk, durable, monkeypatch) as recorder:
        assert call(*command).returncode == 0
    assert call(bundle, source, "--output", tmp_path / "unbroken", *options[2:]).returncode == 0
    want = (tmp_path / "unbroken").read_bytes()
    assert (disk / "answers/out").read_bytes() == want
    calls = in_halves(recorder.calls)
    assert {"create", "write", "fsync", "rename"} <= {call[0] for call in calls}
    for count, kind in cuts(start, calls, disk):
        done = call(*command)
        where = f"{kind}, cut after {count} of {len(calls)}: {calls[count - 1][:2]}"
        assert done.returncode == 0, f"{where}: {done.stderr}"
        assert (disk / "answers/out").read_bytes() == want, where
        assert sorted(path.name for path in disk.rglob("*")) == ["answers", "out", "s"], where


def test_what_is_replaced_is_whole_at_every_cut(tmp_path, disk, monkeypatch):
    """So are bundles and reports."""
    target = disk / "x"
    target.write_bytes(b"old" * 50)
    start = copied(disk, tmp_path / "start")

    def write(path: Path) -> None:
        file = os.open(path, os.O_WRONLY)
        os.write(file, b"new" * 60)
        os.close(file)

    with recorded(disk, durable, monkeypatch) as recorder, durable.replacing(target) as temporary:
        write(temporary)
    calls = in_halves(recorder.calls)
    for count, _ in cuts(start, calls, disk):
        assert target.read_bytes() in ([b"old" * 50, b"new" * 60] if count < len(calls) else [b"new" * 60])
        with durable.replacing(target) as temporary:
            write(temporary)
        assert target.read_bytes() == b"new" * 60
        assert sorted(path.name for path in disk.iterdir()) == ["answers", "x"]


def test_what_is_not_ours_is_not_written_to(disk, monkeypatch):
    target, beside = disk / "x", disk / ".x.new"
    for owner in (os.geteuid(), os.geteuid() + 1):  # On a file system of a memory card, all may be another's.
        monkeypatch.setattr(os, "geteuid", lambda owner=owner: owner)
        for kind in ("nothing", "a file", "a named pipe", "a link", "two names"):
            other = disk / "other"
            other.write_bytes(b"kept")
            if kind == "a file":
                beside.write_bytes(b"left")
            elif kind == "a named pipe":
                os.mkfifo(beside)
            elif kind == "two names":
                beside.hardlink_to(other)
            elif kind == "a link":
                beside.symlink_to(other)
                with pytest.raises(OSError, match="symbolic links"), durable.replacing(target):
                    raise AssertionError("it is not opened")
                beside.unlink()
            with durable.replacing(target) as temporary:
                temporary.write_bytes(kind.encode())
            assert (target.read_bytes(), other.read_bytes()) == (kind.encode(), b"kept")
            assert not beside.exists()
