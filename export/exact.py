"""The network in float64: what rounding in float32 is measured against, and whose states are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.network import ARRAYS, Affine, ArrayOps, Layer, Network, layer_fields

Doubles = npt.NDArray[np.float64]


def in_float64(network: Network, disturb: Callable[[Doubles], Doubles] | None = None) -> Network:
    """The same network with float64 weights, each array of them disturbed where a function for that is given.

    Affine layers are not: what they subtract is exact in float32, and may be many times larger than what is left.
    """

    def widened(layer: Layer) -> Layer:
        changes: dict[str, Any] = {}
        for name, value in layer_fields(layer):
            if isinstance(value, np.ndarray):
                wide = value.astype(np.float64)
                changes[name] = wide if disturb is None or isinstance(layer, Affine) else disturb(wide)
        return replace(layer, **changes)

    return replace(network, layers=tuple(widened(layer) for layer in network.layers))


def disturbance(rng: np.random.Generator) -> Callable[[Doubles], Doubles]:
    """Changes weights at random, by as much as rounding to float32 does at most."""
    return lambda weights: weights * (1 + rng.uniform(-1, 1, weights.shape) * np.finfo(np.float32).eps)


def run(network: Network, sequences: Sequence[npt.NDArray[Any]], ops: ArrayOps = ARRAYS) -> list[npt.NDArray[Any]]:
    """Run sequences from zero state, together.

    Args:
        network: from `in_float64`, so that it computes in float64.
        sequences: each (T, features), of any lengths.
        ops: computes the timesteps, each of those sequences that have not ended, the longest first.

    Returns:
        The outputs of each sequence, (T, outputs).
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    lengths = np.array([len(sequences[i]) for i in order])
    outputs = [np.empty((len(sequence), network.outputs)) for sequence in sequences]
    state = network.zero_state(len(order), dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # A model that overflows is found by its outputs.
        for t in range(lengths[0]):
            going = order[: int((lengths > t).sum())]
            x = np.stack([sequences[i][t] for i in going]).astype(np.float64)
            y, state = network.lower(ops, x, [part[: len(going)] for part in state])
            for row, i in enumerate(going):
                outputs[i][t] = y[row]
    return outputs
