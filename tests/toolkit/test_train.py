"""Training: no look ahead, the same weights from the same seed, and metrics that plain Keras confirms."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime import InputError
from edgelstm.toolkit.classification import split
from edgelstm.toolkit.fit import TrainConfig
from edgelstm.toolkit.run_folder import read_run_folder
from edgelstm.toolkit.series import LabelledSequences
from edgelstm.toolkit.train_command import train

from tests.toolkit import run_tasks

DATA = Path(__file__).parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the repository")


@pytest.fixture(scope="module")
def series_csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "waves.csv"
    t = np.arange(900)
    rng = np.random.default_rng(0)
    a = 50 + 10 * np.sin(t / 7) + rng.standard_normal(900) + (t > 600) * 100
    b = 1e-3 * np.cos(t / 7)
    path.write_text("a,b\n" + "".join(f"{x:.4f},{y:.7f}\n" for x, y in zip(a, b, strict=True)))
    return path


@pytest.fixture(scope="module")
def config(series_csv):
    return TrainConfig(series_csv, target="a", window=12, horizon=2, units=(6, 5), epochs=3)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("runs") / "waves")


def table(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)


@pytest.mark.slow
def test_normalisation_knows_the_training_part_only(run, series_csv):
    import keras

    rows = table(series_csv)
    model = keras.models.load_model(run.model_path, compile=False)
    normalisation = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    seen = rows[: int(900 * 0.65)]
    np.testing.assert_allclose(np.ravel(normalisation.mean), seen.mean(0), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.ravel(normalisation.variance), seen.var(0), rtol=1e-4)
    assert run.calibration().max() <= np.float32(seen.max())
    assert run.rows == {"training": 585, "validation": 135, "test": 180}


@pytest.mark.slow
def test_metrics_are_what_plain_keras_says(run, series_csv):
    import keras

    rows = table(series_csv).astype(np.float32)[720:]
    model = keras.models.load_model(run.model_path, compile=False)
    positions = range(11, len(rows) - 2)
    want = rows[[t + 2 for t in positions], 0]
    stream = np.array(model(rows[None]))[0, :, 0]
    answers = {
        "carried": stream[list(positions)],
        "window": np.array(model(np.stack([rows[t - 11 : t + 1] for t in positions])))[:, -1, 0],
        "persistence": rows[list(positions), 0],
    }
    assert run.metrics["timesteps"] == len(want)
    for name, got in answers.items():
        assert run.metrics[name]["mae"] == pytest.approx(np.abs(got - want).mean(), rel=1e-4)
        assert run.metrics[name]["rmse"] == pytest.approx(np.sqrt(np.square(got - want).mean()), rel=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(run, config, tmp_path):
    import keras

    again = train(config, tmp_path / "again")
    other = train(replace(config, seed=1), tmp_path / "other")
    weights = [keras.models.load_model(r.model_path, compile=False).get_weights() for r in (run, again, other)]
    for mine, same in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(mine, same)
    assert not np.array_equal(weights[0][-1], weights[2][-1])
    assert run.metrics == again.metrics


def test_a_run_folder_comes_back_as_it_was(run):
    assert read_run_folder(run.path) == run
    settings = run.export_settings()
    assert settings["features"] == ("a", "b")
    assert settings["window"] == 12
    assert settings["training"]["horizon"] == 2
    history = (run.path / "history.csv").read_text().splitlines()
    assert history[0] == "epoch,loss,validation_loss,learning_rate"
    assert len(history) == 4


def test_damaged_run_folders(run, tmp_path):
    import shutil

    with pytest.raises(InputError, match=r"run\.json is missing"):
        read_run_folder(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run.path, broken)
    (broken / "model.keras").unlink()
    with pytest.raises(InputError, match=r"model\.keras is missing"):
        read_run_folder(broken)
    (broken / "run.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_run_folder(broken)


def test_classes_are_divided_apart():
    labels = np.array([0] * 40 + [1] * 20)
    data = LabelledSequences(("a",), tuple(np.zeros((3, 1), "f4") for _ in labels), labels, ("n", "y"), ())
    config = TrainConfig(Path("x.csv"), sequence="s", label="k")
    parts = split(data, config, np.random.default_rng(0))
    everything = np.concatenate(list(parts.values()))
    assert sorted(everything) == list(range(60))
    assert [np.bincount(labels[parts[name]]).tolist() for name in parts] == [[26, 13], [6, 3], [8, 4]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"units": ()}, "--units"),
        ({"window": 0}, "--window"),
        ({"horizon": 0}, "--horizon"),
        ({"dropout": 1.0}, "--dropout"),
        ({"test_fraction": 0.9}, "leave nothing"),
        ({"label": "k"}, "both --sequence COLUMN and --label"),
        ({"target": None}, "either --target"),
        ({"window": 500}, "shorten --window"),
    ],
)
def test_settings_that_make_no_sense(config, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        train(replace(config, **change), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def call(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgelstm.toolkit.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.fixture(scope="module")
def air(tmp_path_factory):
    path = tmp_path_factory.mktemp("air") / "air"
    done = call("train", DATA / "beijing_pm25.csv", "--target", "pm2.5", "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """A run for each of two seeds."""
    paths = [tmp_path_factory.mktemp("rooms") / f"s{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        arguments = ["--sequence", "sequence", "--label", "label", "--units", "32,32", "--seed", seed]
        done = call("train", DATA / "indoor_movement.csv", *arguments, "-o", path, "--json")
        assert done.returncode == 0, done.stderr
    return paths


@pytest.mark.slow
@real_data
def test_beijing_beats_persistence_and_exports_without_further_arguments(air):
    metrics = read_run_folder(air).metrics
    for answer in ("carried", "window"):
        for error in ("mae", "rmse"):
            assert metrics[answer][error] < metrics["persistence"][error]
    done = call("export", air)
    assert done.returncode == 0, done.stderr
    assert (air / "model.edge").is_file()


@pytest.mark.slow
@real_data
def test_indoor_movement_in_the_mean_of_two_splits(rooms):
    metrics = [read_run_folder(path).metrics for path in rooms]
    assert all(each["majority"]["accuracy"] < 0.55 for each in metrics)
    assert np.mean([each["carried"]["accuracy"] for each in metrics]) >= 0.88


# ---- What each precision costs these tasks ----


@pytest.mark.slow
@real_data
def test_a_forecast_in_every_precision_is_as_good_as_keras_s(air, tmp_path):
    run = read_run_folder(air)
    found = run_tasks.scores(run_tasks.everything(run, tmp_path / "air.edge"), run_tasks.forecast(DATA))
    assert len(found) == 16
    for label, rmse in found.items():
        assert rmse == pytest.approx(run_tasks.of_keras(run), rel=1e-5 if "float32" in label else 2e-3), label


@pytest.mark.slow
@real_data
def test_a_classification_in_every_precision_is_as_good_as_keras_s(rooms, tmp_path):
    run = read_run_folder(rooms[0])
    found = run_tasks.scores(run_tasks.everything(run, tmp_path / "rooms.edge"), run_tasks.classification(DATA, 0))
    assert len(found) == 16
    for label, accuracy in found.items():
        assert accuracy == pytest.approx(run_tasks.of_keras(run), abs=0.01), label
