"""How well float32 itself can compute a model: no export is asked for more than Keras's own float32 gives.

A recurrence at the edge of chaos makes every rounding error larger, timestep by timestep, in Keras as in any other
runtime. What Keras in float32 gives is compared with the network in float64; a mistake in the network would look the
same, so it counts only as far as roundings explain it: the network's weights are disturbed by as much as rounding to
float32 does (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 1.5, backward error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..runtime.errors import UnsupportedModelError
from ..runtime.golden import Golden
from ..runtime.network import Activation, Affine, Dense, Network, Reference
from ..runtime.parity import TOLERANCES, Parity, Tolerance, compare, least_of_an_output
from .exact import Doubles, disturbance, in_float64, run

# An export may be so many dB worse than Keras's own float32: the order of its sums is another.
ALLOWANCE = 6.0
# In chaos one run says little: two that differ in the last bit end 10 dB apart. So Keras runs many times, and another
# runtime may end as far from the truth as the worst of these.
RUNS = 16
# Disturbing the weights once stands for the roundings of all timesteps, and its luck is its own.
UNEXPLAINED = 20.0
DRAWS = 3
PROBABILITIES = ("sigmoid", "softmax", "hard_sigmoid", "hard_sigmoid_keras2", "sparse_sigmoid")
SEED = 20240311
# Ratios from which nothing is to be explained.
UNQUESTIONED = (TOLERANCES["float32"] + ALLOWANCE, least_of_an_output(TOLERANCES["float32"]) + ALLOWANCE)


@dataclass(frozen=True)
class Conditioning:
    """What float32 can give of a model on some inputs.

    Attributes:
        keras: Keras's own float32 against the network in float64: the worst of several runs on inputs that differ in
            the last bit, where it is not far above what is asked of any model. None where it is not known.
        held_snr_db: the ratio of the first run, in dB, as far as rounding explains it.
        snr_db: that of the worst, likewise. Exports are measured by this.
        output_snr_db: likewise of the worst output's variation.
        probabilities: whether the outputs are probabilities, see `compare`.
    """

    keras: Parity | None
    held_snr_db: float
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
        lost = compare(np.full_like(exact, np.nan), np.zeros_like(exact))
        return Conditioning(lost, np.inf, np.inf, np.inf, probabilities)
    keras = compare(golden.outputs, exact, probabilities)
    if keras.within(*UNQUESTIONED):
        return Conditioning(keras, keras.snr_db, keras.snr_db, keras.worst_output_snr_db, probabilities)
    rng = np.random.default_rng(SEED)
    runs = [keras, *(compare(_keras_again(network, golden, rng), exact, probabilities) for _ in range(RUNS - 1))]
    disturbed = (in_float64(network, disturbance(rng)) for _ in range(DRAWS))
    draws = [compare(answers(other), exact, probabilities) for other in disturbed]
    floor, output_floor = (min(ratios) - UNEXPLAINED for ratios in _ratios(draws))
    whole, single = _ratios(runs)
    of = min(runs, key=lambda parity: parity.worst_output_snr_db).worst_output
    worst = replace(min(runs, key=lambda parity: parity.snr_db), worst_output_snr_db=min(single), worst_output=of)
    snr, of_an_output = max(min(whole), floor), max(min(single), output_floor)
    return Conditioning(worst, max(keras.snr_db, floor), snr, of_an_output, probabilities)


def _ratios(parities: Sequence[Parity]) -> tuple[list[float], list[float]]:
    return [parity.snr_db for parity in parities], [parity.worst_output_snr_db for parity in parities]


def _keras_again(network: Network, golden: Golden, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Keras's outputs on inputs that differ from the golden ones by a rounding."""
    reference = reference_of(network)
    inputs = golden.inputs.astype(np.float64)
    centers = [layer.center for layer in network.layers[:2] if isinstance(layer, Affine)]
    # What a first layer subtracts is exact in float32, so what is left must not be changed by more than it is rounded.
    size = np.abs(inputs - (centers[0] if centers else 0))
    nudged = inputs + rng.uniform(-1, 1, inputs.shape) * np.finfo(np.float32).eps * size
    if network.mask_value is not None:
        nudged = np.where((golden.inputs == np.float32(network.mask_value)).all(1, keepdims=True), inputs, nudged)
    other = replace(golden, inputs=nudged.astype(np.float32))
    if golden.window is not None:
        return reference.windows(np.stack(list(other.windows())))
    return np.concatenate([reference(sequence) for sequence in other.sequences()])


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


def gives_probabilities(network: Network) -> bool:
    """Whether the outputs come from a sigmoid or a softmax."""
    for layer in reversed(network.layers):
        if isinstance(layer, Dense):
            return layer.activation.name in PROBABILITIES
        if isinstance(layer, Activation):
            return layer.function.name in PROBABILITIES
        return False
    return False
