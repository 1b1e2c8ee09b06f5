"""The inputs of golden vectors: drawn from calibration data, or made up so that they fit the model.

What a Keras file says of its inputs is little: the layers with which it begins undo their ranges (Normalization,
Rescaling, BatchNormalization) or mark timesteps (Masking), and Normalization remembers enough of a column of zeros
and ones to be recognised. Ranges of other columns are unknown, so made-up inputs are as strong as suits the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..runtime.activations import FloatArray, Function
from ..runtime.network import ARRAYS, Affine, ArrayOps, Layer, Masking, Network
from ..runtime.parity import compare
from .exact import Doubles, disturbance, in_float64, run
from .stability import RUNAWAY, bounded_cells, runs_away

# Lengths of the sequences, each from a reset: one long enough for an error to build up, and ever shorter ones.
LENGTHS = (512, 256, 128, 64, 32, 16, 8, 4, 3, 1, 1)
MASKED_FRACTION = 0.05
SEED = 20240229
# How much stronger or weaker than usual made-up inputs may be, the first that suits the model first.
STRENGTHS = (1.0, 0.5, 0.25, 4.0, 0.125, 0.0625, 16.0, 2.0**-6, 64.0, 2.0**-8, 256.0, 2.0**-10, 1024.0)
# The share of gates that should be neither open nor shut for good, and how far their sums move then.
AT_WORK, MOVES = 0.25, 0.05
# What a disturbance of the weights by float32's rounding should leave of the outputs of cells without bounds, in dB.
CALM_SNR_DB = 110.0


def golden_inputs(
    network: Network,
    calibration: npt.NDArray[np.float32] | None,
    window: int | None = None,
    lengths: Sequence[int] = LENGTHS,
) -> npt.NDArray[np.float32]:
    """The inputs of the golden vectors: (sum of lengths, features), the same for the same arguments.

    Args:
        network: what they are for.
        calibration: (N, T, features); a contiguous run of it is drawn for each length. None: they are made up.
        window: timesteps that the model was trained on at a time.
        lengths: of the sequences.
    """
    rng = np.random.default_rng(SEED)
    if calibration is None:
        made_up = synthetic_inputs(rng, sum(lengths), network.features)
        hidden = rng.random(len(made_up)) < MASKED_FRACTION
        strength = _strength(network, np.split(made_up, np.cumsum(lengths)[:-1]), window)
        return raw_inputs(network.layers, strength * made_up, hidden).astype(np.float32)
    inputs = drawn(rng, calibration, lengths)
    if network.mask_value is not None:
        inputs[rng.random(len(inputs)) < MASKED_FRACTION] = network.mask_value
    return inputs.astype(np.float32)


def synthetic_inputs(rng: np.random.Generator, steps: int, features: int) -> Doubles:
    """Signals around zero that open and shut gates: slow drifts, plateaus, jumps and noise, now weak, now strong."""
    noise = rng.standard_normal((steps, features))
    drift = np.cumsum(rng.standard_normal((steps, features)), axis=0)
    drift -= np.linspace(0, 1, steps)[:, None] * drift[-1]
    drift /= np.abs(drift).max(0) + 1e-9
    held = np.repeat(rng.standard_normal((steps // 16 + 1, features)), 16, axis=0)[:steps]
    strength = np.repeat(rng.choice([0.3, 1.0, 3.0], (steps // 64 + 1, 1)), 64, axis=0)[:steps]
    return strength * (noise + 2 * drift + held) / 2


def raw_inputs(layers: Sequence[Layer], z: Doubles, hidden: npt.NDArray[np.bool_]) -> Doubles:
    """Raw inputs that become `z` behind the layers with which a model begins.

    Args:
        layers: of the model, or those that it begins with.
        z: (T, features).
        hidden: (T,); which timesteps a leading Masking layer is to mask.
    """
    leading: list[Affine] = []
    mask_value: float | None = None
    for layer in layers:
        if isinstance(layer, Affine):
            leading.append(layer)
        elif isinstance(layer, Masking):
            mask_value = layer.mask_value
        else:
            break
    raw = z
    for layer in reversed(leading):
        scale = np.where(layer.scale == 0, 1, layer.scale)
        raw = (raw - layer.offset) / scale + layer.center
    if leading:
        raw = _with_indicators(leading[0], z, raw)
    if mask_value is not None:
        raw = np.where(hidden[:, None], mask_value, raw)
    return raw


def _with_indicators(normalization: Affine, z: Doubles, raw: Doubles) -> Doubles:
    """Zeros and ones in the columns whose mean and variance are those of zeros and ones, m and m (1 - m).

    Where the shares of neighbouring ones add up to 1, just one of them is 1 at a time: a one-hot code.
    """
    share = normalization.center.astype(np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        variance = 1 / np.square(normalization.scale.astype(np.float64))
    expected = share * (1 - share)
    found = (share > 0) & (share < 1) & (normalization.offset == 0)
    found &= np.abs(variance - expected) <= 1e-4 * np.abs(expected)
    raw = raw.copy()
    column = 0
    while column < len(share):
        if not found[column]:
            column += 1
            continue
        # In [0, 1), drifting and held as the signals are: their ranks.
        ranks = z[:, column].argsort(kind="stable").argsort(kind="stable") / len(z)
        stop = column + 1
        while stop < len(share) and found[stop] and share[column:stop].sum() < 1 - 1e-4:
            stop += 1
        if stop - column > 1 and abs(share[column:stop].sum() - 1) <= 1e-4:
            upper = np.cumsum(share[column:stop])
            upper[-1] = 1
            raw[:, column:stop] = np.searchsorted(upper, ranks, side="right")[:, None] == np.arange(stop - column)
            column = stop
        else:
            raw[:, column] = ranks >= 1 - share[column]
            column += 1
    return raw


def drawn(rng: np.random.Generator, calibration: npt.NDArray[np.float32], lengths: Sequence[int]) -> Doubles:
    """A contiguous run of the calibration data for each length; data shorter than that is run through again."""
    long = calibration.reshape(-1, calibration.shape[-1])
    runs: list[npt.NDArray[np.float32]] = []
    for length in lengths:
        start = int(rng.integers(len(long)))
        runs.append(long[np.arange(start, start + length) % len(long)])
    return np.concatenate(runs).astype(np.float64)


def _strength(network: Network, z: Sequence[Doubles], window: int | None) -> float:
    """Of STRENGTHS, the first at which the model works on these sequences, or else the one at which it works best."""
    double = in_float64(network)

    def inputs(strength: float, longest: int | None) -> list[Doubles]:
        # No timestep is masked: it would show nothing of the model.
        raw = [raw_inputs(network.layers, strength * part, np.zeros(len(part), np.bool_)) for part in z]
        return [part[t : t + (longest or len(part))] for part in raw for t in range(0, len(part), longest or len(part))]

    if bounded_cells(network):
        best, most = 1.0, 0.0
        for strength in STRENGTHS:
            works = _share_at_work(double, inputs(strength, window))
            if works >= AT_WORK:
                return strength
            # Another strength must be worth it: what saturates whatever comes in does so by its biases.
            if works > 2 * most:
                best, most = strength, works
        return best
    disturbed = in_float64(network, disturbance(np.random.default_rng(SEED)))
    weaker = [strength for strength in STRENGTHS if strength <= 1]
    best, calmest = 1.0, -np.inf
    # First as a stream that goes on. Inputs as weak as it takes are no reason to carry on what has a window.
    for longest, strengths in ((None, weaker if window is None else weaker[:3]), (window, weaker)):
        for strength in strengths:
            parts = inputs(strength, longest)
            exact, other = (np.concatenate(run(each, parts)) for each in (double, disturbed))
            grows = not np.abs(exact).max() <= RUNAWAY * max(np.abs(exact[:32]).max(), 1e-3)
            calm = -np.inf if grows else compare(other, exact).snr_db
            stays = longest is not None or (calm > calmest and not runs_away(network, np.concatenate(parts)))
            if calm >= CALM_SNR_DB and stays:
                return strength
            if calm > calmest and stays and longest == window:
                best, calmest = strength, calm
        if window is None:
            break
    return best


def _share_at_work(double: Network, sequences: Sequence[Doubles]) -> float:
    """The share of the recurrent layers' gates that are neither open nor shut for good, where their sums move."""
    listener = _Listener()
    run(double, sequences, listener)
    at_work: dict[tuple[str, Function], list[float]] = {}
    for (layer, _, function), heard in listener.heard.items():
        sums = np.concatenate(heard)
        moves = sums.std(0) >= MOVES
        steepest = np.abs(np.diff(ARRAYS.act(function, np.linspace(-4, 4, 9)))).max()
        slope = np.abs(ARRAYS.act(function, sums + 0.5) - ARRAYS.act(function, sums - 0.5))
        at_work.setdefault((layer, function), []).append(float(((slope >= 0.03 * steepest) & moves).mean()))
    return float(np.mean([np.mean(shares) for shares in at_work.values()])) if at_work else 1.0


class _Listener(ArrayOps):
    """Computes as NumPy does, and keeps what the functions of layers with states are given.

    Attributes:
        heard: by the layer's name, the number of the function within it, and the function: for each timestep
            (sequences, width).
    """

    def __init__(self) -> None:
        self.heard: dict[tuple[str, int, Function], list[FloatArray]] = {}
        self._asked: list[tuple[Function, FloatArray]] = []

    def apply(
        self, layer: Layer, inputs: Sequence[FloatArray], states: Sequence[FloatArray]
    ) -> tuple[FloatArray, Sequence[FloatArray]]:
        self._asked = []
        y, following = super().apply(layer, inputs, states)
        # What is given a state, as that of an LSTM's c is, is no gate.
        gates = [asked for asked in self._asked if states and not any(asked[1] is state for state in following)]
        for number, (function, sums) in enumerate(gates):
            self.heard.setdefault((layer.name, number, function), []).append(sums)
        return y, following

    def act(self, function: Function, x: FloatArray) -> FloatArray:
        self._asked.append((function, x))
        return ARRAYS.act(function, x)
