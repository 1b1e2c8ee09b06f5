"""A folder that is replaced is the one before or the one behind, wherever its writer is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from edgelstm.runtime import Bundle, BundleError, folder, load
from edgelstm.runtime.bundle import add_signature, read_manifest, write_bundle

from tests.runtime.killed import killed_at


def whole(path) -> str:
    """The name of the bundle that is there, all of whose files are what its manifest says."""
    bundle = Bundle.open(path)
    for entry in bundle.manifest.files:
        bundle.read(entry)
    load(path)
    return bundle.manifest.name


@pytest.mark.slow
@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("signs", [False, True])
def test_a_kill_at_any_call_leaves_the_old_bundle_or_the_new_one(parts, tmp_path, monkeypatch, exchanges, signs):
    manifest, files = parts
    old, new = replace(manifest, name="old"), replace(manifest, name="new")
    path = tmp_path / "bundle"
    if not exchanges:
        monkeypatch.setattr(folder, "_exchange", lambda one, other: False)

    def write() -> None:
        if signs:
            add_signature(path, new.to_bytes(), b"a signature")
        else:
            write_bundle(path, new, files)

    seen, gaps = [], 0
    for number in range(1000):
        write_bundle(path, old, files)
        assert os.listdir(tmp_path) == ["bundle"]  # Whatever a kill left behind is gone.
        killed = killed_at(number, write)
        gaps += not path.exists()
        seen.append(whole(path))
        assert (path / "manifest.json.sig").exists() <= (seen[-1] == "new")
        if not killed:
            break
    assert seen == sorted(seen, reverse=True)
    assert {"old", "new"} == set(seen)
    assert len(seen) > 15
    assert (gaps == 0) == exchanges
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_bundle_that_stands_in_is_put_back_by_the_next_write(parts, tmp_path):
    path = write_bundle(tmp_path / "bundle", *parts).path
    path.rename(tmp_path / ".bundle.earlier")  # Between the two renames.
    assert whole(path) == "small"
    assert read_manifest(path)
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        folder.write_folder(path, {"x": b""}, "other.json", "a bundle")
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_link_to_a_bundle_stays_a_link(parts, tmp_path):
    real = write_bundle(tmp_path / "real", *parts).path
    link = tmp_path / "link"
    link.symlink_to("real")
    manifest, files = parts
    write_bundle(link, replace(manifest, name="new"), files)
    assert link.is_symlink()
    assert whole(real) == "new"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_failure_leaves_what_was_there(parts, tmp_path):
    path = write_bundle(tmp_path / "bundle", *parts).path
    with pytest.raises(OSError), folder.replacing_folder(path, "manifest.json", "a bundle") as temporary:  # noqa: PT012
        (temporary / "half").write_bytes(b"half")
        raise OSError("the disk is full")
    assert whole(path) == "small"
    assert os.listdir(tmp_path) == ["bundle"]


def test_others_hidden_folders_are_left_alone(parts, tmp_path):
    for name in (".bundle.backup", ".bundle.x.tmp", ".bundle.12345678.tmpx", ".other.12345678.tmp"):
        (tmp_path / name).mkdir()
    before = sorted(os.listdir(tmp_path))
    write_bundle(tmp_path / "bundle", *parts)
    write_bundle(tmp_path / "bundle", *parts)
    assert sorted(os.listdir(tmp_path)) == [*before, "bundle"]


@pytest.mark.slow
def test_two_writers_wait_for_each_other(parts, tmp_path):
    path = write_bundle(tmp_path / "bundle", *parts).path
    code = (
        "import sys; from pathlib import Path; from edgelstm.runtime.bundle import Bundle, write_bundle\n"
        "b = Bundle.open(sys.argv[1]); files = {f.file: b.read(f) for f in b.manifest.files}\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for _ in range(30): write_bundle(sys.argv[1], b.manifest, files)"
    )
    command = [sys.executable, "-c", code, str(path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert whole(path) == "small"
    assert os.listdir(tmp_path) == ["bundle"]
