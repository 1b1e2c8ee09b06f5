"""Golden vectors: input sequences that exercise a model, and Keras's outputs for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..runtime.errors import UnsupportedModelError
from ..runtime.golden import Golden
from ..runtime.network import Affine, Masking, Network, Reference

# Lengths of the sequences, each from a reset: one long enough for an error to build up, and ever shorter ones.
LENGTHS = (512, 256, 128, 64, 32, 16, 8, 4, 3, 1, 1)
MASKED_FRACTION = 0.05
# A model whose outputs become so many times larger once its state is carried past its window was not made for that.
GROWTH = 100.0
# And so many times larger than its first answers, no model's outputs become that has a use.
RUNAWAY = 1e9
SEED = 20240229


def carries_state(network: Network, calibration: npt.NDArray[np.float32] | None, window: int) -> bool:
    """Whether a model trained on windows has bounded outputs when its state is carried on past them.

    Many with a relu cell have not: trained on 24 timesteps, they grow without limit over 500.
    """
    outputs = np.abs(reference_of(network)(golden_inputs(network, calibration)[: max(LENGTHS)]))
    return bool(np.isfinite(outputs).all() and outputs.max() <= GROWTH * max(outputs[:window].max(), 1e-6))


def longest_sequence(network: Network, calibration: npt.NDArray[np.float32] | None, window: int | None) -> int | None:
    """Timesteps that the state can be carried for; None where there is no end to it."""
    return None if window is None or carries_state(network, calibration, window) else window


def golden_vectors(network: Network, calibration: npt.NDArray[np.float32] | None, longest: int | None = None) -> Golden:
    """Golden vectors of a network that can be streamed.

    Args:
        network: read from Keras, so that it has a reference.
        calibration: (N, T, features); the inputs are drawn from it, or made up where there is none.
        longest: timesteps of the longest sequence, for a model whose state cannot be carried further.

    Raises:
        UnsupportedModelError: the network did not come from Keras, or Keras's outputs for it are not finite.
    """
    inputs = golden_inputs(network, calibration)
    starts = _starts(len(inputs), longest)
    reference = reference_of(network)
    outputs = np.concatenate([reference(sequence) for sequence in np.split(inputs, starts[1:])]).astype(np.float32)
    early, largest = np.abs(outputs[:32]).max(), np.abs(outputs).max()
    if not largest <= RUNAWAY * max(early, 1e-3):
        raise UnsupportedModelError(
            f"{network.name}: Keras's own outputs grow without bound as the state is carried on (up to {largest:.2g}); "
            "check the model's weights, and if it was trained on windows of some timesteps, say how many (--window T)"
        )
    return Golden(inputs, outputs, starts)


def reference_of(network: Network) -> Reference:
    """Keras itself, as the network's reference.

    Raises:
        UnsupportedModelError: the network did not come from Keras.
    """
    if network.reference is None:
        raise UnsupportedModelError(
            f"{network.name}: the network has no reference to prove its exports against; read it with read_keras"
        )
    return network.reference


def _starts(steps: int, longest: int | None) -> tuple[int, ...]:
    """Where each sequence starts; those too long are several."""
    starts: list[int] = []
    for start, length in zip(np.cumsum((0, *LENGTHS[:-1])), LENGTHS, strict=True):
        starts.extend(range(int(start), int(start) + length, longest or steps))
    return tuple(starts)


def golden_inputs(
    network: Network, calibration: npt.NDArray[np.float32] | None, lengths: Sequence[int] = LENGTHS
) -> npt.NDArray[np.float32]:
    """The inputs of the golden vectors: (sum of lengths, features), the same for the same arguments."""
    rng = np.random.default_rng(SEED)
    if calibration is None:
        inputs = _undo_normalisation(network, synthetic_inputs(rng, sum(lengths), network.features))
    else:
        inputs = _drawn(rng, calibration, lengths)
    if network.mask_value is not None:
        inputs[rng.random(len(inputs)) < MASKED_FRACTION] = network.mask_value
    return inputs.astype(np.float32)


def synthetic_inputs(rng: np.random.Generator, steps: int, features: int) -> npt.NDArray[np.float64]:
    """Signals around zero that open and shut gates: slow drifts, plateaus, jumps and noise, now weak, now strong."""
    noise = rng.standard_normal((steps, features))
    drift = np.cumsum(rng.standard_normal((steps, features)), axis=0)
    drift -= np.linspace(0, 1, steps)[:, None] * drift[-1]
    drift /= np.abs(drift).max(0) + 1e-9
    held = np.repeat(rng.standard_normal((steps // 16 + 1, features)), 16, axis=0)[:steps]
    strength = np.repeat(rng.choice([0.3, 1.0, 3.0], (steps // 64 + 1, 1)), 64, axis=0)[:steps]
    return strength * (noise + 2 * drift + held) / 2


def _drawn(
    rng: np.random.Generator, calibration: npt.NDArray[np.float32], lengths: Sequence[int]
) -> npt.NDArray[np.float64]:
    """A contiguous run of the calibration data for each length; data shorter than that is run through again."""
    long = calibration.reshape(-1, calibration.shape[-1])
    runs: list[npt.NDArray[np.float32]] = []
    for length in lengths:
        start = int(rng.integers(len(long)))
        runs.append(long[np.arange(start, start + length) % len(long)])
    return np.concatenate(runs).astype(np.float64)


def _undo_normalisation(network: Network, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Raw inputs that become `z` behind the affine layers with which the network begins."""
    leading: list[Affine] = []
    for layer in network.layers:
        if isinstance(layer, Affine):
            leading.append(layer)
        elif not isinstance(layer, Masking):
            break
    for layer in reversed(leading):
        scale = np.where(layer.scale == 0, 1, layer.scale)
        z = (z - layer.offset) / scale + layer.center
    return z
