"""Golden vectors: input sequences that exercise a model, and Keras's outputs for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.errors import UnsupportedModelError
from ..runtime.golden import Golden
from ..runtime.network import Network
from .conditioning import Conditioning, conditioning, reference_of
from .golden_inputs import LENGTHS, golden_inputs
from .stability import RUNAWAY, runs_away

# Where float32 cannot give so many dB over the whole length, shorter sequences are what can be proved.
HELD_SNR_DB = 60.0
SHORTEST = 4


@dataclass(frozen=True)
class Proof:
    """What artifacts are replayed on, and what may be asked of them.

    Attributes:
        golden: sequences of inputs, each from a reset, and Keras's outputs on every prefix.
        conditioning: what float32 itself can give of the model on these.
        longest: timesteps that the state is carried for; None where there is no end to it.
        bounded: whether the state can be carried past the window: it neither grows without bound, nor does float32
            lose the model there.
        chaotic_beyond: timesteps after which float32, Keras's own as any other, does not hold the model's outputs:
            every rounding error becomes larger with each timestep. None where it does.
    """

    golden: Golden
    conditioning: Conditioning
    longest: int | None = None
    bounded: bool = True
    chaotic_beyond: int | None = None


def proof_of(network: Network, calibration: npt.NDArray[np.float32] | None, window: int | None) -> Proof:
    """Golden vectors as long as the state can be carried, and what may be asked of an export on them.

    Args:
        network: read from Keras, so that it has a reference.
        calibration: (N, T, features); the inputs are drawn from it, or made up where there is none.
        window: timesteps that the model was trained on at a time, if known. Where the state cannot be carried
            further, the sequences are as long.

    Raises:
        UnsupportedModelError: the network did not come from Keras, or its states or outputs grow without bound and it
            has no window.
    """
    inputs = golden_inputs(network, calibration, window)
    golden = None if runs_away(network, inputs) else _golden(network, inputs, None)
    if golden is None:
        within = None if window is None else _golden(network, inputs, window)
        if within is None:
            raise _growing(network, window, calibration is None)
        return Proof(within, conditioning(network, within), window, bounded=False)
    measured = conditioning(network, golden)
    if measured.held_snr_db >= HELD_SNR_DB:
        return Proof(golden, measured)
    length = max(LENGTHS) // 2
    while length >= SHORTEST:
        shorter = _golden(network, inputs, length)
        held = None if shorter is None else conditioning(network, shorter)
        if shorter is not None and held is not None and held.held_snr_db >= HELD_SNR_DB:
            within = None if window is None else _golden(network, inputs, window)
            if within is None:
                return Proof(shorter, held, chaotic_beyond=length)
            return Proof(within, conditioning(network, within), window, False, length)
        length //= 2
    return Proof(golden, measured)  # It is not the length: float32 does not hold a single timestep.


def _golden(network: Network, inputs: npt.NDArray[np.float32], longest: int | None) -> Golden | None:
    """Sequences of at most `longest` timesteps with Keras's outputs; None where these grow beyond all use."""
    starts = _starts(len(inputs), longest)
    reference = reference_of(network)
    outputs = np.concatenate([reference(sequence) for sequence in np.split(inputs, starts[1:])]).astype(np.float32)
    early, largest = np.abs(outputs[:32]).max(), np.abs(outputs).max()
    return Golden(inputs, outputs, starts) if largest <= RUNAWAY * max(early, 1e-3) else None


def _growing(network: Network, window: int | None, made_up: bool) -> UnsupportedModelError:
    remedies = (
        [] if window is not None else ["if it was trained on windows of some timesteps, say how many (--window T)"]
    )
    if made_up:
        remedies.append("give inputs like those it will see (--calibration FILE)")
    where = "as the state is carried on" if window is None else f"within {window} timesteps"
    return UnsupportedModelError(
        f"{network.name}: Keras's own states or outputs grow without bound {where}; "
        f"{', or '.join([*remedies, 'check the weights'])}"
    )


def _starts(steps: int, longest: int | None) -> tuple[int, ...]:
    """Where each sequence starts; those too long are several."""
    starts: list[int] = []
    for start, length in zip(np.cumsum((0, *LENGTHS[:-1])), LENGTHS, strict=True):
        starts.extend(range(int(start), int(start) + length, longest or steps))
    return tuple(starts)
