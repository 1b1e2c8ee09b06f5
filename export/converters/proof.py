"""What exports of a window model are proved on: Keras's answers on windows, and how well float32 computes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...runtime.errors import UnsupportedModelError
from ...runtime.golden import Golden
from ...runtime.network import Affine
from ...runtime.parity import Parity, compare
from ...runtime.streaming import Window
from ..conditioning import RUNS, SEED, UNQUESTIONED, Conditioning
from ..golden import HELD_SNR_DB, Proof
from .windows import STRENGTHS, WindowModel


def proof_of_windows(
    model: WindowModel, calibration: npt.NDArray[np.float32] | None, window: Window, lengths: list[int]
) -> Proof:
    """Golden vectors of a window model, and what may be asked of an export on them.

    Args:
        model: the model.
        calibration: (N, T, features); the inputs are drawn from it, or made up where there is none.
        window: of the stream.
        lengths: of the golden sequences.

    Raises:
        UnsupportedModelError: Keras itself cannot call it, or its answers are not finite.
    """
    starts = tuple(int(start) for start in np.cumsum((0, *lengths[:-1])))
    for strength in STRENGTHS if calibration is None and model.leading.ids is None else STRENGTHS[:1]:
        inputs = model.inputs(calibration, lengths, strength)
        sequences = np.split(inputs, starts[1:])
        ends = [(xs, t + 1) for xs in sequences for t in window.due(0, len(xs))]
        windows = np.stack([xs[end - window.timesteps : end] for xs, end in ends])
        outputs = model.windows(windows)
        if np.isfinite(outputs).all():
            golden = Golden(inputs, outputs, starts, window)
            return Proof(golden, _conditioning(model, golden, windows), window.timesteps)
    raise UnsupportedModelError(
        f"{model.name}: Keras's own answers on windows of {window.timesteps} timesteps are not finite; check its "
        "weights, or give recorded inputs (--calibration FILE)"
    )


def _conditioning(model: WindowModel, golden: Golden, windows: npt.NDArray[np.float32]) -> Conditioning:
    """What float32 can give of the model: Keras's own against Keras in float64.

    Where Keras does not compute it in float64, no less is asked than of any model. Nor is less than `HELD_SNR_DB` taken
    for what float32 gives: what jumps there, nobody can rely on.
    """
    probabilities = model.probabilities
    exact = model.in_float64(windows)
    if exact is None or not np.isfinite(exact).all():
        return Conditioning(None, np.inf, np.inf, np.inf, probabilities)
    keras = compare(golden.outputs, exact, probabilities)
    if keras.within(*UNQUESTIONED) or model.leading.ids is not None:
        return _asked(keras, [keras], probabilities)
    rng = np.random.default_rng(SEED)
    others = (model.windows(_nudged(model, windows, rng)) for _ in range(RUNS // 2))
    runs = [keras, *(compare(other, exact, probabilities) for other in others)]
    return _asked(keras, runs, probabilities)


def _asked(keras: Parity, runs: list[Parity], probabilities: bool) -> Conditioning:
    whole = max(min(parity.snr_db for parity in runs), HELD_SNR_DB)
    single = max(min(parity.worst_output_snr_db for parity in runs), HELD_SNR_DB)
    worst = min(runs, key=lambda parity: parity.snr_db)
    least = min(runs, key=lambda parity: parity.worst_output_snr_db)
    worst = replace(worst, worst_output_snr_db=least.worst_output_snr_db, worst_output=least.worst_output)
    return Conditioning(worst, keras.snr_db, whole, single, probabilities)


def _nudged(model: WindowModel, windows: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Windows that differ by a rounding of what a first layer leaves of them."""
    first = model.leading.layers[0] if model.leading.layers else None
    center = first.center if isinstance(first, Affine) and len(first.center) == model.features else 0
    size = np.abs(windows - np.float64(1) * center)
    nudged = windows + rng.uniform(-1, 1, windows.shape) * np.finfo(np.float32).eps * size
    return nudged.astype(np.float32)
