"""What each precision costs a real task: everything exported, and streamed over the part that training never saw.

By hand, and for the README's table: `python -m tests.toolkit.run_tasks FOLDER`, with the real data sets in FOLDER.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from edgelstm.export import export
from edgelstm.export.pipeline import PRECISIONS
from edgelstm.runtime.bundle import Bundle
from edgelstm.runtime.manifest import FORMATS, Artifact
from edgelstm.runtime.model import load_artifact
from edgelstm.runtime.table import table
from edgelstm.toolkit.classification import split
from edgelstm.toolkit.fit import TrainConfig
from edgelstm.toolkit.forecast import DEFAULT_WINDOW, divide
from edgelstm.toolkit.run_folder import RunFolder
from edgelstm.toolkit.series import read_sequences_by_label, read_series
from edgelstm.toolkit.train_command import train

from tests.export.interpreters import litert_sequence

Answers = Callable[[np.ndarray], np.ndarray]


def forecast(data: Path) -> TrainConfig:
    return TrainConfig(data / "beijing_pm25.csv", target="pm2.5")


def classification(data: Path, seed: int) -> TrainConfig:
    return TrainConfig(data / "indoor_movement.csv", sequence="sequence", label="label", units=(32, 32), seed=seed)


def everything(run: RunFolder, path: Path) -> Bundle:
    """A bundle of a run in every format, graph and precision."""
    graphs = ("step", "sequence")
    settings = run.export_settings()
    return export(run.model_path, path, FORMATS, PRECISIONS, graphs, run.calibration(), **settings)


def of_keras(run: RunFolder) -> float:
    """What `score` is of Keras's own answers, by `train`."""
    return run.metrics["carried"]["rmse" if run.task == "forecast" else "accuracy"]


def scores(bundle: Bundle, config: TrainConfig) -> dict[str, float]:
    """`score` of each artifact."""
    return {artifact.label: score(config, answers(bundle, artifact)) for artifact in bundle.manifest.artifacts}


def answers(bundle: Bundle, artifact: Artifact) -> Answers:
    """What an artifact answers to (T, features) from zero state: (T, outputs)."""
    if artifact.graph == "sequence":
        content = bundle.read(artifact)
        return lambda xs: litert_sequence(content, xs)[0]
    model = load_artifact(bundle, artifact, artifact.format)
    return lambda xs: model.stream(carry=True).run(xs)


def score(config: TrainConfig, answer: Answers) -> float:
    """RMSE of a forecast in the target's unit, or a classification's accuracy, on the part for tests."""
    if config.target is None:
        data = read_sequences_by_label(config.data, str(config.sequence), str(config.label))
        test = split(data, config, np.random.default_rng(config.seed))["test"]
        return float(np.mean([answer(data.sequences[i])[-1].argmax() == data.labels[i] for i in test]))
    window = config.window or DEFAULT_WINDOW
    series = read_series(config.data, config.target)
    errors: list[np.ndarray] = []
    for start, stop in divide(series, config)["test"]:
        # From the first answer on that has a full window behind it, as `train` counts.
        due = np.arange(start + window - 1, stop - config.horizon)
        due = due[np.isfinite(series.target[due + config.horizon])]
        if len(due):
            ys = answer(series.values[start : stop - config.horizon])[:, 0]
            errors.append(ys[due - start].astype(float) - series.target[due + config.horizon])
    return float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tasks = {"beijing": forecast(data), "seed 0": classification(data, 0), "seed 1": classification(data, 1)}
        found: dict[str, dict[str, float]] = {}
        for name, config in tasks.items():
            run = train(config, folder / name)
            found[name] = {"Keras": of_keras(run), **scores(everything(run, folder / f"{name}.edge"), config)}
        rows = [[label, *(f"{column[label]:.4f}" for column in found.values())] for label in found["beijing"]]
        print(table(["", "RMSE of beijing", *(f"accuracy of indoor, {name}" for name in [*found][1:])], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
