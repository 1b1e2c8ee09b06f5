"""Exported files on tflite-runtime 2.14, NumPy 1 and Python 3.11, in an environment with nothing else."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime.parity import TOLERANCES

from tests.export.interpreters import snr_db
from tests.export.test_by_window import MODELS, keras_on, rows_for, steps_of
from tests.zoo import DISCONTINUOUS, ZOO, zoo_inputs, zoo_model
from tests.zoo_bundles import zoo_bundle

PYTHON = Path(__file__).parents[2] / ".venv-tflite-runtime" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no Python 3.11 to make .venv-tflite-runtime with (see Makefile)"),
]

# By the interpreter's own calls alone: nothing of this package is imported.
OWN_CALLS = """
import sys, numpy as np
from tflite_runtime.interpreter import Interpreter
xs = np.load(sys.argv[2])
runner = Interpreter(sys.argv[1], num_threads=1).get_signature_runner("step")
details = runner.get_input_details()
states = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items() if name != "x"}
ys = []
for x in xs:
    answer = runner(x=x[None], **states)
    states = {name: answer[name + "_next"] for name in states}
    ys.append(answer["y"][0])
np.save(sys.argv[3], np.array(ys))
"""


def call(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PYTHON), *map(str, arguments)], capture_output=True, text=True, timeout=120)


def exported(name: str, path: Path, precisions: list[str], legacy: bool = True, carry: bool = False):
    calibration = np.stack([zoo_inputs(name, 400, 100 + i) for i in range(8)])
    return export(
        read_keras(zoo_model(name)),
        path,
        ["tflite"],
        precisions,
        ["step", "sequence"],
        calibration=calibration,
        carry=carry,
        legacy_tflite=legacy,
    )


def test_the_environment_is_what_it_should_be():
    code = "import tflite_runtime as t, numpy as n, sys; print(t.__version__, n.__version__[0], sys.version_info[:2])"
    assert call("-c", code).stdout.strip() == "2.14.0 1 (3, 11)"
    assert call("-c", "import tensorflow").returncode != 0


def verified(bundle: Path, *arguments: str) -> set[str]:
    """The artifacts that pass there; none may fail."""
    done = call("-m", "edgelstm.runtime.cli", "verify", bundle, "--backend", "tflite", "--json", *arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    checks = json.loads(done.stdout)["checks"]
    assert all(check["passed"] for check in checks)
    return {check["artifact"] for check in checks}


@pytest.mark.parametrize("name", ZOO)
def test_every_model(name, tmp_path_factory):
    # Each in one of the precisions that one file serves all runtimes in: what is new in a model is in several.
    several = ["float32", "int8", "float16", "int16x8"]
    precision = "float32" if name in DISCONTINUOUS else several[list(ZOO).index(name) % len(several)]
    passed = verified(zoo_bundle(tmp_path_factory, name).path, "--precision", precision)
    assert passed == {f"tflite {precision}", f"tflite {precision} (sequence)"}


@pytest.mark.parametrize("name", ["tutorial_stacked", "gru", "masking", "cells", "activations_of_lstms"])
def test_dynamic_by_the_switch(name, tmp_path):
    bundle = exported(name, tmp_path / "x.edge", ["dynamic"])
    assert verified(bundle.path) == {"tflite dynamic", "tflite dynamic (sequence)"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    return cache(lambda name: exported(name, folder / name, list(TOLERANCES)).path)


@pytest.mark.parametrize("name", ["tutorial_stacked", "wide_cells", "wide_masking"])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_by_the_interpreters_own_calls(name, precision, folders, tmp_path):
    xs = zoo_inputs(name, 300, 3)
    np.save(tmp_path / "xs.npy", xs)
    (tmp_path / "own.py").write_text(OWN_CALLS)
    file = folders(name) / f"model.{precision}.tflite"
    done = call(tmp_path / "own.py", file, tmp_path / "xs.npy", tmp_path / "ys.npy")
    assert done.returncode == 0, done.stderr
    want = read_keras(zoo_model(name)).reference(xs)
    assert snr_db(np.load(tmp_path / "ys.npy"), want) >= TOLERANCES[precision]


def test_without_the_switch_dynamic_is_refused_rather_than_wrong(tmp_path):
    bundle = exported("wide", tmp_path / "x.edge", ["float32", "dynamic"], legacy=False)
    done = call("-m", "edgelstm.runtime.cli", "verify", bundle.path, "--precision", "dynamic")
    assert done.returncode == 2
    assert "this TFLite runtime cannot load it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stream_in_a_pipe_with_a_restart(tmp_path):
    exported("tutorial_stacked", tmp_path / "x.edge", ["int8"], carry=True)
    xs = zoo_inputs("tutorial_stacked", 200, 4)
    want = read_keras(zoo_model("tutorial_stacked")).reference(xs)
    rows = [",".join(map(str, x)) + "\n" for x in xs]
    answers = []
    for part in (rows[:90], rows[90:]):
        command = [str(PYTHON), "-m", "edgelstm.runtime.cli", str(tmp_path / "x.edge"), "--precision", "int8"]
        command += ["--state", str(tmp_path / "state")]
        done = subprocess.run(command, input="".join(part), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        answers += [[float(cell) for cell in line.split(",")] for line in done.stdout.splitlines()]
    assert snr_db(np.array(answers), want) >= TOLERANCES["int8"]


@pytest.mark.parametrize("name", ["bidirectional", "autoencoder", "frames", "words"])
def test_models_that_stream_by_window_alone(name, tmp_path):
    bundle = export(
        MODELS[name](), tmp_path / "x.edge", ["tflite"], ["float32", "float16", "dynamic"], legacy_tflite=True
    )
    done = call("-m", "edgelstm.runtime.cli", "verify", bundle.path, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    checks = json.loads(done.stdout)["checks"]
    assert [check["passed"] for check in checks] == [True] * 3
    xs, window = rows_for(name, 40), steps_of(name)
    np.savetxt(tmp_path / "x.csv", xs, delimiter=",")
    done = call("-m", "edgelstm.runtime.cli", bundle.path, tmp_path / "x.csv", "--precision", "float32")
    assert done.returncode == 0, done.stderr
    want = keras_on(name, xs)
    found = np.array([[float(cell) for cell in line.split(",")] for line in done.stdout.splitlines()])
    assert found.shape == (41 - window, want.shape[-1])
    assert snr_db(found, want if want.ndim == 2 else want[:, -1]) >= TOLERANCES["float32"]
