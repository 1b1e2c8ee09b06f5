"""Golden vectors: input sequences that exercise a model, and Keras's outputs for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..runtime.bundle import Golden
from ..runtime.errors import UnsupportedModelError
from ..runtime.network import Affine, Masking, Network

# Lengths of the sequences, each from a reset: one long enough for an error to build up, and ever shorter ones.
LENGTHS = (512, 256, 128, 64, 32, 16, 8, 4, 3, 1, 1)
MASKED_FRACTION = 0.05
SEED = 20240229


def golden_vectors(network: Network, calibration: npt.NDArray[np.float32] | None) -> Golden:
    """Golden vectors of a network that can be streamed.

    Args:
        network: read from Keras, so that it has a reference.
        calibration: (N, T, features); the inputs are drawn from it, or made up where there is none.

    Raises:
        UnsupportedModelError: the network did not come from Keras, or Keras's outputs for it are not finite.
    """
    if network.reference is None:
        raise UnsupportedModelError(
            f"{network.name}: the network has no reference to prove its exports against; read it with read_keras"
        )
    inputs = golden_inputs(network, calibration)
    starts = tuple(int(s) for s in np.cumsum((0, *LENGTHS[:-1])))
    sequences = np.split(inputs, starts[1:])
    outputs = np.concatenate([network.reference(sequence) for sequence in sequences]).astype(np.float32)
    if not np.isfinite(outputs).all():
        raise UnsupportedModelError(
            f"{network.name}: Keras itself gives outputs that are not finite; check the model's weights"
        )
    return Golden(inputs, outputs, starts)


def golden_inputs(network: Network, calibration: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """The inputs of the golden vectors: (sum of LENGTHS, features), the same for the same arguments."""
    rng = np.random.default_rng(SEED)
    if calibration is None:
        inputs = _undo_normalisation(network, synthetic_inputs(rng, sum(LENGTHS), network.features))
    else:
        inputs = _drawn(rng, calibration)
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


def _drawn(rng: np.random.Generator, calibration: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """A contiguous run of the calibration data for each length; data shorter than that is run through again."""
    long = calibration.reshape(-1, calibration.shape[-1])
    runs: list[npt.NDArray[np.float32]] = []
    for length in LENGTHS:
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
