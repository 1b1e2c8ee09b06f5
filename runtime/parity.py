"""Parity: how far an artifact's outputs are from Keras's, and how far they may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Signal-to-noise ratio in dB that an artifact must reach over its golden vectors.
TOLERANCES = {"float32": 100.0, "float16": 50.0, "dynamic": 30.0, "int16x8": 50.0, "int8": 35.0}

# What a perfect match is called: JSON has no infinity, and float32 outputs cannot tell more than this apart.
PERFECT_SNR = 200.0


# What float32 cannot tell apart beside 1.
_ONE = float(np.spacing(np.float32(1)))

# A large mean or a large neighbour hides an output that is wrong: an artifact that answers 101,325 Pa whatever comes
# in is within 50 dB of a barometer. So what each output does around its mean must be followed too, less closely: by
# 10 dB, and by 20 where so much is asked for (above 50 dB) that float32 itself is the limit.
WORST_OUTPUT_ALLOWANCE, WORST_OUTPUT_LEAST = 10.0, 6.0
FLOAT32_ALLOWANCE, FLOAT32_ABOVE = 20.0, 50.0


@dataclass(frozen=True)
class Parity:
    """Differences of streamed outputs from the expected ones.

    Attributes:
        max_abs_error: the largest |difference|, in the unit of the outputs.
        rmse: root of the mean squared difference, in the same unit.
        snr_db: 10·log10(sum of squared expected values / sum of squared differences), at most 200.
        steps: number of timesteps compared.
        worst_output_snr_db: the least, over the outputs, of 10·log10(variance of the expected values / mean squared
            difference), at most 200. What float32 cannot tell apart at an output's size is no difference; outputs
            that do not vary do not count; outputs that all lie in [0, 1] share a unit, as probabilities do, and are
            taken together.
        worst_output: which one that is.
    """

    max_abs_error: float
    rmse: float
    snr_db: float
    steps: int
    worst_output_snr_db: float = PERFECT_SNR
    worst_output: int = 0

    def within(self, least: float, of_an_output: float | None = None) -> bool:
        """Whether the ratio is at least this, and that of the worst output at least `of_an_output`.

        Without it, that of the worst output may be not far below `least`.
        """
        return self.snr_db >= least and self.worst_output_snr_db >= _of_an_output(least, of_an_output)

    def shortfall(self, least: float, outputs: Sequence[str], of_an_output: float | None = None) -> str:
        """What is below `least`, in words; `outputs` are their names."""
        if not self.snr_db >= least:
            return f"{self.snr_db:.1f} dB where {least:.4g} dB is the least"
        return (
            f"{self.worst_output_snr_db:.1f} dB in the variation of output {outputs[self.worst_output]!r}, where "
            f"{_of_an_output(least, of_an_output):.4g} dB is the least"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary; None for what JSON has no number for."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Tolerance:
    """How far answers may be from Keras's.

    Attributes:
        snr_db: the least ratio.
        output_snr_db: the least ratio of the worst output's variation.
        probabilities: whether the outputs are probabilities, see `compare`.
    """

    snr_db: float
    output_snr_db: float
    probabilities: bool = False

    def compare(self, actual: npt.ArrayLike, expected: npt.ArrayLike) -> Parity:
        """Compare (T, outputs) with (T, outputs)."""
        return compare(actual, expected, self.probabilities)

    def met_by(self, parity: Parity) -> bool:
        """Whether both ratios are large enough."""
        return parity.within(self.snr_db, self.output_snr_db)

    def shortfall(self, parity: Parity, outputs: Sequence[str]) -> str:
        """What is not, in words; `outputs` are their names."""
        return parity.shortfall(self.snr_db, outputs, self.output_snr_db)


def least_of_an_output(least: float) -> float:
    """The least ratio of a single output's variation that goes with a least ratio of all outputs."""
    allowance = FLOAT32_ALLOWANCE if least > FLOAT32_ABOVE else WORST_OUTPUT_ALLOWANCE
    return min(least, max(least - allowance, WORST_OUTPUT_LEAST))


def _of_an_output(least: float, of_an_output: float | None) -> float:
    return least_of_an_output(least) if of_an_output is None else of_an_output


def compare(actual: npt.ArrayLike, expected: npt.ArrayLike, probabilities: bool = False) -> Parity:
    """Compare (T, outputs) with (T, outputs).

    A non-finite actual value makes every figure the worst there is (infinite errors, -infinite ratio).

    Args:
        actual: what was answered.
        expected: what should have been.
        probabilities: the outputs come from a sigmoid or softmax, so that their unit is 1 however small they are:
            what float32 cannot tell apart beside 1 is no difference in either ratio. Runtimes compute a sigmoid to
            within that, 2e-5 as much as 0.5.

    Raises:
        ValueError: the shapes differ, or nothing is compared.
    """
    got, want = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if got.shape != want.shape or got.size == 0:
        raise ValueError(f"cannot compare outputs of shape {got.shape} with {want.shape}")
    if not np.isfinite(got).all():
        return Parity(math.inf, math.inf, -math.inf, len(want), -math.inf)
    difference = got - want
    noise, signal = float(np.square(difference).sum()), float(np.square(want).sum())
    worst, of = _worst_output(want.reshape(-1, want.shape[-1]), difference.reshape(-1, want.shape[-1]), probabilities)
    return Parity(
        float(np.abs(difference).max()),
        math.sqrt(noise / difference.size),
        _ratio(signal, max(noise - difference.size * _ONE**2, 0.0) if probabilities else noise),
        len(want),
        worst,
        of,
    )


def _worst_output(
    want: npt.NDArray[np.float64], difference: npt.NDArray[np.float64], probabilities: bool
) -> tuple[float, int]:
    resolution = np.spacing(np.abs(want).max(0).astype(np.float32)).astype(np.float64)
    if probabilities:
        resolution = np.maximum(resolution, _ONE)
    signal = want.var(0)
    noise = np.maximum(np.square(difference).mean(0) - np.square(resolution), 0)
    varies = signal > np.square(4 * resolution)
    if (want >= 0).all() and (want <= 1).all():
        return (_ratio(signal.sum(), noise.sum()) if varies.any() else PERFECT_SNR), int(noise.argmax())
    ratios = [_ratio(s, n) if v else PERFECT_SNR for s, n, v in zip(signal, noise, varies, strict=True)]
    worst = int(np.argmin(ratios))
    return ratios[worst], worst


def _ratio(signal: float, noise: float) -> float:
    if noise == 0:
        return PERFECT_SNR
    return min(10 * math.log10(signal / noise), PERFECT_SNR) if signal > 0 else -PERFECT_SNR
