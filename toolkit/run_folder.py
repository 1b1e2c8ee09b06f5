"""The run folder: what `edgelstm train` writes and `edgelstm export` reads."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import InputError
from ..runtime.folder import replacing_folder, standing_in
from ..runtime.streaming import CARRY

VERSION = 1
DESCRIPTION, MODEL, CALIBRATION, METRICS, HISTORY = (
    "run.json",
    "model.keras",
    "calibration.npz",
    "metrics.json",
    "history.csv",
)


@dataclass(frozen=True)
class RunFolder:
    """A training run.

    Attributes:
        path: the folder.
        task: `forecast` or `classification`.
        data: name of the file trained on.
        features: names of the inputs.
        outputs: names of the outputs.
        target: the column forecast, or that of the labels.
        window: timesteps trained on at a time; None where whole sequences were.
        horizon: how many timesteps ahead a forecast looks.
        sampling: the column of times and its usual distance in seconds, if known.
        labels: the classes, in the order of the outputs.
        rows: rows or sequences in the parts for training, validation and test.
        settings: how it was trained.
        notes: what was left out or filled, and how the model streams.
        metrics: errors on unseen data, beside the naive baseline.
        streaming: how the model is to be streamed: `carry` or `window`.
    """

    path: Path
    task: str
    data: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    target: str
    window: int | None
    horizon: int | None
    sampling: dict[str, Any] | None
    labels: tuple[str, ...]
    rows: dict[str, int]
    settings: dict[str, Any]
    notes: tuple[str, ...]
    metrics: dict[str, Any]
    streaming: str = CARRY

    @property
    def model_path(self) -> Path:
        """The Keras model."""
        return self.path / MODEL

    def calibration(self) -> npt.NDArray[np.float32]:
        """Raw sequences of the training part: (N, T, features)."""
        try:
            with np.load(self.path / CALIBRATION, allow_pickle=False) as arrays:
                return np.asarray(arrays["sequences"], np.float32)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{self.path / CALIBRATION}: cannot be read ({error}); train again") from error

    def export_settings(self) -> dict[str, Any]:
        """What the bundle's manifest takes over, as keywords of `export`."""
        training = {
            "task": self.task,
            "target": self.target,
            "horizon": self.horizon,
            "sampling": self.sampling,
            "labels": list(self.labels),
            "metrics": self.metrics,
        }
        return {
            "name": self.path.name or self.path.resolve().name,
            "features": self.features,
            "outputs": self.outputs,
            "window": self.window,
            "carry": self.streaming == CARRY,
            "training": training,
        }


def is_run_folder(path: Path) -> bool:
    """Whether a path is a folder that `edgelstm train` wrote, as far as its description tells."""
    return (path / DESCRIPTION).is_file()


def read_run_folder(path: str | Path) -> RunFolder:
    """Read a run folder.

    Raises:
        InputError: it is none, incomplete, damaged or of a later version.
    """
    folder = standing_in(Path(path))
    try:
        raw = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = raw.pop("version")
        if version > VERSION:
            raise InputError(
                f"{folder}: run folder format {version} is newer than this EdgeLSTM reads; update EdgeLSTM"
            )
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        for key in ("features", "outputs", "labels", "notes"):
            raw[key] = tuple(raw[key])
        run = RunFolder(path=folder, metrics=metrics, **raw)
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise InputError(f"{folder}: not a folder that `edgelstm train` wrote: {name} is missing") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{folder}: a damaged run folder ({error}); train again") from error
    if not run.model_path.is_file():
        raise InputError(f"{folder}: not a folder that `edgelstm train` wrote: {MODEL} is missing")
    return run


def check_writable(path: Path, overwrite: bool) -> None:
    """Fail before the training rather than after it.

    Raises:
        InputError: the folder is there already, or its parent is not or cannot be written.
    """
    if path.exists() and not (overwrite and (path / DESCRIPTION).is_file()):
        remedy = "pass --overwrite, or choose another -o" if (path / DESCRIPTION).is_file() else "choose another -o"
        raise InputError(f"{path}: is there already; {remedy}")
    try:
        Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent)).rmdir()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def write_run_folder(
    run: RunFolder, model: Any, calibration: npt.NDArray[np.float32], history: dict[str, list[float]]
) -> RunFolder:
    """Write a run folder whole or not at all, in place of one that is there.

    Raises:
        InputError: it cannot be written.
    """
    path = run.path
    description = {key: value for key, value in asdict(run).items() if key not in ("path", "metrics")}
    try:
        with replacing_folder(path, DESCRIPTION, "a folder that `edgelstm train` wrote") as temporary:
            model.save(temporary / MODEL)
            np.savez(temporary / CALIBRATION, sequences=calibration)
            text = json.dumps({"version": VERSION, **description}, indent=1)
            (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
            (temporary / METRICS).write_text(json.dumps(run.metrics, indent=1) + "\n", encoding="utf-8")
            rows = zip(*history.values(), strict=True)
            lines = [",".join(["epoch", *history]), *(f"{i},{','.join(map(str, r))}" for i, r in enumerate(rows, 1))]
            (temporary / HISTORY).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); nothing was left there") from error
    return run
