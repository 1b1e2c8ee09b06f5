"""Training a forecast: the target some timesteps ahead, from all that came before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import InputError
from ..runtime.streaming import CARRY, WINDOW
from .fit import CALIBRATION_STEPS, Batch, TrainConfig, build, fit, seed_everything, spread
from .run_folder import RunFolder
from .series import Series, read_series

DEFAULT_WINDOW = 48
# Where the loss turns from squares to absolute values, in standard deviations of the target.
HUBER_DELTA = 0.1
# Windows are chosen where their error is less than this part of the carried state's.
WORTH_A_WINDOW = 0.99
# A short series gives few windows side by side; it is cut anew, at other places, until there are so many batches.
MINIMUM_BATCHES = 16


def train_forecast(
    config: TrainConfig, path: Any, progress: bool
) -> tuple[RunFolder, Any, npt.NDArray[np.float32], dict[str, list[float]]]:
    """Train, and measure on unseen data.

    The model answers at every timestep of a window and is trained on all of these answers, so that it learns to
    forecast from a short past and from a long one, as a stream needs it.

    Returns:
        The run, the Keras model, calibration sequences and the history.

    Raises:
        InputError: the data does not fit.
    """
    window = config.window or DEFAULT_WINDOW
    series = read_series(
        config.data, str(config.target), config.features, config.time, config.missing, config.fill_limit
    )
    parts = divide(series, config)
    for name, segments in parts.items():
        if not any(b - a >= window + config.horizon for a, b in segments):
            raise InputError(
                f"{config.data}: the {name} part has no run of {window + config.horizon} rows without a gap, for a "
                f"window of {window} and a horizon of {config.horizon}; shorten --window, or bring more data"
            )
    rng = seed_everything(config.seed)
    seen = np.concatenate([series.values[a:b] for a, b in parts["training"]], dtype=np.float64)
    goal = np.concatenate([series.target[a:b] for a, b in parts["training"]]).astype(np.float64)
    mean, deviation = float(np.nanmean(goal)), float(np.nanstd(goal)) or 1.0
    model = _model(config, seen, mean, deviation)

    def loss(y: Any, answer: Any) -> Any:
        from keras import ops

        error: Any = ops.abs((y - answer) / deviation)
        error = error[..., 0]
        return ops.where(error < HUBER_DELTA, error * error / (2 * HUBER_DELTA), error - HUBER_DELTA / 2)

    def batches() -> list[Batch]:
        drawn = [windows(series, parts["training"], window, config.horizon, rng)]
        while sum(len(x) for x, _, _ in drawn) < MINIMUM_BATCHES * config.batch_size:
            drawn.append(windows(series, parts["training"], window, config.horizon, rng))
        x, y, weights = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        order = rng.permutation(len(x))
        cuts = [order[i : i + config.batch_size] for i in range(0, len(x) - config.batch_size + 1, config.batch_size)]
        return [(x[cut], y[cut], weights[cut]) for cut in cuts]

    validation = windows(series, parts["validation"], window, config.horizon, None)
    history = fit(model, loss, batches, validation, config, progress)
    metrics = evaluate(model, series, parts["test"], window, config.horizon)
    tried = evaluate(model, series, parts["validation"], window, config.horizon)
    streaming, reason = choose_streaming(window, tried["carried"]["rmse"], tried["window"]["rmse"], "RMSE {:.4g}")
    run = RunFolder(
        path=path,
        task="forecast",
        data=config.data.name,
        features=series.features,
        outputs=(f"{config.target}+{config.horizon}",),
        target=str(config.target),
        window=window,
        horizon=config.horizon,
        sampling=series.sampling,
        labels=(),
        rows={name: sum(b - a for a, b in segments) for name, segments in parts.items()},
        settings=settings(config),
        notes=(*series.notes, reason),
        metrics={**metrics, "validation": tried},
        streaming=streaming,
    )
    calibration = spread([series.values[a:b] for a, b in parts["training"]], max(CALIBRATION_STEPS, window))
    return run, model, calibration, history


def divide(series: Series, config: TrainConfig) -> dict[str, list[tuple[int, int]]]:
    """The runs of rows without a gap, [start, stop), for training, validation and test, in order of time."""
    rows = len(series.values)
    first = round(rows * (1 - config.validation_fraction - config.test_fraction))
    second = round(rows * (1 - config.test_fraction))
    edges = {"training": (0, first), "validation": (first, second), "test": (second, rows)}
    return {name: series.between(start, stop) for name, (start, stop) in edges.items()}


def choose_streaming(window: int | None, carried: float, by_window: float | None, figure: str) -> tuple[str, str]:
    """How a model is to be streamed: with its state carried, unless windows give smaller errors on the validation part.

    Windows take a step of each window in flight where carrying takes one, so they have to be worth it.

    Returns:
        `carry` or `window`, and a sentence that says why.
    """
    if window is None or by_window is None:
        return CARRY, "streams with its state carried on: it was trained on whole sequences"
    figures = (
        f"{figure.format(carried)} with the state carried on, {figure.format(by_window)} on the last {window} timesteps"
    )
    if by_window < WORTH_A_WINDOW * carried:
        return WINDOW, f"streams by window, which is better on the validation part: {figures}"
    return CARRY, f"streams with its state carried on; on the validation part: {figures}"


def settings(config: TrainConfig) -> dict[str, Any]:
    """The configuration, as JSON can hold it, without what stands elsewhere in the run."""
    kept = ("units", "cell", "epochs", "batch_size", "learning_rate", "patience", "dropout", "seed")
    kept += ("validation_fraction", "test_fraction", "missing", "fill_limit")
    return {key: list(value) if isinstance(value := getattr(config, key), tuple) else value for key in kept}


def _model(config: TrainConfig, seen: npt.NDArray[Any], mean: float, deviation: float) -> Any:
    import keras

    head = [keras.layers.Dense(1), keras.layers.Rescaling(deviation, mean)]
    return build(config, seen.mean(axis=0), seen.var(axis=0), head)


def windows(
    series: Series, segments: list[tuple[int, int]], window: int, horizon: int, rng: np.random.Generator | None
) -> Batch:
    """Windows side by side in each segment: inputs, targets, and weights that are 0 where there is no target.

    With a generator each segment's first window starts somewhere else each time, so that epochs differ.
    """
    starts: list[tuple[int, int]] = []
    for a, b in segments:
        room = b - horizon - a
        offset = 0 if rng is None or room <= window else int(rng.integers(0, min(window, room - window + 1)))
        starts += [(start, b) for start in range(a + offset, b - horizon, window)]
    x = np.zeros((len(starts), window, len(series.features)), np.float32)
    y = np.zeros((len(starts), window, 1), np.float32)
    weights = np.zeros((len(starts), window), np.float32)
    for row, (start, stop) in enumerate(starts):
        n = min(window, stop - horizon - start)
        target = series.target[start + horizon : start + horizon + n]
        x[row, :n] = series.values[start : start + n]
        known = np.isfinite(target)
        y[row, :n, 0] = np.where(known, target, 0)
        weights[row, :n] = known
    return x, y, weights


def evaluate(model: Any, series: Series, segments: list[tuple[int, int]], window: int, horizon: int) -> dict[str, Any]:
    """Errors on unseen data, all over the same timesteps: those with a full window behind them.

    `carried` runs each run of rows without a gap as one stream from zero state; `window` gives the model the last
    `window` rows from zero state each time; `persistence` repeats the last known value of the target.
    """
    carried: list[Any] = []
    windowed: list[Any] = []
    naive: list[Any] = []
    wanted: list[Any] = []
    for a, b in segments:
        last = np.arange(a + window - 1, b - horizon)
        known = last[np.isfinite(series.target[last + horizon])] if len(last) else last
        if len(known) == 0:
            continue
        stream = model.predict(series.values[None, a : b - horizon], verbose=0)[0, :, 0]
        views = np.lib.stride_tricks.sliding_window_view(series.values[a:b], window, axis=0).swapaxes(1, 2)
        answers = model.predict(views[known - a - window + 1], batch_size=512, verbose=0)[:, -1, 0]
        carried.append(stream[known - a])
        windowed.append(answers)
        naive.append(_last_known(series.target[: known[-1] + 1])[known])
        wanted.append(series.target[known + horizon])
    want = np.concatenate(wanted).astype(np.float64)
    errors = {"carried": carried, "window": windowed, "persistence": naive}
    return {
        "timesteps": len(want),
        **{name: _errors(np.concatenate(answers).astype(np.float64) - want) for name, answers in errors.items()},
    }


def _last_known(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    known = np.where(np.isfinite(values), np.arange(len(values)), -1)
    return values[np.maximum.accumulate(known)]


def _errors(difference: npt.NDArray[np.float64]) -> dict[str, float]:
    return {"mae": float(np.abs(difference).mean()), "rmse": float(np.sqrt(np.square(difference).mean()))}
