"""The README's Python runs as it stands there, and gives what Keras gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime import Bundle, load
from edgelstm.runtime.parity import TOLERANCES
from edgelstm.toolkit.cli import COMMANDS

from tests.export.interpreters import snr_db
from tests.javascript import run_javascript
from tests.toolkit.conftest import call

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEVICES = (ROOT / "devices" / "README.md").read_text(encoding="utf-8")
FEATURES, STEPS = 8, 120


@pytest.fixture(scope="module")
def model():
    import keras

    from tests.zoo import with_large_weights

    keras.utils.set_random_seed(2024)
    layers = keras.layers
    stack = [layers.LSTM(32, return_sequences=True), layers.LSTM(32, return_sequences=True), layers.Dense(4)]
    return with_large_weights(keras.Sequential([keras.Input((None, FEATURES)), *stack]))


@pytest.fixture
def place(model, tmp_path, monkeypatch):
    """A folder with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    model.save("pump.keras")
    return tmp_path


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_the_interface_in_python(place, model):
    (code,) = (block for block in blocks("python") if "edgelstm.export" in block)
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((STEPS, FEATURES)).astype(np.float32)
    names = {"sequences": rng.standard_normal((4, 200, FEATURES)), "xs": xs[1:], "x": xs[0]}
    exec(code, names)
    want = np.array(model(xs[None]))[0]
    assert snr_db(np.concatenate([names["y"][None], names["ys"]]), want) >= 100
    assert {a.precision for a in Bundle.open(place / "pump.edge").manifest.artifacts} == {"float32", "int8"}


@pytest.mark.slow
def test_fleets(place, model):
    (code,) = (block for block in blocks("python") if "fleet" in block)
    assert call("export", "pump.keras", "-o", "pump.edge", "--format", "native").status == 0
    rows = np.random.default_rng(2).standard_normal((1000, FEATURES)).astype(np.float32)
    names = {"model": load("pump.edge"), "rows": rows}
    exec(code, names)
    # Stream 998 has had its own row, and then the second.
    want = np.array(model(rows[None, [998, 1]]))[0, -1]
    assert snr_db(names["ys"][1], want) >= 100
    assert names["fleet"].steps(3) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["float32", *(pytest.param(p, marks=pytest.mark.slow) for p in ("int8", "int16x8"))]
)
def test_litert_alone(place, model, precision):
    (code,) = (block for block in blocks("python") if "ai_edge_litert" in block)
    rng = np.random.default_rng(1)
    np.save("cal.npy", rng.standard_normal((4, 200, FEATURES)))
    done = call("export", "pump.keras", "-o", "folder", "--precision", precision, "--calibration", "cal.npy")
    assert done.status == 0
    xs = rng.standard_normal((STEPS, FEATURES)).astype(np.float32)
    answers: list[np.ndarray] = []
    code = code.replace("model.float32.tflite", f"folder/model.{precision}.tflite")
    exec(code, {"timesteps": xs, "print": answers.append})
    assert snr_db(np.array(answers), np.array(model(xs[None]))[0]) >= TOLERANCES[precision]


@pytest.mark.slow
def test_onnxruntime_alone(place, model):
    (code,) = blocks("python", DEVICES)
    assert call("export", "pump.keras", "-o", "folder", "--format", "onnx").status == 0
    xs = np.random.default_rng(1).standard_normal((STEPS, FEATURES)).astype(np.float32)
    answers: list[np.ndarray] = []
    exec(code.replace("model.float32.onnx", "folder/model.float32.onnx"), {"timesteps": xs, "print": answers.append})
    assert snr_db(np.array(answers), np.array(model(xs[None]))[0]) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "dynamic"])
def test_javascript(place, model, precision):
    (code,) = blocks("js")
    assert call("export", "pump.keras", "-o", "folder", "--format", "onnx", "--precision", precision).status == 0
    xs = np.random.default_rng(1).standard_normal((STEPS, FEATURES)).astype(np.float32)
    code = code.replace("model.float32.onnx", f"folder/model.{precision}.onnx")
    program = f"""const ort = require("onnxruntime-web");
    (async () => {{
      {code}
      const answers = [];
      for (const x of {json.dumps(xs.tolist())}) answers.push(Array.from(await step(Float32Array.from(x))));
      console.log(JSON.stringify(answers));
    }})();"""
    answers = json.loads(run_javascript(program, place))
    assert snr_db(np.array(answers), np.array(model(xs[None]))[0]) >= TOLERANCES[precision]


def test_every_option_that_it_names_exists():
    help_of = {name: call(name, "--help").out for name in COMMANDS}
    for block in [*blocks("sh"), *blocks("console", DEVICES)]:
        for line in block.replace("\\\n", "").splitlines():
            line = line.removeprefix("$ ").partition(" -- ")[0]
            command = re.search(r"\bedgelstm(-run| \w+)([^|#]*)", line)
            if command is None:
                continue
            name = command[1].strip()
            name = "run" if name == "-run" else name
            for option in re.findall(r"(--[\w.-]+)", command[2]):
                assert option in help_of[name], line
