"""A small network made by hand, a bundle of it, and what it computes, by formulas of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edgelstm.export.to_native import native_step_file
from edgelstm.export.to_tflite.graph import tflite_step_graph
from edgelstm.runtime import Golden, Manifest, Streaming
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime.manifest import Artifact, File
from edgelstm.runtime.network import LSTM, Dense, Network
from edgelstm.runtime.parity import Parity

from tests.runtime.scripted_broker import ScriptedBroker
from tests.runtime.served import Served

FEATURES, UNITS, OUTPUTS = 3, 5, 2


def textbook_lstm(weights: dict[str, np.ndarray], xs: np.ndarray) -> np.ndarray:
    """Two lines of Hochreiter & Schmidhuber per gate, in float64, sharing nothing with the code under test."""
    w = {key: value.astype(np.float64) for key, value in weights.items()}
    h, c, ys = np.zeros(UNITS), np.zeros(UNITS), []
    for x in xs.astype(np.float64):
        z = x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]
        i, f, g, o = (z[k * UNITS : (k + 1) * UNITS] for k in range(4))
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        ys.append(h @ w["dense_kernel"] + w["dense_bias"])
    return np.array(ys)


@pytest.fixture(scope="session")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {
        "kernel": (FEATURES, 4 * UNITS),
        "recurrent_kernel": (UNITS, 4 * UNITS),
        "bias": (4 * UNITS,),
        "dense_kernel": (UNITS, OUTPUTS),
        "dense_bias": (OUTPUTS,),
    }
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def network(weights) -> Network:
    lstm = LSTM("lstm", weights["kernel"], weights["recurrent_kernel"], weights["bias"])
    return Network("small", (lstm, Dense("dense", weights["dense_kernel"], weights["dense_bias"])), FEATURES, True)


@pytest.fixture(scope="session")
def xs() -> np.ndarray:
    return np.random.default_rng(8).standard_normal((300, FEATURES)).astype(np.float32) * 2


@pytest.fixture(scope="session")
def expected(weights, xs) -> np.ndarray:
    return textbook_lstm(weights, xs)


@pytest.fixture(scope="session")
def parts(network, weights, xs) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and the files that it lists."""
    description = {
        "name": "small",
        "features": ["a", "b", "c"],
        "outputs": ["u", "v"],
        "streaming": {"mode": "carry", "window": 4},
        "precision": "float32",
        "graph": "step",
    }
    starts = (0, 100)
    outputs = np.concatenate([textbook_lstm(weights, xs[:100]), textbook_lstm(weights, xs[100:])])
    files = {
        "model.float32.tflite": tflite_step_graph(network, "float32", description),
        "model.float32.elm": native_step_file(network, "float32", description),
        "golden.npz": Golden(xs, outputs.astype(np.float32), starts).to_bytes(),
    }
    manifest = Manifest(
        "small",
        ("a", "b", "c"),
        ("u", "v"),
        Streaming("carry", 4),
        ("lstm: LSTM 3 → 5", "dense: Dense 5 → 2"),
        network.parameters,
        tuple(
            Artifact(
                **vars(File.of(file, files[file])),
                format=format_,
                graph="step",
                precision="float32",
                parity=Parity(0.0, 0.0, 200.0, 300),
                min_snr_db=100.0,
                min_output_snr_db=80.0,
            )
            for format_, file in (("tflite", "model.float32.tflite"), ("native", "model.float32.elm"))
        ),
        File.of("golden.npz", files["golden.npz"]),
    )
    return manifest, files


@pytest.fixture
def bundle(parts, tmp_path):
    return write_bundle(tmp_path / "small.edge", *parts).path


@pytest.fixture
def edited(parts, tmp_path):
    """Write a bundle whose manifest, as JSON, a function has changed."""

    def write(change, folder=False):
        import zipfile

        manifest, files = parts
        raw = json.loads(manifest.to_bytes())
        change(raw)
        content = {"manifest.json": json.dumps(raw).encode(), **files}
        path = tmp_path / ("edited" if folder else "edited.edge")
        if folder:
            path.mkdir()
            for name, data in content.items():
                (path / name).write_bytes(data)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in content.items():
                    archive.writestr(name, data)
        return path

    return write


@pytest.fixture
def broker():
    made = ScriptedBroker()
    yield made
    made.close()


@pytest.fixture
def start(bundle, broker, tmp_path):
    """Start the service, on the same state each time, and take its connection."""
    running: list[Served] = []

    def run(*options: object, session_present: bool = False) -> Served:
        served = Served(bundle, broker.url, "--state", tmp_path / "states", *options, ready=False)
        running.append(served)
        broker.accept(session_present)
        return served

    yield run
    for served in running:
        served.kill()
