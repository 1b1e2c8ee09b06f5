"""TFLite and ONNX files that an enemy changed and sealed again: LiteRT and onnxruntime die of some of them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgelstm.devices.agent import lifecycle
from edgelstm.devices.agent.errors import RefusedError
from edgelstm.devices.agent.messages import Verify
from edgelstm.export.to_onnx import onnx_step_graph
from edgelstm.runtime import BundleError, Golden, load, trial
from edgelstm.runtime import flatbuffer as fb
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime.manifest import Artifact, File
from edgelstm.runtime.onnx_metadata import CHECKSUM_KEY
from edgelstm.runtime.tflite_metadata import CHECKSUM_PREFIX, checksum
from edgelstm.runtime.trial import Task, Trial

from tests.runtime.command_line import call

pytest.importorskip("ai_edge_litert")


def sealed(content: bytes, before: bytes) -> bytes:
    """With the checksum behind `before` put right, as anybody can."""
    at = content.rindex(before) + len(before)
    return content[:at] + checksum(content, at) + content[at + 8 :]


class Damage:
    """Changes to a `.tflite` file by the fields of its schema, so that LiteRT's own verifier has nothing to say."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        model = fb.u32(content, 0)
        self.graph = fb.tables(content, self.at(model, 2))[0]
        self.signature = fb.tables(content, self.at(model, 7))[0]

    def at(self, table: int, number: int) -> int:
        found = fb.field(bytes(self.content), table, number)
        assert found is not None
        return found

    def put(self, at: int, kind: str, value: int) -> None:
        struct.pack_into(kind, self.content, at, value)

    def outputs_of_split(self, count: int) -> None:
        content = bytes(self.content)
        for operator in fb.tables(content, self.at(self.graph, 3)):
            if len(fb.numbers(content, operator, 2, "i")) == 4:
                options = self.at(operator, 4)
                self.put(self.at(options + fb.u32(content, options), 0), "<i", count)
                return
        raise AssertionError("no operator has four outputs")

    def input_in_signature(self, index: int) -> None:
        content = bytes(self.content)
        places = [fb.field(content, entry, 1) for entry in fb.tables(content, self.at(self.signature, 0))]
        self.put(next(place for place in places if place is not None), "<I", index)

    def rename(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new)
        assert old in self.content
        self.content = self.content.replace(old, new)


DIED = "LiteRT died of it (SIGSEGV), in a process of its own; the file is damaged or hostile, do not use it"
TFLITE = {
    "a split into more than it has": (
        lambda d: d.outputs_of_split(127),
        DIED,
    ),
    "a split into less than none": (lambda d: d.outputs_of_split(-1), DIED),
    "a tensor that is not there": (lambda d: d.input_in_signature(32767), "cannot load it"),
    "a tensor of a negative number": (lambda d: d.input_in_signature(2**32 - 7), "cannot load it"),
    "a state without a next": (lambda d: d.rename(b"lstm_h_next", b"lstm_x_next"), "cannot load it: KeyError"),
    "no input x": (lambda d: d.rename(b"lstm_c_next", b"lstm_c_n\xff\xffe"), "cannot load it"),
    "a description that is no text": (lambda d: d.rename(b'"name": "small"', b'"name": "sm\xffll"'), "is no text"),
}


@pytest.fixture(scope="session")
def onnx_file(network) -> bytes:
    description = {"name": "small", "features": ["a", "b", "c"], "outputs": ["u", "v"], "precision": "float32"}
    description |= {"graph": "step", "streaming": {"mode": "carry"}}
    return onnx_step_graph(network, "float32", {"edgelstm": json.dumps(description)})


@pytest.fixture
def bundle_with(parts, onnx_file, tmp_path):
    """Write a bundle with a changed artifact in it, of which the manifest says all that it should."""

    def write(format_: str, change) -> Path:
        manifest, files = parts
        if format_ == "tflite":
            damage = Damage(files["model.float32.tflite"])
            change(damage)
            content = sealed(bytes(damage.content), CHECKSUM_PREFIX)
        else:
            content = sealed(change(onnx_file), CHECKSUM_KEY.encode() + b"\x12\x08")
        name = f"model.float32.{format_}"
        first = next(artifact for artifact in manifest.artifacts if artifact.format == "tflite")
        changed = Artifact(**{**vars(first), **vars(File.of(name, content)), "format": format_})
        others = tuple(artifact for artifact in manifest.artifacts if artifact.format == "native")
        edited = replace(manifest, artifacts=(changed, *others))
        return write_bundle(tmp_path / "small.edge", edited, {**files, name: content}).path

    return write


@pytest.mark.parametrize("what", TFLITE)
def test_tflite(bundle_with, what):
    change, words = TFLITE[what]
    path = bundle_with("tflite", change)
    done = call("verify", path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"edgelstm: error: {path}: model.float32.tflite: ")
    assert words in done.stderr
    assert len(done.stderr) < 2000
    # `inspect` reads the file itself, so that nothing can die of it.
    assert call("inspect", path).returncode in (0, 2)
    assert call("verify", path, "--backend", "native").returncode == 0
    if "died" not in words:
        with pytest.raises(BundleError):
            load(path, "tflite").stream()


ONNX = {
    "as it was": (lambda content: content, ""),
    "a name that is no text": (lambda content: content.replace(b"lstm_h", b"lst\xff_h"), "cannot load it: "),
    "an operator that there is not": (lambda content: content.replace(b"Sigmoid", b"Sigmund"), "cannot load it: "),
    "a graph cut short": (lambda content: content[:200] + content[260:], ""),
}


@pytest.mark.parametrize("what", ONNX)
def test_onnx(bundle_with, what):
    pytest.importorskip("onnxruntime")
    change, words = ONNX[what]
    path = bundle_with("onnx", change)
    done = call("verify", path)
    if what == "as it was":
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    assert done.stderr.startswith(f"edgelstm: error: {path}: model.float32.onnx: ")
    assert words in done.stderr
    with pytest.raises(BundleError):
        load(path, "onnx")


def test_a_board_says_what_died(bundle_with, tmp_path):
    version = tmp_path / "board" / "versions" / "v1"
    version.mkdir(parents=True)
    bundle_with("tflite", lambda damage: damage.outputs_of_split(127)).rename(version / "bundle.edge")
    (version / "site").symlink_to(Path(trial.__file__).parents[1])  # Where this edgelstm is not looked for.
    place = {"base": str(tmp_path / "board"), "system": False, "unit": "u", "state": str(tmp_path), "settle": 0.0}
    with pytest.raises(RefusedError, match=r"what runs it died of it \(SIGSEGV\); the file is damaged or hostile"):
        lifecycle.verify(Verify(**place, id="v1", backend="tflite", steps=10))


def task(source: str = "model.tflite") -> Task:
    return Task("tflite", "tflite", "step", 3, 2, source)


@pytest.fixture
def vectors(xs, expected) -> Golden:
    return Golden(xs, expected.astype(np.float32), (0,))


def test_what_does_not_answer_is_ended(parts, vectors):
    with (
        Trial(trusted=False, timeout=0.001) as judge,
        pytest.raises(BundleError, match=r"^model\.tflite: LiteRT gave no answer within 0\.001 s, and was ended"),
    ):
        judge.replay(task(), parts[1]["model.float32.tflite"], vectors)


def test_after_a_death_the_next_file_has_a_process_of_its_own(parts, vectors, expected):
    content = parts[1]["model.float32.tflite"]
    damage = Damage(content)
    damage.outputs_of_split(127)
    with Trial(trusted=False) as judge:
        with pytest.raises(BundleError, match="died of it"):
            judge.replay(task(), sealed(bytes(damage.content), CHECKSUM_PREFIX), vectors)
        first = judge.replay(task(), content, vectors)
        process = judge._child
        again = judge.replay(task(), content, vectors)
        assert judge._child is process
    assert process is not None
    assert process.returncode == 0
    np.testing.assert_allclose(first, expected, atol=1e-6)
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_signed_or_native_has_no_process(parts, vectors, expected, trusted, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    format_, backend = ("tflite", "tflite") if trusted else ("native", "numpy")
    name = "model.float32.tflite" if trusted else "model.float32.elm"
    with Trial(trusted=trusted) as judge:
        answers = judge.replay(Task(backend, format_, "step", 3, 2, name), parts[1][name], vectors)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


@pytest.mark.parametrize("python", ["", "/nowhere/python"])
def test_where_no_process_can_be_the_file_is_said_to_be_trusted(bundle, python, monkeypatch):
    monkeypatch.setattr(sys, "executable", python)
    done = call("verify", bundle)
    assert done.returncode == 0
    assert "is opened without a process of its own (" in done.stderr
    assert "so it is trusted as code is" in done.stderr


def test_a_name_that_no_terminal_can_be_given(edited):
    path = edited(lambda manifest: manifest.update(name="\ud800"))
    for command in ("inspect", "verify", "run"):
        done = call(command, path)
        assert done.returncode == 2
        assert "which is half of a character and cannot be written" in done.stderr
