"""Whether a model's state may be carried on for ever: a relu cell's may grow without end, which softmax then hides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.network import Network
from .exact import in_float64

# Between two stretches of a run, the second twice as late, a state that sums up doubles and a sum of sums quadruples.
# What becomes larger than that grows by factors.
GROWTH = 6.0
# What has at most doubled, and a little, is looked at no longer; nor what keeps below the limit twice.
CALM = 3.0
# And so many times larger than in its first timesteps, no state becomes that has a use.
RUNAWAY = 1e9
FIRST, SHORTEST, LONGEST = 32, 2048, 8192


def runs_away(network: Network, inputs: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether the states or outputs of a network grow without end, faster than anything that sums up its inputs.

    Cells of bounded activations never do: their states lie in [-1, 1], but for an LSTM's c, which grows by at most 1
    a timestep. Others are run on the inputs, in float64 and for as long as it takes to tell, up to 8,192 timesteps.

    Args:
        network: its states are judged as well as its outputs.
        inputs: (T, features); used over and over.
    """
    if bounded_cells(network):
        return False
    double = in_float64(network)
    # Streams that begin at other places, so that not all depends on one moment's inputs.
    offsets = np.arange(4) * (len(inputs) // 4)
    state = double.zero_state(len(offsets), dtype=np.float64)
    sizes: list[float] = []
    limit, before = np.inf, np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(LONGEST):
            y, state = double.step(state, inputs[(offsets + t) % len(inputs)].astype(np.float64))
            size = max(float(np.abs(values).max()) for values in (y, *state))
            if not size <= limit:
                return True
            sizes.append(size)
            if t == FIRST:
                limit = RUNAWAY * max(1.0, max(sizes))
            if t + 1 >= SHORTEST and (t + 1) & t == 0:
                growth = _growth(sizes)
                if growth <= CALM or max(growth, before) <= GROWTH:
                    return False
                before = growth
    return _growth(sizes) > GROWTH


def _growth(sizes: list[float]) -> float:
    """How many times larger the second half's typical size is than that of the quarter before it."""
    half = len(sizes) // 2
    early, late = float(np.median(sizes[half // 2 : half])), float(np.median(sizes[half:]))
    return late / max(early, 1e-12)


def bounded_cells(network: Network) -> bool:
    """Whether no state can grow faster than by a fixed amount each timestep, whatever the weights."""
    return all(math.isfinite(layer.bound(math.inf)) for layer in network.recurrent_layers)
