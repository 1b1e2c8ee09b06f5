"""One bit changed anywhere in what is kept: it is found, or what is read is what was written."""

from __future__ import annotations

import random
import shutil

import pytest
from edgelstm.runtime import Bundle, BundleError, InputError, load
from edgelstm.runtime.bundle import add_signature, read_manifest, write_bundle
from edgelstm.runtime.sealed import seal, unseal

from tests.runtime.command_line import call


def flipped(content: bytes, places=None):
    """The content again and again, with another bit of another byte changed."""
    rng = random.Random(len(content))
    for at in range(len(content)) if places is None else places:
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        yield bytes(changed)


def all_of(path) -> tuple[object, dict[str, bytes], object]:
    bundle = Bundle.open(path)
    return bundle.manifest, {entry.file: bundle.read(entry) for entry in bundle.manifest.files}, bundle.golden().starts


def found(path, whole) -> bool:
    """Whether damage is found; if not, all is as it was."""
    try:
        assert all_of(path) == whole
        return False
    except BundleError:
        return True


@pytest.mark.slow
def test_a_bundle_in_a_file(bundle, tmp_path):
    content, whole = bundle.read_bytes(), all_of(bundle)
    end = content.index(b"PK\1\2")  # The directory; in front of it are the files, of which the manifest is the first.
    second = content.index(b"PK\3\4", 4)
    rng = random.Random(1)
    places = [*range(60), *rng.sample(range(60, second), 200), *rng.sample(range(second, end), 150)]
    places += range(end, len(content))
    path, count = tmp_path / "copy.edge", 0
    for changed in flipped(content, places):
        path.write_bytes(changed)
        count += found(path, whole)
    assert count > 450  # The rest is what a zip says beside: dates, attributes, versions.


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
def test_the_manifest_of_a_bundle_in_a_folder(parts, tmp_path, signed):
    path = write_bundle(tmp_path / "folder", *parts).path
    if signed:
        add_signature(path, read_manifest(path), b"of somebody")
    whole, manifest, sum_ = all_of(path), path / "manifest.json", path / "manifest.json.sha256"
    for file in (manifest, sum_):
        content = file.read_bytes()
        for changed in flipped(content):
            file.write_bytes(changed)
            assert found(path, whole)
        file.write_bytes(content)
    assert not found(path, whole)
    sum_.unlink()  # Of a folder that was unpacked by hand.
    assert not found(path, whole)
    assert "sha256sum" not in call("verify", path, "--backend", "numpy").stderr


@pytest.mark.slow
def test_the_files_of_a_bundle_in_a_folder(parts, tmp_path):
    path = write_bundle(tmp_path / "folder", *parts).path
    whole = all_of(path)
    for name in whole[1]:
        content = (path / name).read_bytes()
        for changed in flipped(content, random.Random(2).sample(range(len(content)), 100)):
            (path / name).write_bytes(changed)
            assert found(path, whole)
        (path / name).write_bytes(content)


@pytest.mark.parametrize("window", [None, 4])
def test_the_state_of_a_stream(bundle, xs, window):
    stream = load(bundle).stream(window=window)
    stream.run(xs[:7])
    state = stream.snapshot()
    for changed in flipped(state):
        with pytest.raises(InputError, match=r"damaged|not a stream's snapshot"):
            stream.restore(changed)
        assert stream.snapshot() == state


def test_a_state_file_of_run(bundle, xs, tmp_path):
    state, lines = tmp_path / "state", "".join("1,2,3\n" for _ in range(3))
    assert call("run", bundle, "--state", state, stdin=lines).returncode == 0
    content = state.read_bytes()
    for changed in flipped(content, range(0, len(content), 7)):
        state.write_bytes(changed)
        done = call("run", bundle, "--state", state, stdin=lines)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(state) in done.stderr or "snapshot" in done.stderr
        assert state.read_bytes() == changed


def test_reports_and_histories():
    """What `sealed` writes: reports of services, and all that a board keeps of deployments."""
    for content in ({"history": ["20261126-1", "b"]}, {"pid": 7, "written": 1.5, "step_us": {"p50": None}}):
        data = seal(content)
        assert unseal(data) == content
        for bit in range(8 * len(data)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << (bit % 8)
            with pytest.raises(ValueError):
                unseal(bytes(changed))


def test_a_folder_that_is_copied_keeps_its_check(parts, tmp_path):
    path = write_bundle(tmp_path / "folder", *parts).path
    copy = shutil.copytree(path, tmp_path / "copy")
    content = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(content.replace(b'"small"', b'"smell"'))
    done = call("inspect", copy)
    assert done.returncode == 2
    assert "manifest.json is not the file that was exported (its SHA-256 differs); copy the bundle again" in done.stderr
    shutil.copytree(path, copy, dirs_exist_ok=True)
    assert call("inspect", copy).returncode == 0
