"""Bundles: whole or not at all, the same bytes each time, and nothing used that was not exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from edgelstm.runtime import Bundle, BundleError, InputError, ParityError, Streaming, load
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime.manifest import File


def test_round_trip_as_file_and_as_folder(parts, tmp_path):
    manifest, files = parts
    for path in (tmp_path / "a.edge", tmp_path / "a"):
        write_bundle(path, manifest, files)
        bundle = Bundle.open(path)
        assert bundle.manifest == manifest
        assert {entry.file: bundle.read(entry) for entry in manifest.files} == files


def test_same_content_same_bytes(parts, tmp_path):
    first, second = (write_bundle(tmp_path / name, *parts).path.read_bytes() for name in ("a.edge", "b.edge"))
    assert first == second


def test_a_zip_tool_reads_it(bundle):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_replacing_a_bundle_and_nothing_else(parts, tmp_path):
    folder = tmp_path / "out"
    write_bundle(folder, *parts)
    (folder / "stale").write_text("old")
    write_bundle(folder, *parts)
    assert not (folder / "stale").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        write_bundle(other, *parts)
    assert (other / "chapter1").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "thesis"]


def test_every_truncation_is_an_error(bundle, tmp_path):
    content = bundle.read_bytes()
    broken = tmp_path / "broken.edge"
    for length in [0, 1, 4, 30, *np.linspace(50, len(content) - 1, 60).astype(int)]:
        broken.write_bytes(content[:length])
        with pytest.raises(BundleError):
            load(broken, "numpy")


@pytest.mark.slow
def test_every_flipped_bit_is_an_error_or_harmless(bundle, tmp_path, xs, expected):
    content = bytearray(bundle.read_bytes())
    broken = tmp_path / "broken.edge"
    for at in np.random.default_rng(1).integers(0, len(content), 250):
        flipped = content.copy()
        flipped[at] ^= 1 << (at % 8)
        broken.write_bytes(flipped)
        try:
            model = load(broken, "tflite")
        except (BundleError, InputError):
            continue
        np.testing.assert_allclose(model.stream().run(xs), expected, atol=2e-6)


def test_a_forged_artifact(parts, tmp_path):
    manifest, files = parts
    other = bytearray(files["model.float32.tflite"])
    other[-40] ^= 1
    path = write_bundle(tmp_path / "forged.edge", manifest, {**files, "model.float32.tflite": bytes(other)}).path
    with pytest.raises(BundleError, match="SHA-256"):
        load(path, "tflite")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\b", "C:b", ""])
@pytest.mark.parametrize("folder", [False, True])
def test_paths_that_leave_the_bundle(edited, name, folder):
    path = edited(lambda raw: raw["artifacts"][0].update(file=name), folder)
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(path)


def test_a_link_that_leaves_the_folder(parts, tmp_path):
    folder, secret = tmp_path / "linked", tmp_path / "secret"
    write_bundle(folder, *parts)
    secret.write_bytes((folder / "model.float32.elm").read_bytes())
    (folder / "model.float32.elm").unlink()
    (folder / "model.float32.elm").symlink_to(secret)
    with pytest.raises(BundleError, match="outside the bundle"):
        load(folder, "numpy")


@pytest.mark.slow
def test_a_zip_bomb_is_not_unpacked(parts, tmp_path):
    manifest, files = parts
    bomb = bytes(200 * 2**20)
    tflite, network = manifest.artifacts
    network = replace(network, **vars(File.of("model.float32.elm", bomb)))
    manifest = replace(manifest, artifacts=(tflite, network))
    path = tmp_path / "bomb.edge"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", manifest.to_bytes(), zipfile.ZIP_STORED)
        for name, data in files.items():
            archive.writestr(name, bomb if name == "model.float32.elm" else data)
    assert path.stat().st_size < 2**20
    with pytest.raises(BundleError, match="compressed"):
        load(path, "numpy")


def test_a_huge_manifest_is_not_read(tmp_path):
    path = tmp_path / "huge.edge"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(64 * 2**20))
    with pytest.raises(BundleError):
        Bundle.open(path)


def test_a_later_version_says_so(edited):
    with pytest.raises(BundleError, match="newer"):
        Bundle.open(edited(lambda raw: raw.update(version=99)))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("artifacts"),
        lambda raw: raw.pop("version"),
        lambda raw: raw.update(version="new"),
        lambda raw: raw.update(golden=None),
        lambda raw: raw.update(golden=7),
        lambda raw: raw.update(features=None),
        lambda raw: raw.update(surprise=1),
        lambda raw: raw["artifacts"][0].pop("parity"),
        lambda raw: raw["golden"].update(size=-1),
        lambda raw: raw["golden"].update(size="many"),
        lambda raw: raw["golden"].update(file=3),
        lambda raw: raw["golden"].update(sha256="0" * 63),
        lambda raw: raw["golden"].update(size=True),
        lambda raw: raw["golden"].update(file=raw["artifacts"][0]["file"]),
        lambda raw: raw.update(features=[]),
        lambda raw: raw.update(features="abc"),
        lambda raw: raw.update(features=["a", 2, "c"]),
        lambda raw: raw.update(name=None),
        lambda raw: raw.update(parameters=-1),
        lambda raw: raw.update(parameters=1.5),
        lambda raw: raw.update(artifacts={}),
        lambda raw: raw.update(artifacts=[None]),
        lambda raw: raw.update(versions={"numpy": 2}),
        lambda raw: raw.update(training=[]),
        lambda raw: raw.update(training={"a": nested(50)}),
        lambda raw: raw["artifacts"][0].update(format="pickle"),
        lambda raw: raw["artifacts"][0].update(precision="int4"),
        lambda raw: raw["artifacts"][0].update(graph=["step"]),
        lambda raw: raw["artifacts"][0].update(min_snr_db=float("nan")),
        lambda raw: raw["artifacts"][0]["parity"].update(snr_db="high"),
        lambda raw: raw["artifacts"][0]["parity"].update(surprise=1),
        lambda raw: raw["streaming"].update(mode="sideways"),
        lambda raw: raw["streaming"].update(mode="window", window=None),
        lambda raw: raw["streaming"].update(window=0),
        lambda raw: raw["streaming"].update(hop=2**40),
        lambda raw: raw["streaming"].update(bounded="yes"),
        lambda raw: raw.update(streaming=7),
    ],
)
def test_manifests_that_are_none(edited, change):
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(edited(change))


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", b"null", b'"manifest"', b"[" * 100_000, b"\xff\xfe", b'{"version": 2}']
)
def test_manifests_of_another_shape(edited, content, parts, tmp_path):
    path = tmp_path / "other.edge"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(path)


def test_an_earlier_version_says_so(edited):
    with pytest.raises(BundleError, match=r"older .* export it again"):
        Bundle.open(edited(lambda raw: raw.update(version=1)))


def test_widths_that_contradict_the_artifact(edited):
    with pytest.raises(BundleError, match="widths"):
        load(edited(lambda raw: raw.update(features=["a", "b"])), "tflite")


def test_two_files_of_one_name(bundle):
    with zipfile.ZipFile(bundle, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.float32.elm", b"other")
    with pytest.raises(BundleError, match="2 files called"):
        load(bundle, "numpy")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", b"PK\x05\x06" + bytes(18)])
def test_files_that_are_no_bundle(tmp_path, content):
    path = tmp_path / "x.edge"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.edge"):
        load(path)


def test_nothing_there(tmp_path):
    with pytest.raises(BundleError, match="no such file"):
        load(tmp_path / "absent.edge")
    with pytest.raises(BundleError, match="missing"):
        load(tmp_path)


def test_unknown_backend_and_missing_artifact(bundle):
    with pytest.raises(InputError, match="no backend 'tensorrt'"):
        load(bundle, backend="tensorrt")
    with pytest.raises(InputError, match="it has tflite float32"):
        load(bundle, precision="int8")


def test_golden_vectors_are_verified_here(bundle, edited, parts, tmp_path):
    for backend in ("tflite", "numpy"):
        assert load(bundle, backend).verify().snr_db > 100
    manifest, files = parts
    golden = Bundle.open(bundle).golden()
    wrong = replace(golden, outputs=golden.outputs + np.float32(0.01)).to_bytes()
    path = write_bundle(
        tmp_path / "wrong.edge", replace(manifest, golden=File.of("golden.npz", wrong)), {**files, "golden.npz": wrong}
    ).path
    with pytest.raises(ParityError, match="does not compute here what Keras computed"):
        load(path).verify()


def test_an_unwritable_place_says_so(parts, tmp_path):
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "absent" / "x.edge", *parts)
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "absent" / "x", *parts)


@pytest.mark.parametrize("name", ["x.edge", "x"])
def test_a_full_disk_leaves_nothing(parts, tmp_path, name):
    """A file size limit stands in for the full disk: the write fails in the middle, as it would there."""
    manifest, files = parts
    before = write_bundle(tmp_path / "kept.edge", manifest, files).path.read_bytes()
    code = f"""
import pickle, resource, signal, sys
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime import BundleError
manifest, files = pickle.load(sys.stdin.buffer)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for path in ({str(tmp_path / name)!r}, {str(tmp_path / "kept.edge")!r}):
    try:
        write_bundle(path, manifest, files)
    except BundleError as error:
        print(error)
"""
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((manifest, files)), capture_output=True, check=True
    )
    assert done.stdout.decode().count("cannot be written") == 2
    assert os.listdir(tmp_path) == ["kept.edge"]
    assert (tmp_path / "kept.edge").read_bytes() == before


def test_bare_tflite_files(parts, tmp_path, xs, expected):
    path = tmp_path / "model.tflite"
    content = parts[1]["model.float32.tflite"]
    path.write_bytes(content)
    model = load(path)
    assert (model.features, model.outputs, model.streaming) == (("a", "b", "c"), ("u", "v"), Streaming("carry", 4))
    np.testing.assert_allclose(model.stream().run(xs), expected, atol=2e-6)
    with pytest.raises(InputError, match="no golden vectors"):
        model.verify()
    with pytest.raises(InputError, match="does not run tflite"):
        load(path, backend="onnx")


def test_damaged_bare_tflite_files_never_reach_an_interpreter(parts, tmp_path):
    content = bytearray(parts[1]["model.float32.tflite"])
    path = tmp_path / "model.tflite"
    rng = np.random.default_rng(2)
    for at in rng.integers(0, len(content), 150):
        flipped = content.copy()
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        with pytest.raises(BundleError):
            load(path)
    for length in rng.integers(0, len(content), 60):
        path.write_bytes(content[:length])
        with pytest.raises(BundleError):
            load(path)


def test_tflite_files_of_others(tmp_path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version = 3
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path / "other.tflite"
    path.write_bytes(builder.Output())
    with pytest.raises(BundleError, match="not written by EdgeLSTM"):
        load(path)


def test_manifest_is_json_that_people_can_read(bundle):
    with zipfile.ZipFile(bundle) as archive:
        raw = json.loads(archive.read("manifest.json"))
    assert raw["version"] == 2
    assert raw["artifacts"][0]["format"] == "tflite"
    assert len(raw["artifacts"][0]["sha256"]) == 64
