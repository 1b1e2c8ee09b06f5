"""`edgelstm verify`, `inspect`, `bench` and `demo`, and `run` beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from edgelstm.runtime import BackendUnavailableError, load

from tests.runtime.test_window_graphs import bundle_of
from tests.toolkit.conftest import FEATURES, OUTPUTS, call

ARTIFACTS = 16


# ---- verify ----


@pytest.mark.slow
def test_golden_vectors_of_every_artifact(bundle):
    done = call("verify", bundle)
    assert done.status == 0
    rows = done.out.splitlines()[2:]
    assert len(rows) == ARTIFACTS + 3  # NumPy runs the three native files too
    assert all(row.endswith("ok") for row in rows)
    checks = json.loads(call("verify", bundle, "--json").out)["checks"]
    assert all(
        check["passed"] and check["parity"]["steps"] >= 1000 for check in checks if "seq" not in check["artifact"]
    )
    only = json.loads(call("verify", bundle, "--backend", "onnx", "--precision", "float16", "--json").out)["checks"]
    assert [check["artifact"] for check in only] == ["onnx float16"]


@pytest.mark.slow
def test_against_a_keras_file_on_other_data(bundle, keras_file, tmp_path):
    import keras

    xs = np.random.default_rng(8).standard_normal((500, FEATURES)).astype(np.float32)
    np.save(tmp_path / "other.npy", xs)
    arguments = ("verify", bundle, "--against", keras_file, "--data", tmp_path / "other.npy")
    done = call(*arguments)
    assert done.status == 0
    assert done.out.startswith("500 timesteps in one stream")
    checks = {c["artifact"]: c for c in json.loads(call(*arguments, "--json").out)["checks"]}
    want = np.array(keras.models.load_model(keras_file)(xs[None]))[0]
    for label, precision in (("tflite int8", "int8"), ("tflite dynamic", "dynamic")):
        error = load(bundle, "tflite", precision).stream().run(xs) - want
        assert checks[label]["parity"]["max_abs_error"] == pytest.approx(np.abs(error).max(), rel=1e-3)
        assert checks[label]["parity"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)


@pytest.mark.slow
def test_against_another_model_fails(bundle, keras_file, tmp_path):
    import keras

    model = keras.models.load_model(keras_file)
    kernel, *others = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel * np.float32(1.01), *others])
    model.save(tmp_path / "other.keras")
    done = call("verify", bundle, "--against", tmp_path / "other.keras", "--precision", "float32")
    assert done.status == 1
    assert done.out.count("FAILED") == 4
    keras.utils.set_random_seed(0)
    narrow = keras.Sequential([keras.Input((None, FEATURES + 1)), keras.layers.LSTM(4)])
    narrow.save(tmp_path / "narrow.keras")
    done = call("verify", bundle, "--against", tmp_path / "narrow.keras")
    assert done.status == 2
    assert f"takes {FEATURES + 1} features and gives 4 outputs" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "10"], "need --against"),
        (["--data", "x.npy"], "need --against"),
        (["--backend", "coreml"], "no backend 'coreml'"),
        (["--precision", "int4"], "holds nothing"),
        (["--against", "absent.keras"], "no such file"),
    ],
)
def test_bad_arguments_of_verify(bundle, arguments, words):
    done = call("verify", bundle, *arguments)
    assert done.status == 2
    assert words in done.err


@pytest.mark.slow
def test_no_drift_in_40_000_steps(bundle, keras_file):
    """The error of the last 4,000 timesteps is no worse than that of the first."""
    done = call("verify", bundle, "--against", keras_file, "--steps", 40_000, "--json")
    assert done.status == 0, done.out
    checks = {check["artifact"]: check for check in json.loads(done.out)["checks"]}
    integer = {"tflite int8", "tflite int16x8", "native int8"}
    assert {"tflite float32", "tflite dynamic", "onnx float32", "onnx dynamic"} | integer <= set(checks)
    for label, check in checks.items():
        assert check["parity"]["steps"] == 40_000
        # The data repeat: whatever accumulates would show, and the two tenths differ by where they begin.
        assert check["last_tenth"]["rmse"] <= 1.05 * check["first_tenth"]["rmse"], label
        assert check["last_tenth"]["snr_db"] >= check["min_snr_db"], label


# ---- inspect ----


def test_inspect_a_bundle(bundle):
    text = call("inspect", bundle).out
    for words in ("lstm: LSTM 3 → 24", "Dense 16 → 2", "a, b, c", "u, v", "20", "320 bytes per stream in float32"):
        assert words in text
    shown = json.loads(call("inspect", bundle, "--json").out)
    assert shown["parameters"] == 4 * 24 * (3 + 24 + 1) + 4 * 16 * (24 + 16 + 1) + 16 * 2 + 2
    assert shown["state_bytes"] == 2 * (24 + 16) * 4
    assert len(shown["artifacts"]) == ARTIFACTS
    assert all(len(a["sha256"]) == 64 and a["snr_db"] >= 30 for a in shown["artifacts"])


def test_inspect_keras_files_and_exported_files_alike(bundle, keras_file, tmp_path):
    shutil.unpack_archive(bundle, tmp_path, "zip")
    whole = json.loads(call("inspect", bundle, "--json").out)
    for path in (keras_file, tmp_path / "model.float32.tflite", tmp_path / "model.float32.onnx"):
        shown = json.loads(call("inspect", path, "--json").out)
        for key in ("layers", "parameters", "states", "state_bytes"):
            assert shown[key] == whole[key], (path, key)
        assert call("inspect", path).status == 0
    assert (
        json.loads(call("inspect", tmp_path / "model.int8.tflite", "--json").out)["state_bytes"] == whole["state_bytes"]
    )


def test_inspect_what_is_not_there(tmp_path):
    for name, words in (("x.keras", "no such file"), ("x.edge", "no such file"), ("x.tflite", "No such file")):
        done = call("inspect", tmp_path / name)
        assert done.status == 2
        assert words in done.err


# ---- bench ----


@pytest.mark.slow
def test_bench_measures_every_artifact_beside_the_bare_call(bundle):
    shown = json.loads(call("bench", bundle, "--steps", 400, "--no-start", "--json").out)
    rows = {(m["artifact"], m["backend"]): m for m in shown["artifacts"]}
    assert len(rows) == ARTIFACTS - 5 + 3  # no sequence graphs, and NumPy on the three native files
    for row in rows.values():
        assert 0 < row["bare_p50"] <= row["step_p99"]
        assert row["step_p50"] <= row["step_p99"]
        assert row["chunk_steps_per_second"] > 0
        assert row["load_ms"] > 0
        assert row["silence"] > 0
        assert row["denormals"] > 0
    assert rows["tflite float32", "tflite"]["stream_kib"] > 0
    assert call("bench", bundle, "--steps", 10).status == 2


def test_bench_measures_no_silence_of_ids(tmp_path):
    path = bundle_of(tmp_path / "ids.edge", ids=40)
    (row,) = json.loads(call("bench", path, "--steps", 200, "--no-start", "--json").out)["artifacts"]
    assert (row["silence"], row["denormals"]) == (None, None)
    assert row["step_p50"] > 0


@pytest.mark.slow
def test_bench_measures_the_start(bundle):
    done = call("bench", bundle, "--steps", 200, "--backend", "numpy")
    assert done.status == 0
    for words in ("native float32", "p50", "p99", "import"):
        assert words in done.out


# ---- run, demo, and the command line itself ----


def test_run_is_the_same_as_the_runtime_s_own(bundle, recorded):
    done = call("run", bundle, recorded, "--precision", "int16x8")
    assert done.status == 0
    rows = np.loadtxt(recorded, delimiter=",", skiprows=1, dtype=np.float32)[:, [3, 2, 0]]
    printed = np.array([line.split(",") for line in done.out.splitlines()[1:]], np.float32)
    np.testing.assert_allclose(printed, load(bundle, precision="int16x8").stream().run(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_demo(tmp_path):
    done = call("demo", "-o", tmp_path / "demo")
    assert done.status == 0, done.err
    table = [line for line in done.out.splitlines() if line.startswith(("tflite", "onnx"))]
    assert len(table) == 8
    naive = float(done.out.split("as the forecast: MAE ")[1].split()[0])
    for row in table:
        assert float(row.split()[-2]) < naive, row
    assert call("verify", tmp_path / "demo" / "model.edge").status == 0


def test_help_of_everything():
    assert call().status == 2
    for command in ("train", "export", "verify", "inspect", "run", "bench", "demo"):
        assert command in call("--help").out
        done = call(command, "--help")
        assert done.status == 0
        assert "--json" in done.out
    assert call("--version").out.startswith("EdgeLSTM ")
    assert call("exprot").status == 2


# ---- missing backends ----

MODULES = {
    "tflite": ("ai_edge_litert", "ai_edge_litert.interpreter", "tflite_runtime", "tensorflow", "tensorflow.lite"),
    "onnx": ("onnxruntime",),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", MODULES)
def test_a_missing_backend_is_named_with_the_extra_that_brings_it(bundle, backend, monkeypatch):
    for module in MODULES[backend]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match=rf"pip install \"edgelstm\[{backend}\]\""):
        load(bundle, backend)
    done = call("verify", bundle)
    rows = [line for line in done.out.splitlines()[2:] if line.startswith(backend)]
    assert rows
    assert all("not run" in row for row in rows)
    assert done.status == 0
    other = load(bundle)  # auto takes what is there
    assert other.stream().step(np.zeros(FEATURES)).shape == (OUTPUTS,)
    done = call("verify", bundle, "--backend", backend)
    assert done.status == 2
    assert "nothing could be run" in done.err


def test_with_numpy_alone_on_the_command_line(bundle, recorded):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({[m for ms in MODULES.values() for m in ms]!r})); "
        "from edgelstm.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def run(*arguments):
        return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)

    done = run(bundle, recorded)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 601
    done = run(bundle, recorded, "--precision", "dynamic")
    assert done.returncode == 2
    assert 'pip install "edgelstm[tflite]"' in done.stderr
    assert "Traceback" not in done.stderr
