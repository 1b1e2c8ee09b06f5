"""How well float32 itself can compute a model: no export is asked for more than Keras's own float32 gives.

A recurrence at the edge of chaos makes every rounding error larger, timestep by timestep, in Keras as in any other
runtime. What Keras in float32 gives is compared with the network in float64; a mistake in the network would look the
same, so it counts only as far as roundings explain it: the network's weights are disturbed by as much as rounding to
float32 does (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 1.5, backward error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.network import Activation, Dense, Network
from ..runtime.parity import TOLERANCES, Parity, compare, least_of_an_output
from .exact import Doubles, disturbance, in_float64, run

# An export may be so many dB worse than Keras's own float32: the order of its sums is another.
ALLOWANCE = 6.0
# Disturbing the weights once stands for the roundings of all timesteps, and its luck is its own.
UNEXPLAINED = 20.0
DRAWS = 3
PROBABILITIES = ("sigmoid", "softmax", "hard_sigmoid", "hard_sigmoid_keras2", "sparse_sigmoid")
SEED = 20240311
# Ratios from which nothing is to be explained.
_UNQUESTIONED = (TOLERANCES["float32"] + ALLOWANCE, least_of_an_output(TOLERANCES["float32"]) + ALLOWANCE)


@dataclass(frozen=True)
class Least:
    """The least ratios, in dB, that an artifact must reach: of all outputs, and of the worst output's variation."""

    snr_db: float
    output_snr_db: float


@dataclass(frozen=True)
class Conditioning:
    """What float32 can give of a model on some inputs.

    Attributes:
        keras: Keras's own float32 against the network in float64.
        snr_db: the same ratio as far as rounding explains it, in dB; exports are measured by this.
        output_snr_db: likewise of the worst output's variation.
    """

    keras: Parity
    snr_db: float
    output_snr_db: float

    def least(self, precision: str, min_snr: float | None = None) -> Least:
        """What an artifact of a precision must reach; `min_snr` in dB replaces the precision's own ratio."""
        wanted = TOLERANCES[precision] if min_snr is None else min_snr
        least = min(wanted, self.snr_db - ALLOWANCE) if min_snr is None else min_snr
        return Least(least, min(least_of_an_output(wanted), self.output_snr_db - ALLOWANCE))


def conditioning(
    network: Network,
    sequences: Sequence[npt.NDArray[np.float32]],
    expected: npt.NDArray[np.float32],
    last_only: bool = False,
) -> Conditioning:
    """Measure what float32 can give of a network.

    Args:
        network: read from Keras.
        sequences: each (T, features), run from zero state.
        expected: Keras's outputs for every timestep of all sequences, one after the other, (sum of T, outputs); or
            for each sequence's last timestep, (sequences, outputs).
        last_only: whether it is the latter.
    """
    probabilities = gives_probabilities(network)

    def answers(double: Network) -> Doubles:
        return np.concatenate([y[-1:] if last_only else y for y in run(double, sequences)])

    exact = answers(in_float64(network))
    if not np.isfinite(exact).all():  # Where Keras is finite, roundings explain nothing.
        return Conditioning(compare(np.full_like(exact, np.nan), np.zeros_like(exact)), np.inf, np.inf)
    keras = compare(expected, exact, probabilities)
    snr, of_an_output = keras.snr_db, keras.worst_output_snr_db
    if not keras.within(*_UNQUESTIONED):
        rng = np.random.default_rng(SEED)
        disturbed = (in_float64(network, disturbance(rng)) for _ in range(DRAWS))
        draws = [compare(answers(other), exact, probabilities) for other in disturbed]
        snr = max(snr, min(draw.snr_db for draw in draws) - UNEXPLAINED)
        of_an_output = max(of_an_output, min(draw.worst_output_snr_db for draw in draws) - UNEXPLAINED)
    return Conditioning(keras, snr, of_an_output)


def gives_probabilities(network: Network) -> bool:
    """Whether the outputs come from a sigmoid or a softmax."""
    for layer in reversed(network.layers):
        if isinstance(layer, Dense):
            return layer.activation.name in PROBABILITIES
        if isinstance(layer, Activation):
            return layer.function.name in PROBABILITIES
        return False
    return False
