"""Parity: how far an artifact's outputs are from Keras's, and how far they may be."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Signal-to-noise ratio in dB that an artifact must reach over its golden vectors.
TOLERANCES = {"float32": 100.0, "float16": 50.0, "dynamic": 28.0, "int16x8": 30.0, "int8": 18.0}

# What a perfect match is called: JSON has no infinity, and float32 outputs cannot tell more than this apart.
PERFECT_SNR = 200.0


@dataclass(frozen=True)
class Parity:
    """Differences of streamed outputs from the expected ones.

    Attributes:
        max_abs_error: the largest |difference|, in the unit of the outputs.
        rmse: root of the mean squared difference, in the same unit.
        snr_db: 10·log10(sum of squared expected values / sum of squared differences), at most 200.
        steps: number of timesteps compared.
    """

    max_abs_error: float
    rmse: float
    snr_db: float
    steps: int

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return asdict(self)


def compare(actual: npt.ArrayLike, expected: npt.ArrayLike) -> Parity:
    """Compare (T, outputs) with (T, outputs).

    A non-finite actual value makes every figure the worst there is (infinite errors, -infinite ratio).

    Raises:
        ValueError: the shapes differ, or nothing is compared.
    """
    got, want = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if got.shape != want.shape or got.size == 0:
        raise ValueError(f"cannot compare outputs of shape {got.shape} with {want.shape}")
    if not np.isfinite(got).all():
        return Parity(math.inf, math.inf, -math.inf, len(want))
    difference = got - want
    noise, signal = float(np.square(difference).sum()), float(np.square(want).sum())
    if noise == 0:
        snr = PERFECT_SNR
    elif signal == 0:
        snr = -PERFECT_SNR
    else:
        snr = min(10 * math.log10(signal / noise), PERFECT_SNR)
    return Parity(float(np.abs(difference).max()), math.sqrt(noise / difference.size), snr, len(want))
