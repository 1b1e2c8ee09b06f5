"""The part of the golden vectors that a bundle carries: the whole of a wide model's would outweigh the model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..runtime.golden import Golden

LIMIT_BYTES = 256 * 1024
# What a `.npz` file needs besides its numbers.
_NPZ_BYTES = 2048


@dataclass(frozen=True)
class Travelling:
    """Golden vectors that travel, and where in the whole ones their answers stand."""

    golden: Golden
    rows: npt.NDArray[np.intp]


def limit_for(smallest: int) -> int:
    """Bytes of golden vectors beside a smallest artifact of so many bytes: a tenth, or 256 KiB if that is more."""
    return max(LIMIT_BYTES, smallest // 10)


def shortened(golden: Golden, limit: int) -> Travelling:
    """Golden vectors of at most `limit` bytes: all of them, or the first part of each sequence.

    A part of a sequence from its reset has the answers that the whole has there. Every sequence is cut to the same
    share, so that long ones and short ones remain and with them the resets; by window none becomes so short that no
    answer comes due. Where a model is so wide that two timesteps are too many, two remain.
    """
    lengths = np.diff((*golden.starts, len(golden.inputs)))
    bounds = np.cumsum([0, *(_answers(golden, int(length), int(length)) for length in lengths)])
    share, kept = 1.0, lengths
    while True:
        found = _cut(golden, kept, lengths, bounds)
        weight = len(found.golden.to_bytes())
        if weight <= limit or (kept <= _least(golden, lengths)).all():
            return found
        share *= min(max(limit - _NPZ_BYTES, 0) / weight, 0.95)
        kept = np.maximum((lengths * share).astype(int), _least(golden, lengths))


def _answers(golden: Golden, length: int, whole: int) -> int:
    """How many answers the first timesteps of a sequence have."""
    if golden.window is not None:
        return len(golden.window.due(0, length))
    if len(golden.outputs) == len(golden.inputs):
        return length
    return len(golden.outputs) // len(golden.starts) if length == whole else 0  # For a sequence as a whole.


def _least(golden: Golden, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What must remain of each sequence: of the first and the last one an answer, of others nothing."""
    least = np.zeros_like(lengths)
    needed = golden.window.timesteps if golden.window is not None else 1
    for at in {0, len(lengths) - 1}:
        per_step = golden.window is not None or len(golden.outputs) == len(golden.inputs)
        least[at] = min(needed, lengths[at]) if per_step else lengths[at]
    return least


def _cut(
    golden: Golden, kept: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]
) -> Travelling:
    inputs: list[npt.NDArray[np.intp]] = []
    rows: list[npt.NDArray[np.intp]] = []
    for (start, _), (first, _), keep, whole in zip(
        pairwise((*golden.starts, len(golden.inputs))), pairwise(bounds), kept, lengths, strict=True
    ):
        answers = _answers(golden, int(keep), int(whole))
        if answers == 0 and keep < whole:
            continue  # Nothing comes of what is left of it.
        inputs.append(np.arange(start, start + keep))
        rows.append(np.arange(first, first + answers))
    starts = tuple(int(s) for s in np.cumsum([0, *map(len, inputs[:-1])]))
    chosen, answered = np.concatenate(inputs), np.concatenate(rows)
    return Travelling(Golden(golden.inputs[chosen], golden.outputs[answered], starts, golden.window), answered)
