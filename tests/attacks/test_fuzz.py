"""Fuzzers of all that comes from outside: an error of ours, or something that works; never another exception."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from edgelstm.export import read_keras
from edgelstm.runtime import BundleError, EdgeLSTMError, Golden, InputError, Manifest, load
from edgelstm.runtime.backends import open_artifact
from edgelstm.runtime.mqtt.payload import PayloadReader

from tests.attacks.budget import damaged, fuzz, rearranged
from tests.zoo import saved_in_both_formats

pytestmark = pytest.mark.slow
KERAS2 = Path(__file__).parents[1] / "export" / "keras2" / "gru_and_activation_layers.h5"


@pytest.mark.parametrize("mode", [{}, {"window": 4}], ids=["carry", "window"])
@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_snapshots(bundle, xs, backend, mode):
    """What is accepted can be stepped, saved and restored again; what is not leaves the state as it was."""
    model = load(bundle, backend)
    stream, fleet = model.stream(**mode), model.fleet(2, **mode)
    stream.run(xs[:7])
    saved = stream.snapshot()

    def case(rng):
        content = damaged(saved, rng)
        if rng.random() < 0.8:
            content = content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))
        stream.restore(saved)
        try:
            stream.restore(content)
            fleet.restore(1, content)
        except InputError:
            assert stream.snapshot() == saved
            raise
        got = stream.step(xs[0])
        assert got is None or got.shape == (2,)
        stream.reset()
        if stream.healthy:
            fleet.step(xs[:1], [1])

    assert fuzz(case) > 0


def test_manifests(parts):
    """By value and by byte; what is accepted gives the same bytes again."""
    content = parts[0].to_bytes()
    value = json.loads(content)

    def case(rng):
        changed = json.dumps(rearranged(value, rng)).encode() if rng.random() < 0.7 else damaged(content, rng)
        manifest = Manifest.from_bytes(changed, "m.edge")
        assert Manifest.from_bytes(manifest.to_bytes(), "again") == manifest
        assert "\n".join((manifest.name, *manifest.features, *manifest.outputs, *manifest.layers)).encode()

    assert fuzz(case) > 0


def test_golden_vectors(parts):
    """Of the zip and of the arrays in it, with the zip's own checksums right."""
    content = parts[1]["golden.npz"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def case(rng):
        changed = damaged(content, rng)
        if rng.random() < 0.7:
            buffer, name = io.BytesIO(), str(rng.choice(list(members)))
            with zipfile.ZipFile(buffer, "w") as archive:
                for member, data in members.items():
                    header = damaged(data[:128], rng) + data[128:] if member == name else data
                    archive.writestr(member, header)
            changed = buffer.getvalue()
        golden = Golden.from_bytes(changed, "golden.npz")
        assert sum(len(sequence) for sequence in golden.sequences()) == len(golden.inputs)

    fuzz(case)


@pytest.mark.parametrize("kind", ["auto", "json", "float32"])
def test_mqtt_payloads(kind):
    reader = PayloadReader(("a", "b", "c"), ("u", "v"), kind, "seq")
    seeds = [b'{"a": 1, "b": 2.5, "c": -3e2, "seq": 7}', b"[1, 2, 3]", np.ones(3, "<f4").tobytes()]
    value = json.loads(seeds[0])

    def case(rng):
        seed = seeds[int(rng.integers(len(seeds)))]
        reading = reader.read(json.dumps(rearranged(value, rng)).encode() if rng.random() < 0.4 else damaged(seed, rng))
        assert len(reading.values) == 3
        assert reader.answer(reading, np.ones(2, np.float32))

    assert fuzz(case) > 0


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_native_files(parts, backend):
    """With the checksum put right. tests/engine/test_fuzz.py does this to the engine alone, with sanitizers."""
    content = parts[1]["model.float32.elm"]

    def case(rng):
        changed = bytearray(damaged(content, rng))
        if len(changed) >= 20:
            changed[16:20] = len(changed).to_bytes(4, "little")
            changed[12:16] = zlib.crc32(changed[16:]).to_bytes(4, "little")
        opened = open_artifact(backend, bytes(changed), "m.elm")
        session = opened.session()
        session.x[...] = 1
        with np.errstate(all="ignore"):
            session.advance()

    assert fuzz(case) > 0


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    return saved_in_both_formats(tmp_path_factory.mktemp("keras"))


@pytest.mark.parametrize("kind", ["m.keras", "m.h5", "keras2.h5"])
def test_keras_files(keras_files, tmp_path, kind, monkeypatch):
    """Configurations by value, members and headers by byte."""
    monkeypatch.chdir(tmp_path)
    whole = KERAS2.read_bytes() if kind == "keras2.h5" else (keras_files / kind).read_bytes()
    path = tmp_path / kind

    def keras_case(rng):
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = str(rng.choice(["config.json", "config.json", "metadata.json", "model.weights.h5"]))
        if name.endswith("json") and rng.random() < 0.8:
            members[name] = json.dumps(rearranged(json.loads(members[name]), rng)).encode()
        else:
            members[name] = damaged(members[name][:2048], rng) + members[name][2048:]
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)

    def h5_case(rng):
        if rng.random() < 0.5:
            path.write_bytes(damaged(whole[:2048], rng) + whole[2048:])
            return
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            config = json.loads(file.attrs["model_config"])
            del file.attrs["model_config"]  # In place, it would have to fit.
            file.attrs["model_config"] = np.bytes_(json.dumps(rearranged(config, rng)).encode())

    def case(rng):
        (keras_case if kind == "m.keras" else h5_case)(rng)
        if rng.random() < 0.1:
            path.write_bytes(damaged(path.read_bytes(), rng))
        network = read_keras(path)
        assert network.features >= 1

    fuzz(case)
    assert {file.name for file in tmp_path.iterdir()} == {kind}


def test_a_fuzzer_names_the_seed_of_what_fails(monkeypatch):
    """Or nothing would come of what it finds."""
    monkeypatch.setattr("tests.attacks.budget.SECONDS", 0)

    def case(rng):
        if rng.integers(3) == 0:
            raise KeyError("x")
        raise BundleError("no")

    with pytest.raises(pytest.fail.Exception, match=r"EDGELSTM_FUZZ_SEED=\d+: KeyError") as raised:
        fuzz(case)
    seed = int(str(raised.value).partition("=")[2].partition(":")[0])
    with pytest.raises(KeyError):
        case(np.random.default_rng(seed))
    assert issubclass(BundleError, EdgeLSTMError)
