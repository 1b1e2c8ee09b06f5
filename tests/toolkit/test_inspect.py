"""What `inspect` says of each file's tensors, against what the interpreters say of them."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from edgelstm.runtime.errors import BundleError
from edgelstm.runtime.onnx_metadata import CHECKSUM_KEY
from edgelstm.runtime.tensors import read_interface
from edgelstm.runtime.tflite_metadata import CHECKSUM_PREFIX, checksum

from tests.toolkit.conftest import FEATURES, OUTPUTS, call

STATES = {"lstm_h": 24, "lstm_c": 24, "top_h": 16, "top_c": 16}


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(bundle, path, "zip")
    return path


@pytest.fixture(scope="module")
def artifacts(bundle):
    done = call("inspect", bundle, "--json")
    assert done.status == 0, done.err
    return {artifact["file"]: artifact["tensors"] for artifact in json.loads(done.out)["artifacts"]}


def by_name(tensors):
    return {tensor["name"]: tensor for tensor in tensors}


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int16x8", "int8"])
def test_tflite_as_its_interpreter_has_it(folder, artifacts, precision):
    from ai_edge_litert.interpreter import Interpreter

    file = f"model.{precision}.tflite"
    runner = Interpreter(str(folder / file)).get_signature_runner("step")
    details = {**runner.get_input_details(), **runner.get_output_details()}
    shown = by_name(artifacts[file])
    assert set(shown) == set(details)
    for name, detail in details.items():
        tensor = shown[name]
        assert tensor["shape"] == detail["shape"].tolist(), name
        assert tensor["dtype"] == np.dtype(detail["dtype"]).name, name
    assert [t["name"] for t in artifacts[file] if t["role"] == "state"] == list(STATES)
    assert [t["name"] for t in artifacts[file] if t["role"] == "next state"] == [f"{name}_next" for name in STATES]


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_onnx_as_its_interpreter_has_it(folder, artifacts, precision):
    import onnxruntime

    file = f"model.{precision}.onnx"
    session = onnxruntime.InferenceSession(str(folder / file))
    values = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    shown = by_name(artifacts[file])
    assert {name: (t["shape"], t["dtype"]) for name, t in shown.items()} == {
        name: (value.shape, {"tensor(float)": "float32"}[value.type]) for name, value in values.items()
    }
    assert [t["name"] for t in artifacts[file] if t["role"] == "state"] == list(STATES)


def test_native(artifacts):
    for precision in ("float32", "float16", "int8"):
        tensors = artifacts[f"model.{precision}.elm"]
        assert [(t["role"], t["name"], t["shape"]) for t in tensors] == [
            ("input", "x", [FEATURES]),
            *(("state", name, [units]) for name, units in STATES.items()),
            ("output", "y", [OUTPUTS]),
        ]
        assert {t["dtype"] for t in tensors} == {"float32"}


def test_sequence_graphs_take_any_number_of_timesteps(folder, artifacts):
    expected = [("input", "x", [1, None, FEATURES]), ("output", "y", [1, None, OUTPUTS])]
    assert [(t["role"], t["name"], t["shape"]) for t in artifacts["model.sequence.tflite"]] == expected
    done = call("inspect", folder / "model.sequence.tflite")
    assert done.status == 0
    assert f"(1, any, {FEATURES})" in done.out


def test_a_single_file_says_what_its_bundle_says(folder, artifacts):
    for file, tensors in artifacts.items():
        shown = json.loads(call("inspect", folder / file, "--json").out)
        assert shown["artifacts"][0]["tensors"] == tensors
        assert shown["states"] == ([] if "sequence" in file else list(STATES))


def test_the_table(bundle):
    text = call("inspect", bundle).out
    # One rule for all precisions, so one table.
    (steps,) = (part for part in text.split("\n\n") if part.startswith("tflite float32, "))
    assert steps == ", ".join(f"tflite {p}" for p in ("float32", "float16", "dynamic", "int16x8", "int8"))
    lines = text.split(steps)[1].strip().splitlines()
    assert lines[0].split() == ["role", "name", "shape", "type"]
    assert lines[3].split() == ["state", "lstm_h", "(1,", "24)", "float32"]


def test_no_interpreter_is_needed(folder, bundle):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('ai_edge_litert', 'onnxruntime', 'tflite_runtime', "
        "'tensorflow', 'edgelstm.runtime._native'))); from edgelstm.runtime.cli import main; "
        "sys.exit(max(main(['inspect', path]) for path in sys.argv[1:]))"
    )
    files = [bundle, *(folder / f"model.int8.{suffix}" for suffix in ("tflite", "elm")), folder / "model.float32.onnx"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("lstm_h_next") >= 4


@pytest.mark.parametrize("file", ["model.int8.tflite", "model.float32.onnx", "model.float32.elm"])
def test_whatever_a_file_holds_it_is_read_or_refused(folder, file):
    """Files changed by someone who puts the checksum right again."""
    content, chance = (folder / file).read_bytes(), random.Random(1)
    format_ = {"elm": "native"}.get(file.split(".")[-1], file.split(".")[-1])
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 4])):
            # Most of a file is weights; what is read lies at its ends.
            at = chance.choice([chance.randrange(2000), len(content) - 1 - chance.randrange(4000)])
            changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        try:
            read_interface(format_, _sealed(format_, bytes(changed)), file)
        except BundleError:
            refused += 1
    assert 0 < refused < 400


def _sealed(format_: str, content: bytes) -> bytes:
    if format_ == "native":
        return content[:12] + struct.pack("<I", zlib.crc32(content[16:])) + content[16:]
    before = CHECKSUM_PREFIX if format_ == "tflite" else CHECKSUM_KEY.encode() + b"\x12\x08"
    at = content.rfind(before) + len(before)
    return content[:at] + checksum(content, at) + content[at + 8 :]
