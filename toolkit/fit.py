"""Building and fitting the recurrent stack that both tasks share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import InputError

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
CELLS = ("lstm", "gru")
CALIBRATION_SEQUENCES, CALIBRATION_STEPS = 64, 512


@dataclass(frozen=True)
class TrainConfig:
    """What to train, and how.

    Attributes:
        data: the CSV.
        target: the column to forecast; None for classification.
        features: the columns to learn from; None takes every numeric column that tells something.
        window: timesteps to train on at a time; for classification only used to evaluate with a window.
        horizon: how many timesteps ahead to forecast.
        units: of each recurrent layer.
        cell: `lstm` or `gru`.
        sequence: for classification, the column whose value marks a sequence.
        label: for classification, the column of labels.
        time: the column of times; None looks for one.
        missing: `fill`, `drop` or `refuse`.
        fill_limit: rows that the last value is carried over, at most.
        epochs: at most.
        batch_size: windows or sequences in a batch.
        learning_rate: at the start; it falls to zero along a cosine.
        patience: epochs without improvement on the validation part before training ends.
        dropout: between layers; None takes 0 for a forecast and 0.2 for classification.
        seed: of everything random; the same seed gives the same weights on the same machine.
        validation_fraction: of the rows or sequences, to stop by.
        test_fraction: of the rows or sequences, to report on; never looked at before.
    """

    data: Path
    target: str | None = None
    features: tuple[str, ...] | None = None
    window: int | None = None
    horizon: int = 1
    units: tuple[int, ...] = (64, 64)
    cell: str = "lstm"
    sequence: str | None = None
    label: str | None = None
    time: str | None = None
    missing: str = "fill"
    fill_limit: int = 3
    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 3e-3
    patience: int = 15
    dropout: float | None = None
    seed: int = 0
    validation_fraction: float = 0.15
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        wrong = {
            "--units": not self.units or min(self.units) < 1,
            "--cell": self.cell not in CELLS,
            "--window": self.window is not None and self.window < 1,
            "--horizon": self.horizon < 1,
            "--epochs": self.epochs < 1,
            "--batch-size": self.batch_size < 1,
            "--learning-rate": not self.learning_rate > 0,
            "--patience": self.patience < 1,
            "--dropout": self.dropout is not None and not 0 <= self.dropout < 1,
            "--fill-limit": self.fill_limit < 1,
            "--seed": not 0 <= self.seed < 2**32,
            "--validation-fraction": not 0 < self.validation_fraction < 1,
            "--test-fraction": not 0 < self.test_fraction < 1,
        }
        for option, bad in wrong.items():
            if bad:
                value = getattr(self, option[2:].replace("-", "_"))
                raise InputError(f"{option}: {value} makes no sense; see `edgelstm train --help`")
        if self.validation_fraction + self.test_fraction >= 1:
            raise InputError("--validation-fraction and --test-fraction leave nothing to train on")
        if (self.sequence is None) != (self.label is None):
            raise InputError("classification needs both --sequence COLUMN and --label COLUMN")
        if (self.target is None) == (self.label is None):
            raise InputError("give either --target COLUMN to forecast, or --sequence and --label to classify")


def seed_everything(seed: int) -> np.random.Generator:
    """Make a training repeatable; the generator is for what NumPy draws."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return np.random.default_rng(seed)


def build(config: TrainConfig, mean: npt.NDArray[Any], variance: npt.NDArray[Any], head: Sequence[Any]) -> Any:
    """Normalization, the recurrent stack with an answer for every timestep, and the head: a `keras.Model`.

    Raw features go in, so nobody has to remember on the device how they were scaled.
    """
    import keras

    default = 0.0 if config.target is not None else 0.2
    dropout = default if config.dropout is None else config.dropout
    cell = keras.layers.LSTM if config.cell == "lstm" else keras.layers.GRU
    layers: list[Any] = [keras.Input((None, len(mean)))]
    # A feature that never changes in training says nothing: scaled by 1 rather than by 1/0.
    variance = np.where(variance > 0, variance, 1.0)
    layers.append(keras.layers.Normalization(mean=mean.tolist(), variance=variance.tolist()))
    for units in config.units:
        layers.append(cell(units, return_sequences=True))
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
    return keras.Sequential([*layers, *head])


def fit(
    model: Any,
    loss: Callable[[Any, Any], Any],
    batches: Callable[[], list[Batch]],
    validation: Batch,
    config: TrainConfig,
    progress: bool,
) -> dict[str, list[float]]:
    """Fit a model on batches that are made anew for each epoch, and leave it with its best weights.

    Best by the validation part's loss, which also ends the training when it no longer falls.

    Returns:
        `loss`, `validation_loss` and `learning_rate` of each epoch.
    """
    import keras

    first = batches()
    schedule: Any = keras.optimizers.schedules.CosineDecay(config.learning_rate, max(len(first) * config.epochs, 1))
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss)
    history: dict[str, list[float]] = {"loss": [], "validation_loss": [], "learning_rate": []}
    best, best_weights, best_epoch = np.inf, model.get_weights(), 0
    with _ProgressBar(config.epochs, progress) as advance:
        for epoch in range(config.epochs):
            losses = [float(model.train_on_batch(*batch)) for batch in (first if epoch == 0 else batches())]
            x, y, weights = validation
            validation_loss = float(model.evaluate(x, y, sample_weight=weights, batch_size=256, verbose=0))
            if not np.isfinite(validation_loss):
                raise InputError("training diverged: the loss is not finite; lower --learning-rate")
            history["loss"].append(float(np.mean(losses)))
            history["validation_loss"].append(validation_loss)
            history["learning_rate"].append(float(model.optimizer.learning_rate))
            if validation_loss < best:
                best, best_weights, best_epoch = validation_loss, model.get_weights(), epoch
            advance(f"loss {history['loss'][-1]:.4f}, validation {validation_loss:.4f}")
            if epoch - best_epoch >= config.patience:
                break
    model.set_weights(best_weights)
    return history


class _ProgressBar:
    """A progress bar on standard error, or nothing."""

    def __init__(self, epochs: int, shown: bool) -> None:
        self._epochs, self._shown = epochs, shown

    def __enter__(self) -> Callable[[str], None]:
        if not self._shown:
            return lambda text: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=sys.stderr)
        columns = (
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        task = self._progress.add_task("", total=self._epochs)
        self._progress.start()
        return lambda text: self._progress.update(task, advance=1, description=text)

    def __exit__(self, *_: object) -> None:
        if self._shown and hasattr(self, "_progress"):
            self._progress.stop()


def spread(sequences: Sequence[npt.NDArray[Any]], steps: int) -> npt.NDArray[np.float32]:
    """Up to 64 sequences of `steps` timesteps, evenly chosen, for calibration; shorter ones are joined before."""
    joined = np.concatenate(list(sequences))
    steps = min(steps, len(joined))
    starts = np.linspace(0, len(joined) - steps, min(CALIBRATION_SEQUENCES, max(len(joined) // steps, 1)))
    return np.stack([joined[int(s) : int(s) + steps] for s in starts]).astype(np.float32)
