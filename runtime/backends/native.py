"""The `native` backend: the C engine, compiled into the extension module `_native`."""

from __future__ import annotations

import importlib
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..elm import state_widths
from ..errors import BackendUnavailableError, BundleError
from ..streaming import Streaming, Window
from . import Float32Array

# A snapshot of the engine: a magic number, the model's checksum, the states, and a CRC-32.
_HEAD, _TAIL = 8, 4


class NativeArtifact:
    """An opened `.elm` file: immutable, and used by all its streams at once without a lock.

    The environment variable `EDGELSTM_KERNEL` (avx512, avx2, neondot, neon, portable) forces a kernel, for tests.
    """

    fixed: Streaming | None = None

    def __init__(self, content: bytes, source: str) -> None:
        self._native = _module()
        kernel = os.environ.get("EDGELSTM_KERNEL") or None
        try:
            self._model = self._native.Model(content, kernel)
        except self._native.Error as error:
            if kernel is not None and "kernel" in str(error):
                raise BackendUnavailableError(f"EDGELSTM_KERNEL={kernel}: {error.args[0]}") from error
            raise BundleError(f"{source}: {error.args[0]}; copy or export it again") from error
        self.features: int = self._model.features
        self.outputs: int = self._model.outputs
        self.kernel: str = self._model.kernel
        widths, self.metadata = state_widths(content, source)
        self.state_names = tuple(widths)
        self._widths = tuple(widths.values())

    def session(self) -> NativeSession:
        """A new session in zero state."""
        return NativeSession(self._native, self._model, self._widths)

    def group(self, streams: int) -> NativeGroup:
        """So many streams in zero state, to be stepped together."""
        return NativeGroup(self._native.State(self._model, streams), self._widths)

    def windows(self, window: Window, streams: int) -> Any:
        """The windows in flight of so many streams, from their start."""
        return self._native.Windows(self._model, window.timesteps, window.hop, window.partial, streams)

    @property
    def state_bytes(self) -> int:
        """Size of one stream's states."""
        return 4 * sum(self._widths)


class NativeSession:
    """One stream's state."""

    def __init__(self, native: Any, model: Any, widths: tuple[int, ...]) -> None:
        self._native = native
        self._model = model
        self._widths = widths
        self._state = native.State(model)
        self.x: Float32Array = np.zeros(model.features, np.float32)
        self.y: Float32Array = np.zeros(model.outputs, np.float32)

    def stepper(self, otherwise: Callable[..., Any]) -> Any:
        """What takes this stream's timesteps by itself; `otherwise(stepper, x, out)` takes those that it cannot."""
        states = self._state.snapshot()
        self._state = self._native.State(self._model, 1, otherwise)
        self._state.restore(states)
        return self._state

    def advance(self) -> None:
        """One timestep."""
        self._state.step(self.x, self.y)

    def run(self, xs: Float32Array, ys: Float32Array) -> None:
        """T timesteps."""
        self._state.run(xs, ys)

    def states(self) -> list[npt.NDArray[Any]]:
        """Copies of the states."""
        return _split(self._state.snapshot(), self._widths)

    def restore(self, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        self._state.restore(_join(self._state.snapshot(), states))

    def reset(self) -> None:
        """Back to zero state."""
        self._state.reset()

    def bare_call(self) -> Callable[[], object]:
        """The engine's step from Python, with everything bound."""
        step, x, y = self._state.step, self.x, self.y
        return lambda: step(x, y)


class NativeGroup:
    """Many streams' states on one set of weights."""

    def __init__(self, state: Any, widths: tuple[int, ...]) -> None:
        self._state = state
        self._widths = widths

    def step(self, xs: Float32Array, ys: Float32Array, indices: npt.NDArray[np.uintp] | None) -> None:
        """One timestep of each stream of `indices` (of all): reads (n, features), writes (n, outputs)."""
        self._state.fleet_step(xs, ys, indices)

    def reset(self, index: int) -> None:
        """One stream back to zero state."""
        self._state.reset(index)

    def states(self, index: int) -> list[npt.NDArray[Any]]:
        """Copies of one stream's states."""
        return _split(self._state.snapshot(index), self._widths)

    def restore(self, index: int, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        self._state.restore(_join(self._state.snapshot(index), states), index)


def _split(snapshot: bytes, widths: tuple[int, ...]) -> list[npt.NDArray[Any]]:
    values = np.frombuffer(snapshot, np.float32, sum(widths), _HEAD)
    return [part.copy() for part in np.split(values, np.cumsum(widths)[:-1])] if widths else []


def _join(snapshot: bytes, states: Sequence[npt.NDArray[Any]]) -> bytes:
    content = snapshot[:_HEAD] + b"".join(np.asarray(state, np.float32).tobytes() for state in states)
    return content + zlib.crc32(content).to_bytes(_TAIL, "little")


_warned: list[bool] = []


def _module() -> Any:
    try:
        return importlib.import_module(".._native", __package__)
    except ImportError as error:
        if not _warned:
            _warned.append(True)
            warnings.warn(
                f"the native engine was not built when edgelstm was installed ({error}); other backends are slower. "
                "With a C compiler there, reinstall: pip install --force-reinstall --no-deps edgelstm",
                RuntimeWarning,
                stacklevel=2,
            )
        raise BackendUnavailableError(
            "the native backend was not built: install a C compiler and reinstall edgelstm, or use another backend"
        ) from error
