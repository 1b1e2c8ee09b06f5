"""Files that Keras 2 wrote, against the outputs that Keras 2 itself gave for them (`keras2/make_fixtures.py`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import UnsupportedModelError, load

from tests.export.interpreters import snr_db

FOLDER = Path(__file__).parent / "keras2"
FILES = sorted(path.name for path in FOLDER.glob("*.*") if path.with_suffix(".npz").exists() and path.suffix != ".npz")
FEW = ("lstm_hard_sigmoid.keras", "adapted_normalization.h5")


def recorded(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load((FOLDER / name).with_suffix(".npz")) as arrays:
        return arrays["x"], arrays["y"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in FILES])
def test_steps_give_what_keras_2_gave(name):
    network = read_keras(FOLDER / name)
    x, want = recorded(name)
    if name == "mixed_float16.h5":  # Made for 5 timesteps; recorded on a free length.
        want = want.reshape(len(x), -1)
    assert snr_db(network.run(x), want) >= 100
    assert snr_db(network.reference(x), want) >= 100


def test_there_are_files_of_both_kinds():
    assert len(FILES) >= 8
    assert {Path(name).suffix for name in FILES} == {".h5", ".keras"}


@pytest.mark.slow
def test_to_a_stream(tmp_path):
    """Keras 2's hard_sigmoid is another function than Keras 3's, and the difference would be silent."""
    name = "lstm_hard_sigmoid.h5"
    export(read_keras(FOLDER / name), tmp_path / "old.edge")
    x, want = recorded(name)
    for backend in ("tflite", "onnx", "numpy"):
        assert snr_db(load(tmp_path / "old.edge", backend).stream().run(x), want) >= 100, backend


def test_time_major_is_refused_by_name():
    with pytest.raises(UnsupportedModelError, match=r"time_major=True.*copy the weights"):
        read_keras(FOLDER / "time_major.h5")


def test_weights_alone_are_no_model():
    with pytest.raises(UnsupportedModelError, match=r"weights only.*load_weights"):
        read_keras(FOLDER / "weights_only.h5")


def test_several_axes_are_refused_and_the_last_one_is_read(tmp_path):
    """As the error says: axis=-1, which Keras 2 also wrote as a list."""
    name = "adapted_normalization.h5"
    path = Path(shutil.copy(FOLDER / name, tmp_path / name))

    def set_axis(axis: object) -> None:
        with h5py.File(path, "r+") as file:
            config = json.loads(str(file.attrs["model_config"]))
            config["config"]["layers"][1]["config"]["axis"] = axis
            file.attrs["model_config"] = json.dumps(config)

    set_axis([1, 2])
    with pytest.raises(UnsupportedModelError, match=r"several axes \[1, 2\]; use axis=-1"):
        read_keras(path)
    set_axis(-1)
    x, want = recorded(name)
    assert snr_db(read_keras(path).run(x), want) >= 100
