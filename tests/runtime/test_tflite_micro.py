"""Step graphs on TensorFlow Lite Micro's interpreter, in an environment with nothing else.

Its kernels are those that a microcontroller compiles where its maker has none of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgelstm.export import read_keras
from edgelstm.export.calibration import record
from edgelstm.export.to_tflite import tflite_step_graph
from edgelstm.runtime.activations import FUNCTIONS, Function
from edgelstm.runtime.network import Activation, Network
from edgelstm.runtime.parity import TOLERANCES

from tests.export.interpreters import litert_steps, snr_db
from tests.export.test_tflite import PARAMETERS

PYTHON = Path(__file__).parents[2] / ".venv-tflite-micro" / "bin" / "python"
pytestmark = pytest.mark.slow

PRECISIONS, STEPS = ("float32", "int8", "int16x8"), 300
MASK_VALUE = -3.0

# By the interpreter's own calls alone. It knows no signatures: inputs and outputs have the file's order.
OWN_CALLS = """
import sys
from pathlib import Path
import numpy as np
from tflite_micro.python.tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema


def steps(content, xs):
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    inputs = {t.name.decode(): list(graph.inputs).index(t.tensorIndex) for t in signature.inputs}
    outputs = {t.name.decode(): list(graph.outputs).index(t.tensorIndex) for t in signature.outputs}
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
    details = {name: interpreter.get_input_details(place) for name, place in inputs.items()}
    states = {name: np.zeros(each["shape"], np.float32) for name, each in details.items() if name != "x"}
    ys = []
    for x in xs:
        for name, value in {"x": x[None], **states}.items():
            interpreter.set_input(value, inputs[name])
        interpreter.invoke()
        states = {name: np.array(interpreter.get_output(outputs[name + "_next"])) for name in states}
        ys.append(np.array(interpreter.get_output(outputs["y"]))[0])
    return np.array(ys)


for file in sorted(Path(sys.argv[1]).glob("*.tflite")):
    try:
        np.save(file.with_suffix(".ys.npy"), steps(file.read_bytes(), np.load(file.with_suffix(".xs.npy"))))
    except RuntimeError as error:
        print("cannot run", file.name, error)
"""


def micro_steps(files: dict[str, tuple[bytes, np.ndarray]], folder: Path) -> dict[str, np.ndarray]:
    """Step files by Micro's own calls: by name (T, outputs), without those that it cannot run."""
    (folder / "own.py").write_text(OWN_CALLS)
    for name, (content, xs) in files.items():
        (folder / f"{name}.tflite").write_bytes(content)
        np.save(folder / f"{name}.xs.npy", xs)
    done = subprocess.run([str(PYTHON), "own.py", "."], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {name: folder / f"{name}.ys.npy" for name in files}
    return {name: np.load(path) for name, path in found.items() if path.exists()}


@pytest.fixture(scope="module", autouse=True)
def environment():
    imported = [str(PYTHON), "-c", "import tflite_micro"]
    if not PYTHON.exists() or subprocess.run(imported, capture_output=True).returncode:
        (pytest.fail if os.environ.get("EDGELSTM_ALL_TOOLS") else pytest.skip)(
            "no tflite-micro in .venv-tflite-micro: its package has wheels for Linux on x86-64 only (see Makefile)"
        )


MODELS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "lstm_24": lambda K, L: [L.LSTM(24), L.Dense(2)],
    "lstm_stack": lambda K, L: [L.LSTM(32, return_sequences=True), L.LSTM(20), L.Dense(5, "softmax")],
    "lstm_relu_head": lambda K, L: [L.Dense(12, "tanh"), L.LSTM(64), L.Dense(40, "relu"), L.Dense(30)],
    "gru_24": lambda K, L: [L.GRU(24), L.Dense(2)],
    "gru_stack": lambda K, L: [L.GRU(32, return_sequences=True), L.GRU(28), L.Dense(5, "softmax")],
    "gru_reset_before": lambda K, L: [L.GRU(40, reset_after=False), L.Dense(2)],
    "simple_rnn_32": lambda K, L: [L.SimpleRNN(32), L.Dense(2)],
    "simple_rnn_stack": lambda K, L: [L.SimpleRNN(40, return_sequences=True), L.SimpleRNN(48), L.Dense(3)],
    "simple_rnn_relu": lambda K, L: [L.SimpleRNN(36, activation="relu"), L.Dense(5, "sigmoid")],
    "masked_lstm": lambda K, L: [L.Masking(MASK_VALUE), L.LSTM(24), L.Dense(2)],
    "masked_gru": lambda K, L: [L.Masking(MASK_VALUE), L.GRU(24), L.Dense(2)],
    "masked_rnn": lambda K, L: [L.Masking(MASK_VALUE), L.SimpleRNN(32), L.Dense(2)],
    "layer_normalization": lambda K, L: [L.LSTM(24), L.LayerNormalization(), L.Dense(2)],
    "normalized": lambda K, L: [L.Normalization(mean=[1, 2, 3, 4], variance=[4, 3, 2, 1]), L.LSTM(24), L.Dense(2)],
}


@cache
def network(name: str):
    import keras

    from tests.zoo import with_large_weights

    keras.utils.set_random_seed(2024)
    layers = MODELS[name](keras, keras.layers)
    return read_keras(with_large_weights(keras.Sequential([keras.Input((None, 4)), *layers]), 1.5), name=name)


def inputs(name: str, steps: int, seed: int) -> np.ndarray:
    xs = np.random.default_rng(seed).standard_normal((steps, 4)).astype(np.float32)
    if name.startswith("masked"):
        xs[::5] = MASK_VALUE
        xs[1, 1:] = MASK_VALUE  # Not masked, for one of its features is not.
    return xs


@cache
def recorded(name: str):
    return record(network(name), np.stack([inputs(name, 300, 100 + i) for i in range(6)]))


def step_file(name: str, precision: str) -> bytes:
    return tflite_step_graph(network(name), precision, {}, recorded(name))


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    files = {f"{name}.{p}": (step_file(name, p), inputs(name, STEPS, 1)) for name in MODELS for p in PRECISIONS}
    return micro_steps(files, tmp_path_factory.mktemp("micro"))


@pytest.mark.parametrize("name", MODELS)
def test_micro_answers_as_litert_does(answered, name):
    xs = inputs(name, STEPS, 1)
    want = network(name).reference(xs)
    for precision in PRECISIONS:
        micro = snr_db(answered[f"{name}.{precision}"], want)
        assert micro >= TOLERANCES[precision], precision
        if precision != "float32":  # Whose last bits each rounds in its own way.
            assert abs(micro - snr_db(litert_steps(step_file(name, precision), xs), want)) <= 1.6, precision


def test_what_micro_cannot_run(tmp_path):
    """One operator of all that a step can have, and weights that are not of their product's type."""
    xs = inputs("", 20, 1)
    of_functions = {
        f"{name}-{i}": (
            tflite_step_graph(Network("f", (Activation("f", Function(name, p)),), 4, True), "float32", {}),
            xs,
        )
        for name in FUNCTIONS
        for i, p in enumerate(PARAMETERS.get(name, [()]))
    }
    others = {precision: (step_file("lstm_24", precision), xs) for precision in ("float16", "dynamic")}
    files = {**of_functions, **others}
    got = micro_steps(files, tmp_path)
    assert files.keys() - got.keys() == {"gelu-0", "gelu-1", "float16", "dynamic"}
    for name in got:
        np.testing.assert_allclose(got[name], litert_steps(files[name][0], xs), rtol=1e-4, atol=1e-5, err_msg=name)
