"""Training a classification of sequences: a probability for each class at every timestep."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import InputError
from .fit import CALIBRATION_STEPS, Batch, TrainConfig, build, fit, seed_everything, spread
from .forecast import choose_streaming, settings
from .run_folder import RunFolder
from .series import LabelledSequences, read_sequences_by_label

# Noise added to the inputs in training, in standard deviations of each feature, and the part of a sequence's start
# that may be cut off: with a few hundred sequences a network would learn these by heart.
NOISE, CROP = 0.3, 0.3


def train_classification(
    config: TrainConfig, path: Any, progress: bool
) -> tuple[RunFolder, Any, npt.NDArray[np.float32], dict[str, list[float]]]:
    """Train, and measure on unseen sequences.

    The loss counts every timestep's answer, the later the more: the model has seen most by then, but a stream is
    asked before the end as well.

    Returns:
        The run, the Keras model, calibration sequences and the history.

    Raises:
        InputError: the data does not fit.
    """
    data = read_sequences_by_label(
        config.data, str(config.sequence), str(config.label), config.features, config.missing
    )
    rng = seed_everything(config.seed)
    parts = split(data, config, rng)
    seen = np.concatenate([data.sequences[i] for i in parts["training"]]).astype(np.float64)
    deviation = seen.std(0)

    import keras

    model = build(config, seen.mean(0), seen.var(0), [keras.layers.Dense(len(data.classes), activation="softmax")])

    def loss(y: Any, probabilities: Any) -> Any:
        return keras.losses.sparse_categorical_crossentropy(y, probabilities)

    def batches() -> list[Batch]:
        order = rng.permutation(parts["training"])
        size = min(config.batch_size, len(order))
        # The last batch is filled up with sequences from the start: batches of one size, none left out.
        order = np.resize(order, -(-len(order) // size) * size)
        cuts = [order[i : i + size] for i in range(0, len(order), size)]
        return [_padded(data, cut, longest, rng, deviation) for cut in cuts]

    longest = max(map(len, data.sequences))
    history = fit(model, loss, batches, _padded(data, parts["validation"], longest), config, progress)
    tried = evaluate(model, data, parts["validation"], parts["training"], config.window)
    streaming, reason = choose_streaming(
        config.window,
        1 - tried["carried"]["accuracy"],
        1 - tried["window"]["accuracy"] if config.window is not None else None,
        "{:.1%} wrong",
    )
    run = RunFolder(
        path=path,
        task="classification",
        data=config.data.name,
        features=data.features,
        outputs=tuple(f"p({name})" for name in data.classes),
        target=str(config.label),
        window=config.window,
        horizon=None,
        sampling=None,
        labels=data.classes,
        rows={name: len(indices) for name, indices in parts.items()},
        settings=settings(config),
        notes=(*data.notes, reason),
        metrics={**evaluate(model, data, parts["test"], parts["training"], config.window), "validation": tried},
        streaming=streaming,
    )
    calibration = spread([data.sequences[i] for i in parts["training"]], CALIBRATION_STEPS)
    return run, model, calibration, history


def split(data: LabelledSequences, config: TrainConfig, rng: np.random.Generator) -> dict[str, npt.NDArray[np.int64]]:
    """Indices of the sequences for training, validation and test: drawn apart within each class."""
    parts: dict[str, list[int]] = {"training": [], "validation": [], "test": []}
    for number, name in enumerate(data.classes):
        own = rng.permutation(np.flatnonzero(data.labels == number))
        test, validation = (round(len(own) * f) for f in (config.test_fraction, config.validation_fraction))
        if min(test, validation, len(own) - test - validation) < 1:
            raise InputError(
                f"{config.data}: class {name!r} has {len(own)} sequences, too few for parts to train, validate and test"
            )
        parts["test"] += own[:test].tolist()
        parts["validation"] += own[test : test + validation].tolist()
        parts["training"] += own[test + validation :].tolist()
    return {name: np.array(sorted(indices)) for name, indices in parts.items()}


def _padded(
    data: LabelledSequences,
    indices: npt.NDArray[np.int64],
    longest: int,
    rng: np.random.Generator | None = None,
    deviation: npt.NDArray[Any] | None = None,
) -> Batch:
    """Sequences padded behind their end, with weights that are 0 there; noisy and cropped with a generator."""
    x = np.zeros((len(indices), longest, len(data.features)), np.float32)
    y = np.zeros((len(indices), longest), np.int32)
    weights = np.zeros((len(indices), longest), np.float32)
    for row, index in enumerate(indices):
        sequence = data.sequences[index]
        if rng is not None and deviation is not None:
            sequence = sequence[int(rng.integers(0, int(len(sequence) * CROP) + 1)) :]
            sequence = sequence + NOISE * deviation * rng.standard_normal(sequence.shape)
        n = len(sequence)
        x[row, :n], y[row] = sequence, data.labels[index]
        ramp = (np.arange(1, n + 1) / n) ** 2
        # Keras divides a batch's loss by all of its timesteps; so each sequence counts the same, however long.
        weights[row, :n] = ramp / ramp.sum() * longest
    return x, y, weights


def evaluate(
    model: Any,
    data: LabelledSequences,
    test: npt.NDArray[np.int64],
    training: npt.NDArray[np.int64],
    window: int | None,
) -> dict[str, Any]:
    """Accuracy at the last timestep of unseen sequences, beside that of always saying the commonest class.

    `carried` runs each sequence as one stream from zero state, `window` gives the model its last `window` timesteps
    only.
    """
    labels = data.labels[test]
    majority = int(np.bincount(data.labels[training]).argmax())
    metrics: dict[str, Any] = {
        "sequences": len(test),
        "carried": {"accuracy": _accuracy(model, [data.sequences[i] for i in test], labels)},
        "majority": {"accuracy": float((labels == majority).mean())},
    }
    if window is not None:
        metrics["window"] = {"accuracy": _accuracy(model, [data.sequences[i][-window:] for i in test], labels)}
    return metrics


def _accuracy(model: Any, sequences: list[npt.NDArray[Any]], labels: npt.NDArray[np.int64]) -> float:
    longest = max(map(len, sequences))
    x = np.zeros((len(sequences), longest, sequences[0].shape[1]), np.float32)
    for row, sequence in enumerate(sequences):
        x[row, : len(sequence)] = sequence
    # What follows a sequence's end cannot change the answer at its end.
    answers = model.predict(x, batch_size=256, verbose=0)
    at_the_end = answers[np.arange(len(sequences)), [len(s) - 1 for s in sequences]]
    return float((at_the_end.argmax(-1) == labels).mean())
