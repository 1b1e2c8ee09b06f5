"""`edgelstm export`: what it writes, what it refuses, and that it never leaves half of anything."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from edgelstm.export import export
from edgelstm.export.to_c import compiler
from edgelstm.runtime import Bundle, load
from edgelstm.runtime.errors import BundleError
from edgelstm.runtime.parity import TOLERANCES

from tests.export.interpreters import litert_sequence, snr_db
from tests.toolkit.conftest import FEATURES, OUTPUTS, call
from tests.toolkit.test_train import config, run, series_csv  # noqa: F401

EVERYTHING = {
    *("tflite float32", "tflite float16", "tflite dynamic", "tflite int8", "tflite int16x8"),
    *("onnx float32", "onnx float16", "onnx dynamic"),
    *(f"tflite {p} (sequence)" for p in ("float32", "float16", "dynamic", "int8", "int16x8")),
    *("native float32", "native float16", "native int8"),
}


@pytest.mark.slow
def test_everything_at_once(bundle, recorded):
    manifest = Bundle.open(bundle).manifest
    assert {a.label for a in manifest.artifacts} == EVERYTHING
    assert (manifest.features, manifest.outputs) == (("a", "b", "c"), ("u", "v"))
    assert (manifest.streaming.mode, manifest.streaming.window) == ("carry", 20)
    golden = Bundle.open(bundle).golden()
    assert len(golden.inputs) >= 1000
    assert len(golden.starts) > 1
    rows = np.loadtxt(recorded, delimiter=",", skiprows=1, dtype=np.float32)[:, [3, 2, 0]]
    assert {row.tobytes() for row in golden.inputs} <= {row.tobytes() for row in rows}


@pytest.mark.slow
def test_the_table_and_the_object_say_what_the_manifest_says(keras_file, tmp_path):
    path = tmp_path / "x.edge"
    text = call("export", keras_file, "-o", path, "--precision", "float32,dynamic")
    assert text.status == 0
    again = ("--overwrite", "--json")
    shown = json.loads(call("export", keras_file, "-o", path, "--precision", "float32,dynamic", *again).out)
    assert shown["bundle"] == str(path)
    described = {a["artifact"]: a for a in shown["artifacts"]}
    for artifact in Bundle.open(path).manifest.artifacts:
        row = next(line for line in text.out.splitlines() if line.startswith(artifact.label + " "))
        assert f"{artifact.size:,}" in row
        assert f"{artifact.parity.snr_db:.1f}" in row
        assert described[artifact.label]["parity"]["snr_db"] == pytest.approx(artifact.parity.snr_db)
        assert described[artifact.label]["size"] == artifact.size


@pytest.mark.slow
def test_a_folder_and_the_default_place(keras_file, tmp_path):
    copy = shutil.copy(keras_file, tmp_path / "mine.keras")
    assert call("export", copy, "--format", "onnx").status == 0
    assert Bundle.open(tmp_path / "mine.edge").manifest.name == "mine"
    assert call("export", copy, "--format", "onnx", "-o", tmp_path / "folder").status == 0
    assert {p.name for p in (tmp_path / "folder").iterdir()} == {
        *("manifest.json", "manifest.json.sha256", "model.float32.onnx", "model.float32.elm", "golden.npz")
    }
    x = np.ones(FEATURES, np.float32)
    first, second = (load(tmp_path / name).stream().step(x) for name in ("mine.edge", "folder"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_combinations_that_do_not_exist_are_named(keras_file, recorded, tmp_path):
    arguments = ("export", keras_file, "-o", tmp_path / "x.edge", "--calibration", recorded, "--features", "a,b,c")
    done = call(*arguments, "--precision", "float32,int8")
    assert done.status == 0
    assert "left out: onnx int8" in done.err
    done = call(*arguments, "--precision", "int8", "--format", "onnx")
    assert done.status == 2
    assert "nothing to export: onnx int8" in done.err


@pytest.mark.slow
def test_sequence_graphs_in_every_precision(keras_file, recorded, tmp_path):
    import keras

    path = tmp_path / "x.edge"
    arguments = ("export", keras_file, "-o", path, "--graph", "sequence", "--precision", "all", "--features", "a,b,c")
    done = call(*arguments)
    assert (done.status, path.exists()) == (2, False)
    assert "int16x8 and int8 need calibration data" in done.err
    done = call(*arguments, "--calibration", recorded)
    assert done.status == 0, done.err
    assert call("verify", path).status == 0
    listed = call("inspect", path).out
    rows = np.loadtxt(recorded, delimiter=",", skiprows=1, dtype=np.float32)[:, [3, 2, 0]]
    want = keras.models.load_model(keras_file, compile=False)(rows[None]).numpy()[0]
    with zipfile.ZipFile(path) as archive:
        for precision, least in TOLERANCES.items():
            label = f"tflite {precision} (sequence)"
            (row,) = (line for line in done.out.splitlines() if line.startswith(label))
            assert row.endswith("ok")
            assert label in listed
            file = "model.sequence.tflite" if precision == "float32" else f"model.sequence.{precision}.tflite"
            assert snr_db(litert_sequence(archive.read(file), rows)[0], want) >= least


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int8"], ["int8 needs calibration data", "--calibration FILE"]),
        (["--precision", "all"], ["int16x8 and int8 need calibration data"]),
        (["--precision", "int4"], ["no precision 'int4'", "float32, float16"]),
        (["--format", "coreml"], ["no format 'coreml'", "tflite, onnx"]),
        (["--graph", "steps"], ["no graph 'steps'", "step, sequence"]),
        (["--features", "a,b"], ["3 features", "got 2 names"]),
        (["--features", "a,b,b"], ["3 features"]),
        (["--outputs", "u"], ["2 outputs", "got 1 names"]),
        (["--calibration", "absent.npy"], ["absent.npy", "cannot be read"]),
        (["--calibration", "absent.csv"], ["absent.csv"]),
        (["--calibration", "notes.txt"], ["notes.txt", ".npy, .npz or .csv"]),
        (["--window", "0"], ["at least 1 timestep"]),
        (["--min-snr", "nan"], ["not NaN"]),
        (["-o", "absent/x.edge"], ["absent", "does not exist"]),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(keras_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = call("export", keras_file, "-o", "x.edge", *arguments)
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("edgelstm: error: ")
    for word in words:
        assert word in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", np.zeros((5, FEATURES + 1), np.float32), "model takes (timesteps, 3)"),
        ("a.npy", np.zeros((0, FEATURES), np.float32), "no timesteps"),
        ("a.npy", np.array([[1, np.nan, 2]], np.float32), "timestep 0, feature 1 is not a finite"),
        ("a.npy", np.array([["1", "2", "3"]]), "not numbers"),
        ("a.npy", np.array([[1, 1e300, 2]]), "feature 1 is not a finite float32"),
        ("a.csv", "a,b,c\n", "a.csv"),
        ("a.csv", "", "a.csv"),
        ("a.csv", "a,b,c\n1,2,3\n4,5\n", "line 3"),
        ("a.csv", "a,b,c\n1,2,x\n", "line 2"),
        ("a.csv", "a,b,c\n1,2,nan\n", "a.csv"),
        ("a.csv", "a,b,d\n1,2,3\n", "c"),
        ("a.npz", b"PK\x03\x04 no zip", "cannot be read"),
    ],
)
def test_bad_calibration_data(keras_file, tmp_path, name, content, words):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    done = call(
        *("export", keras_file, "-o", tmp_path / "x.edge", "--precision", "int8", "--features", "a,b,c"),
        *("--calibration", path),
    )
    assert done.status == 2
    assert words in done.err
    assert str(path) in done.err
    assert not (tmp_path / "x.edge").exists()


@pytest.mark.slow
def test_calibration_as_npy_npz_and_csv_gives_the_same_file(keras_file, recorded, tmp_path):
    rows = np.loadtxt(recorded, delimiter=",", skiprows=1, dtype=np.float32)[:, [3, 2, 0]]
    np.save(tmp_path / "cal.npy", rows)
    np.savez(tmp_path / "cal.npz", sequences=rows[None], other=np.zeros(3))
    hashes = set()
    for source in (recorded, tmp_path / "cal.npy", tmp_path / "cal.npz"):
        path = tmp_path / f"{source.suffix[1:]}.edge"
        arguments = ("--precision", "int8", "--format", "tflite", "--calibration", source, "--features", "a,b,c")
        assert call("export", keras_file, "-o", path, *arguments).status == 0
        hashes.add(path.read_bytes())
    assert len(hashes) == 1


@pytest.mark.slow
def test_beyond_tolerance_no_bundle_and_a_table(keras_file, tmp_path):
    path = tmp_path / "x.edge"
    arguments = ("export", keras_file, "-o", path, "--precision", "float32,dynamic", "--min-snr", "95")
    done = call(*arguments)
    assert done.status == 1
    assert not list(tmp_path.iterdir())
    results = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert results["tflite float32"].endswith("ok")
    assert "FAILED by" in results["tflite dynamic"]
    assert "no bundle is written" in done.err
    done = call(*arguments, "--keep-going")
    assert done.status == 1
    assert {a.precision for a in Bundle.open(path).manifest.artifacts} == {"float32"}


@pytest.mark.slow
def test_a_failing_export_leaves_the_bundle_that_was_there(keras_file, tmp_path):
    path = tmp_path / "x.edge"
    assert call("export", keras_file, "-o", path).status == 0
    before = path.read_bytes()
    again = ("export", keras_file, "-o", path, "--precision", "dynamic", "--min-snr", "95", "--overwrite")
    assert call(*again).status == 1
    assert path.read_bytes() == before


def test_a_model_is_not_overwritten_by_its_bundle(keras_file, tmp_path):
    copy = shutil.copy(keras_file, tmp_path / "mine.keras")
    before = copy.read_bytes()
    done = call("export", copy, "-o", copy)
    assert done.status == 2
    assert copy.read_bytes() == before


@pytest.mark.slow
def test_a_place_that_cannot_be_written(keras_file):
    done = call("export", keras_file, "-o", "/proc/x.edge", "--format", "onnx")
    assert done.status == 2
    assert "/proc/x.edge: cannot be written" in done.err


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(keras_file, tmp_path):
    """A limit on the size of files stands in for the full disk: the write fails in the middle, as it would there."""

    room = keras_file.stat().st_size + 2000  # For a copy of the model, which is taken apart, but not for the bundle.

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    command = [sys.executable, "-m", "edgelstm.toolkit.cli", "export", keras_file, "-o", tmp_path / "x.edge"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, env=ENVIRONMENT)
    assert done.returncode == 2
    assert "x.edge: cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"}


@pytest.mark.slow
def test_without_the_toolkit_s_packages(keras_file):
    """As on a device: the packages are there or not, and the message says which extra brings them."""
    code = (
        "import sys; sys.modules['keras'] = None; from edgelstm.toolkit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for arguments in (["export", keras_file], ["inspect", keras_file]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert 'needs the package keras: pip install "edgelstm[toolkit]"' in done.stderr
        assert "Traceback" not in done.stderr


def both_ways(folder, steps, return_sequences=False):
    """A file of a model whose state cannot be carried."""
    import keras

    keras.utils.set_random_seed(0)
    recurrent = keras.layers.LSTM(4, return_sequences=return_sequences)
    model = keras.Sequential([keras.Input((steps, 3)), keras.layers.Bidirectional(recurrent), keras.layers.Dense(2)])
    model.save(folder / "both.keras")
    return folder / "both.keras"


def test_refused_models_say_so_without_a_traceback(tmp_path):
    path = both_ways(tmp_path, steps=None)
    done = call("export", path)
    assert done.status == 2
    assert "Bidirectional" in done.err
    assert "--window T" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["both.keras"]


@pytest.mark.slow
def test_models_that_carry_no_state_as_sequence_graphs(tmp_path):
    path = both_ways(tmp_path, steps=None, return_sequences=True)
    done = call("export", path, "--graph", "sequence")
    assert done.status == 0, done.err
    assert "sequence graphs only" in done.out
    assert {a.label for a in Bundle.open(tmp_path / "both.edge").manifest.artifacts} == {
        *("tflite float32 (sequence)", "onnx float32 (sequence)")
    }
    assert call("verify", tmp_path / "both.edge").status == 0
    assert "sequence graphs only" in call("inspect", tmp_path / "both.edge").out
    done = call("run", tmp_path / "both.edge")
    assert done.status == 2
    assert "without --graph sequence" in done.err


@pytest.mark.slow
def test_a_run_folder_needs_no_further_arguments(run, tmp_path):  # noqa: F811
    folder = shutil.copytree(run.path, tmp_path / "run")
    done = call("export", folder, "--precision", "all")
    assert done.status == 0, done.err
    manifest = Bundle.open(folder / "model.edge").manifest
    assert len(manifest.artifacts) == 11
    assert (manifest.features, manifest.streaming.window) == (("a", "b"), 12)
    assert manifest.streaming.mode == run.streaming
    assert manifest.training["target"] == "a"


@pytest.mark.slow
def test_a_file_for_tflite_runtime_2_14_has_old_operators_only(keras_file, tmp_path):
    from ai_edge_litert import schema_py_generated as schema

    versions = {}
    for switch in ([], ["--tflite-runtime-2.14"]):
        path = tmp_path / f"{len(switch)}.edge"
        arguments = ("--format", "tflite", "--precision", "dynamic", *switch)
        assert call("export", keras_file, "-o", path, *arguments).status == 0
        artifact, _ = Bundle.open(path).manifest.artifacts
        codes = schema.ModelT.InitFromPackedBuf(Bundle.open(path).read(artifact)).operatorCodes
        product = schema.BuiltinOperator.FULLY_CONNECTED
        versions[bool(switch)] = max(code.version for code in codes if code.builtinCode == product)
        x = np.random.default_rng(0).standard_normal((50, FEATURES)).astype(np.float32)
        ys = load(path, precision="dynamic").stream().run(x)
        assert ys.shape == (50, OUTPUTS)
        assert snr_db(ys, load(path, "numpy").stream().run(x)) > 25
    assert versions[True] <= 9 < versions[False]


@pytest.mark.slow
def test_a_folder_of_c(keras_file, recorded, tmp_path, monkeypatch):
    """As on a machine without a compiler; what the compilers say of it is another test's."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    done = call(
        *("export", keras_file, "-o", tmp_path / "pump", "--format", "c", "--precision", "int8"),
        *("--calibration", recorded, "--features", "a,b,c", "--outputs", "u,v", "--json"),
    )
    assert done.status == 0, done.err
    described = json.loads(done.out)
    assert described["parity"]["snr_db"] >= described["min_snr_db"] == TOLERANCES["int8"]
    assert {"pump.h", "pump.c", "main.c", "CMakeLists.txt", "README.md", "engine"} == {
        file.name for file in (tmp_path / "pump").iterdir()
    }
    header = (tmp_path / "pump" / "pump.h").read_text()
    assert "#define PUMP_FEATURES 3 /* a, b, c */" in header
    assert f"#define PUMP_MEMORY {described['state']}\n" in header


@pytest.mark.slow
def test_a_folder_of_c_takes_the_place_of_another_and_is_compiled(keras_file, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "ELSEWHERE", ())  # That takes longest, and is another test's.
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        assert call("export", keras_file, "-o", tmp_path / "pump", "--format", "c").status == 0
    again = call("export", keras_file, "-o", tmp_path / "pump", "--format", "c", "--overwrite")
    assert "float32, 1" in again.out
    assert "dB against Keras" in again.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "c,onnx"), "c is a folder of its own"),
        (("--format", "c", "--precision", "all"), "of one precision"),
        (("--format", "c", "--precision", "int16x8"), "c has no precision 'int16x8'"),
        (("--format", "c", "--graph", "sequence"), "takes neither --graph"),
    ],
)
def test_what_a_folder_of_c_cannot_be(keras_file, tmp_path, arguments, words):
    done = call("export", keras_file, "-o", tmp_path / "pump", *arguments)
    assert (done.status, list(tmp_path.iterdir())) == (2, [])
    assert words in done.err


# ---- progress, and what is there already ----


def quick(keras_file, output, *more):
    return "export", keras_file, "-o", output, "--format", "native", *more


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("x.edge", ()),
        pytest.param("folder", (), marks=pytest.mark.slow),
        pytest.param("c", ("--format", "c"), marks=pytest.mark.slow),
    ],
)
def test_nothing_is_replaced_unless_asked_for(keras_file, tmp_path, monkeypatch, name, more):
    monkeypatch.setattr(shutil, "which", lambda name: None)  # What the compilers say of it is another test's.
    output = tmp_path / name
    assert call(*quick(keras_file, output, *more)).status == 0
    before = {path: path.read_bytes() for path in [output, *output.rglob("*")] if path.is_file()}
    done = call(*quick(keras_file, output, *more, "--min-snr", 90))
    assert (done.status, done.out) == (2, "")
    assert f"{output}: is there already; pass --overwrite, or choose another -o" in done.err
    assert {path: path.read_bytes() for path in before} == before
    # What the message says helps.
    done = call(*quick(keras_file, output, *more, "--min-snr", 90, "--overwrite"))
    assert done.status == 0, done.err
    assert {path: path.read_bytes() for path in before} != before


@pytest.mark.slow
def test_what_is_no_bundle_is_never_replaced(keras_file, tmp_path):
    notes, folder = tmp_path / "x.edge", tmp_path / "notes"
    notes.write_text("my notes")
    folder.mkdir()
    (folder / "notes.txt").write_text("more")
    for output, more in ((notes, ()), (folder, ()), (folder, ("--format", "c"))):
        done = call(*quick(keras_file, output, *more, "--overwrite"))
        assert done.status == 2
        assert "exists and is not a" in done.err
    assert (notes.read_text(), (folder / "notes.txt").read_text()) == ("my notes", "more")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export(keras_file, notes, formats=["native"])
    assert notes.read_text() == "my notes"


def test_nor_is_another_zip_a_pipe_or_the_model_itself(keras_file, tmp_path):
    document, link, pipe = tmp_path / "x.edge", tmp_path / "link.edge", tmp_path / "pipe.edge"
    with zipfile.ZipFile(document, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    model = shutil.copy(keras_file, tmp_path / "m.keras")
    link.hardlink_to(model)  # A Keras file is a zip too.
    os.mkfifo(pipe)
    before = document.read_bytes(), link.read_bytes()
    for output in (document, link, pipe, model):
        done = call(*quick(model, output, "--overwrite"))
        assert done.status == 2
        assert f"{output}: exists and is not a bundle; choose another -o or remove it" in done.err
    assert (document.read_bytes(), link.read_bytes()) == before


@pytest.mark.slow
def test_in_python_a_bundle_is_replaced(keras_file, tmp_path):
    for name in ("first", "second"):
        export(keras_file, tmp_path / "x.edge", formats=["native"], name=name)
    assert load(tmp_path / "x.edge").name == "second"


@pytest.mark.slow
def test_a_damaged_bundle_can_be_written_again(keras_file, tmp_path):
    output = tmp_path / "x.edge"
    assert call(*quick(keras_file, output)).status == 0
    output.write_bytes(output.read_bytes()[:-100])
    assert call("verify", output).status == 2
    assert call(*quick(keras_file, output, "--overwrite")).status == 0
    assert call("verify", output, "--backend", "native").status == 0


@pytest.mark.slow
def test_progress_without_a_terminal(keras_file, tmp_path):
    done = call(*quick(keras_file, tmp_path / "x.edge", "--precision", "float32,int8"))
    assert done.err.splitlines() == [
        "1/3 Keras's own answers",
        "2/3 native float32, replayed against Keras",
        "3/3 native int8, replayed against Keras",
    ]
    assert call(*quick(keras_file, tmp_path / "y.edge", "--json")).err == ""


@pytest.mark.slow
def test_progress_on_a_terminal(keras_file, tmp_path):
    import pty

    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "edgelstm.toolkit.cli", *map(str, quick(keras_file, tmp_path / "x.edge"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, env={**os.environ, "TERM": "xterm"})
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # The end of a terminal is an error.
        while data := os.read(terminal, 4096):
            seen += data
    os.close(terminal)
    assert process.communicate()[0].startswith(b"artifact ")
    assert process.returncode == 0
    assert b"native float32, replayed against Keras" in seen
    # It is a bar, which goes away, and TensorFlow's chatter does not come through.
    assert "━".encode() in seen
    assert b"oneDNN" not in seen
    assert b"cuda" not in seen.lower()
