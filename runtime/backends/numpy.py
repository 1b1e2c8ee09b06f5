"""The `numpy` backend: steps the network itself. Needs nothing but NumPy, and is the slowest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..elm import METADATA_NAME, read_elm
from ..network import Network
from ..streaming import Streaming
from . import Float32Array


class NumpyArtifact:
    """An opened `.elm` file, its weights as the float32 numbers that they stand for."""

    fixed: Streaming | None = None

    def __init__(self, content: bytes, source: str) -> None:
        self._network, description = read_elm(content, source)
        self.features = self._network.features
        self.outputs = self._network.outputs
        self.state_names = tuple(spec.name for spec in self._network.states)
        self.metadata = {METADATA_NAME: json.dumps(description)}

    def session(self) -> NumpySession:
        """A new session in zero state."""
        return NumpySession(self._network)

    @property
    def state_bytes(self) -> int:
        """Size of one stream's states."""
        return sum(4 * spec.units for spec in self._network.states)


class NumpySession:
    """One stream's state."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._state = network.zero_state()
        self.x: Float32Array = np.zeros(network.features, np.float32)
        self.y: Float32Array = np.zeros(network.outputs, np.float32)

    def advance(self) -> None:
        """One timestep."""
        y, self._state = self._network.step(self._state, self.x)
        self.y[...] = y

    def run(self, xs: Float32Array, ys: Float32Array) -> None:
        """T timesteps."""
        state = self._state
        for t in range(len(xs)):
            ys[t], state = self._network.step(state, xs[t])
        self._state = state

    def states(self) -> list[npt.NDArray[Any]]:
        """Copies of the states."""
        return [s.copy() for s in self._state]

    def restore(self, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        self._state = tuple(np.array(s, np.float32) for s in states)

    def reset(self) -> None:
        """Back to zero state."""
        self._state = self._network.zero_state()

    def bare_call(self) -> Callable[[], object]:
        """The network's own step."""
        return lambda: self._network.step(self._state, self.x)
