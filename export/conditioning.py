"""How well float32 itself can compute a model: no export is asked for more than Keras's own float32 gives.

A recurrence at the edge of chaos makes every rounding error larger, timestep by timestep, in Keras as in any other
runtime. What Keras in float32 gives is compared with the network in float64; a mistake in the network would look the
same, so it counts only as far as roundings explain it: the network's weights are disturbed by as much as rounding to
float32 does (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 1.5, backward error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runtime.golden import Golden
from ..runtime.network import Activation, Dense, Network
from ..runtime.parity import TOLERANCES, Parity, Tolerance, compare, least_of_an_output
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
class Conditioning:
    """What float32 can give of a model on some inputs.

    Attributes:
        keras: Keras's own float32 against the network in float64.
        snr_db: the same ratio as far as rounding explains it, in dB; exports are measured by this.
        output_snr_db: likewise of the worst output's variation.
        probabilities: whether the outputs are probabilities, see `compare`.
    """

    keras: Parity
    snr_db: float
    output_snr_db: float
    probabilities: bool = False

    def tolerance(self, precision: str, min_snr: float | None = None) -> Tolerance:
        """What an artifact of a precision must reach; `min_snr` in dB replaces the precision's own ratio."""
        wanted = TOLERANCES[precision]
        least = min(wanted, self.snr_db - ALLOWANCE) if min_snr is None else min_snr
        of_an_output = min(least_of_an_output(wanted if min_snr is None else min_snr), self.output_snr_db - ALLOWANCE)
        return Tolerance(round(least, 1), round(of_an_output, 1), self.probabilities)


def conditioning(network: Network, golden: Golden) -> Conditioning:
    """Measure what float32 can give of a network on golden vectors, whose outputs are Keras's."""
    probabilities = gives_probabilities(network)
    sequences = list(golden.sequences() if golden.window is None else golden.windows())

    def answers(double: Network) -> Doubles:
        rows = run(double, sequences)
        return np.concatenate(rows if golden.window is None else [row[-1:] for row in rows])

    exact = answers(in_float64(network))
    if not np.isfinite(exact).all():  # Where Keras is finite, roundings explain nothing.
        return Conditioning(compare(np.full_like(exact, np.nan), np.zeros_like(exact)), np.inf, np.inf, probabilities)
    keras = compare(golden.outputs, exact, probabilities)
    snr, of_an_output = keras.snr_db, keras.worst_output_snr_db
    if not keras.within(*_UNQUESTIONED):
        rng = np.random.default_rng(SEED)
        disturbed = (in_float64(network, disturbance(rng)) for _ in range(DRAWS))
        draws = [compare(answers(other), exact, probabilities) for other in disturbed]
        snr = max(snr, min(draw.snr_db for draw in draws) - UNEXPLAINED)
        of_an_output = max(of_an_output, min(draw.worst_output_snr_db for draw in draws) - UNEXPLAINED)
    return Conditioning(keras, snr, of_an_output, probabilities)


def gives_probabilities(network: Network) -> bool:
    """Whether the outputs come from a sigmoid or a softmax."""
    for layer in reversed(network.layers):
        if isinstance(layer, Dense):
            return layer.activation.name in PROBABILITIES
        if isinstance(layer, Activation):
            return layer.function.name in PROBABILITIES
        return False
    return False
