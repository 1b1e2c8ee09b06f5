"""Files that people have: Keras 2's of Windows and in cuDNN's layout, and files and folders that are no Keras model."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from edgelstm.export import read_keras

from tests.export.interpreters import snr_db
from tests.export.test_keras2 import FOLDER, recorded

# ---- Keras 2.12 to 2.15 on Windows ----


def as_on_windows(source: Path, target: Path) -> Path:
    """The same `.keras` file with the groups that Keras 2 made on Windows: it joined their names with backslashes."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    made = io.BytesIO()
    with h5py.File(io.BytesIO(files["model.weights.h5"])) as old, h5py.File(made, "w") as new:

        def copy(name: str, item: object) -> None:
            if name.rpartition("/")[2] == "vars":  # Keras made a group for each object, and "vars" in it.
                owner = name.removesuffix("vars").rstrip("/").replace("/", "\\")
                old.copy(item, new.require_group(owner) if owner else new, "vars")

        old.visititems(copy)
    files["model.weights.h5"] = made.getvalue()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


@pytest.mark.parametrize("name", ["lstm_hard_sigmoid.keras", "functional_masking.keras"])
def test_backslashes_of_windows(tmp_path, name):
    """`functional_masking` has cells in cells, a nested model and a layer wrapped in another."""
    path = as_on_windows(FOLDER / name, tmp_path / "windows.keras")
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        assert "layers" not in weights
        assert any(r"layers\lstm" in group for group in weights)
    x, want = recorded(name)
    assert snr_db(read_keras(path).run(x), want) >= 100


def test_a_file_half_of_windows_has_all_its_groups(tmp_path):
    """Both kinds of names side by side: what has a backslash goes into the group that is there."""
    path = as_on_windows(FOLDER / "lstm_hard_sigmoid.keras", tmp_path / "both.keras")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO(files["model.weights.h5"])
    with h5py.File(content, "a") as weights:
        weights.move(r"layers\dense", "layers/dense")
    files["model.weights.h5"] = content.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in files.items():
            archive.writestr(name, member)
    x, want = recorded("lstm_hard_sigmoid.keras")
    assert snr_db(read_keras(path).run(x), want) >= 100


# ---- cuDNN's layout ----


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def cudnn_lstm(x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, units: int) -> np.ndarray:
    """CUDNN_LSTM as NVIDIA documents it: the matrix of each gate is (units, inputs), row by row, in one flat array.

    x (T, inputs); w, r: gates i f c o one behind the other; b: 4 biases of the inputs, then 4 of the state.
    """
    wi, wf, wc, wo = w.reshape(4, units, -1)
    ri, rf, rc, ro = r.reshape(4, units, units)
    bwi, bwf, bwc, bwo, bri, brf, brc, bro = b.reshape(8, units)
    h, c, ys = np.zeros(units), np.zeros(units), []
    for row in x.astype(np.float64):
        i, f, o = (
            sigmoid(wi @ row + ri @ h + bwi + bri),
            sigmoid(wf @ row + rf @ h + bwf + brf),
            sigmoid(wo @ row + ro @ h + bwo + bro),
        )
        c = f * c + i * np.tanh(wc @ row + rc @ h + bwc + brc)
        h = o * np.tanh(c)
        ys.append(h)
    return np.array(ys)


def cudnn_gru(x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, units: int) -> np.ndarray:
    """CUDNN_GRU likewise, with the gates in Keras's order: i (its z), r, h'."""
    wi, wr, wh = w.reshape(3, units, -1)
    ri, rr, rh = r.reshape(3, units, units)
    bwi, bwr, bwh, bri, brr, brh = b.reshape(6, units)
    h, ys = np.zeros(units), []
    for row in x.astype(np.float64):
        i, reset = sigmoid(wi @ row + ri @ h + bwi + bri), sigmoid(wr @ row + rr @ h + bwr + brr)
        h = (1 - i) * np.tanh(wh @ row + reset * (rh @ h + brh) + bwh) + i * h
        ys.append(h)
    return np.array(ys)


def cudnn_weights(rng: np.random.Generator, inputs: int, units: int, gates: int) -> dict[str, np.ndarray]:
    """As Keras 2's CuDNN layers keep them: each gate's flat matrix under the shape (inputs, units)."""

    def side_by_side(rows: int) -> np.ndarray:
        return np.concatenate([rng.normal(0, 1, (rows, units)) for _ in range(gates)], 1)

    made = {"kernel:0": side_by_side(inputs), "recurrent_kernel:0": side_by_side(units) / np.sqrt(units)}
    made["bias:0"] = rng.normal(0, 0.7, 2 * gates * units)
    return {name: array.astype(np.float32) for name, array in made.items()}


def flat(kernel: np.ndarray, gates: int) -> np.ndarray:
    """What Keras 2 handed to cuDNN: each gate's numbers in their order in memory."""
    return np.concatenate([part.reshape(-1) for part in np.split(kernel, gates, axis=1)])


def cudnn_file(path: Path, layers: list[tuple[str, str, dict]]) -> Path:
    """A Keras 2 `.h5` of layers on 3 features, each (class, name, weights)."""
    entries = []
    for at, (kind, name, weights) in enumerate(layers):
        units = weights["recurrent_kernel:0"].shape[0]
        config = {"name": name, "trainable": True, "dtype": "float32", "units": units}
        config |= {"return_sequences": True, "return_state": False, "go_backwards": False, "stateful": False}
        config |= {"kernel_initializer": {"class_name": "VarianceScaling", "config": {}}, "bias_regularizer": None}
        if at == 0:
            config["batch_input_shape"] = [None, None, 3]
        entries.append({"class_name": kind, "config": config})
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"2.2.4-tf"
        file.attrs["backend"] = b"tensorflow"
        model = {"class_name": "Sequential", "config": {"name": "sequential", "layers": entries}}
        file.attrs["model_config"] = json.dumps(model).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for _, name, _ in layers]
        for _, name, weights in layers:
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [f"{name}/{key}".encode() for key in weights]
            for key, array in weights.items():
                layer[f"{name}/{key}"] = array
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("CuDNNLSTM", "CuDNNGRU"), ("LSTM", "GRU")])
def test_cudnn_layout_gives_what_cudnn_computes(tmp_path, kinds):
    """Also where the layers are called LSTM and GRU, which Keras 2 loads from weights in either layout."""
    rng = np.random.default_rng(7)
    lstm, gru = cudnn_weights(rng, 3, 5, 4), cudnn_weights(rng, 5, 4, 3)
    path = cudnn_file(tmp_path / "gpu.h5", [(kinds[0], "first", lstm), (kinds[1], "second", gru)])
    if kinds[1] == "GRU":
        with h5py.File(path, "a") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"][1]["config"]["reset_after"] = True
            file.attrs["model_config"] = json.dumps(config).encode()
    before = path.read_bytes()
    x = rng.standard_normal((25, 3)).astype(np.float32)
    (w, r, b), (w2, r2, b2) = lstm.values(), gru.values()
    want = cudnn_gru(cudnn_lstm(x, flat(w, 4), flat(r, 4), b, 5), flat(w2, 3), flat(r2, 3), b2, 4)
    network = read_keras(path)
    assert snr_db(network.run(x), want) >= 100
    assert snr_db(network.reference(x), want) >= 100
    assert path.read_bytes() == before


def test_cudnn_layers_within_others_are_found(tmp_path):
    """In a nested model and in a wrapper, the three weights lie in a group of their own as well."""
    from edgelstm.export.from_keras import old_weights

    rng = np.random.default_rng(8)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for half in ("forward_cu_dnnlstm", "backward_cu_dnnlstm"):
            for key, array in cudnn_weights(rng, 3, 4, 4).items():
                file[f"bidirectional/inner/{half}/{key}"] = array
        file["dense/kernel:0"] = np.zeros((3, 4), np.float32)
        assert old_weights.needs_update(file)
        old_weights.update(file)
        assert not old_weights.needs_update(file)
        for half in ("forward_cu_dnnlstm", "backward_cu_dnnlstm"):
            assert file[f"bidirectional/inner/{half}/bias:0"].shape == (16,)
