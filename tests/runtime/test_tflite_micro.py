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
from edgelstm.runtime.parity import TOLERANCES

from tests.export.interpreters import litert_steps, snr_db

PYTHON = Path(__file__).parents[2] / ".venv-tflite-micro" / "bin" / "python"
pytestmark = pytest.mark.slow

PRECISIONS = ("float32", "int8", "int16x8")
MASK_VALUE = -3.0

# By the interpreter's own calls alone. It knows no signatures: inputs and outputs have the file's order.
OWN_CALLS = """
import sys, numpy as np
from tflite_micro.python.tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

file, xs = sys.argv[1], np.load(sys.argv[2])
with open(file, "rb") as opened:
    content = opened.read()
model = schema.ModelT.InitFromPackedBuf(content, 0)
graph, (signature,) = model.subgraphs[0], model.signatureDefs
places = {t.name.decode(): list(graph.inputs).index(t.tensorIndex) for t in signature.inputs}
answers = {t.name.decode(): list(graph.outputs).index(t.tensorIndex) for t in signature.outputs}
interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
details = {name: interpreter.get_input_details(place) for name, place in places.items()}
assert all(each["dtype"] is np.float32 for each in details.values()), details
states = {name: np.zeros(each["shape"], np.float32) for name, each in details.items() if name != "x"}
ys = []
for x in xs:
    for name, value in {"x": x[None], **states}.items():
        interpreter.set_input(value, places[name])
    interpreter.invoke()
    states = {name: np.array(interpreter.get_output(answers[name + "_next"])) for name in states}
    ys.append(np.array(interpreter.get_output(answers["y"]))[0])
np.save(sys.argv[3], np.array(ys))
"""


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


def micro_steps(content: bytes, xs: np.ndarray, folder: Path) -> np.ndarray:
    """Step a file by Micro's own calls: (T, outputs)."""
    (folder / "own.py").write_text(OWN_CALLS)
    (folder / "model.tflite").write_bytes(content)
    np.save(folder / "xs.npy", xs)
    command = [str(PYTHON), *(str(folder / name) for name in ("own.py", "model.tflite", "xs.npy", "ys.npy"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "ys.npy")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MODELS)
def test_micro_answers_as_litert_does(name, precision, tmp_path):
    xs = inputs(name, 300, 1)
    want = network(name).reference(xs)
    content = tflite_step_graph(network(name), precision, {}, recorded(name))
    micro, litert = snr_db(micro_steps(content, xs, tmp_path), want), snr_db(litert_steps(content, xs), want)
    assert micro >= TOLERANCES[precision]
    if precision != "float32":
        assert abs(micro - litert) <= 1.6
