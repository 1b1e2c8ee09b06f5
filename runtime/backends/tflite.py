"""The `tflite` backend: LiteRT (ai-edge-litert), else tflite-runtime, else the interpreter inside TensorFlow."""

from __future__ import annotations

import ctypes
import importlib
import math
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendUnavailableError, BundleError, reason_of
from ..streaming import Streaming
from ..tflite_metadata import METADATA_NAME, read_metadata
from . import Float32Array, Opened
from .window import Described, WindowSession, described_window

_LIBRARIES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


def interpreter_class() -> Any:
    """The `Interpreter` class of the first library that is installed.

    Raises:
        BackendUnavailableError: there is none.
    """
    reasons: list[str] = []
    for name in _LIBRARIES:
        try:
            return importlib.import_module(name).Interpreter
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                reasons.append(f"{name.split('.')[0]}: {error}")
        except (ImportError, AttributeError) as error:
            # Installed but unusable, such as tflite-runtime 2.14 beside NumPy 2: say so rather than hide it.
            reasons.append(f"{name.split('.')[0]}: {error}")
    raise BackendUnavailableError(
        'the tflite backend needs LiteRT: pip install "edgelstm[tflite]"'
        + (f" (found but unusable: {'; '.join(reasons)})" if reasons else "")
    )


def open_tflite(content: bytes, source: str) -> Opened:
    """Open a step graph or a window graph.

    Raises:
        BackendUnavailableError: no library that runs it is installed.
        BundleError: it is damaged, or neither.
    """
    described = described_window(read_metadata(content, source), source)
    return TFLiteArtifact(content, source) if described is None else TFLiteWindowArtifact(content, source, described)


class TFLiteWindowArtifact:
    """An opened window graph: signature `window`, input `x` (1, T, features), output `y` (1, [rows,] outputs)."""

    state_names: tuple[str, ...] = ()
    state_bytes = 0

    def __init__(self, content: bytes, source: str, described: Described) -> None:
        self._content = content
        self._source = source
        self._class = interpreter_class()
        self.metadata = {METADATA_NAME: described.text}
        self.fixed: Streaming | None = described.streaming
        self.features, self.outputs = described.features, described.outputs
        # A stream's state is not in it, so one interpreter serves all streams of a thread.
        self._of_thread = threading.local()
        with _refusing(source):
            interpreter = self._interpreter()
            if "window" not in interpreter.get_signature_list():
                raise BundleError(f"{source}: has no signature `window`, though it says so; export it again")
            (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
            if tuple(x["shape"]) != described.batch or {x["dtype"], y["dtype"]} != {np.float32}:
                raise BundleError(f"{source}: does not take what its description says; export it again")
            self._x, self._y = int(x["index"]), int(y["index"])

    def session(self) -> WindowSession:
        """A new session."""

        def call(batch: Float32Array) -> Float32Array:
            interpreter = self._interpreter()
            interpreter.set_tensor(self._x, batch)
            interpreter.invoke()
            return interpreter.get_tensor(self._y)

        return WindowSession(self, call, self._interpreter().invoke, self._source)

    def _interpreter(self) -> Any:
        found = getattr(self._of_thread, "interpreter", None)
        if found is None:
            found = self._class(model_content=self._content, num_threads=1)
            found.allocate_tensors()
            self._of_thread.interpreter = found
        return found


class TFLiteArtifact:
    """An opened step graph.

    Each session has an interpreter of its own over the same file content: an interpreter holds the state tensors
    of one stream, so none is ever swapped in and out.
    """

    fixed: Streaming | None = None

    def __init__(self, content: bytes, source: str) -> None:
        self._content = content
        self._source = source
        self._class = interpreter_class()
        self.metadata = {METADATA_NAME: read_metadata(content, source)}
        with _refusing(source):
            interpreter = self._interpreter()
            if "step" not in interpreter.get_signature_list():
                raise BundleError(f"{source}: is a sequence graph; a stream needs a step graph")
            runner = interpreter.get_signature_runner("step")
            self._inputs: dict[str, Any] = runner.get_input_details()
            self._outputs: dict[str, Any] = runner.get_output_details()
            # Runtimes list a signature by name or at random; the tensors were written in the network's order.
            places = {name: int(tensor["index"]) for name, tensor in self._inputs.items() if name != "x"}
            self.state_names = tuple(name for name, _ in sorted(places.items(), key=lambda item: item[1]))
            self.features, self.outputs = _width(self._inputs["x"]), _width(self._outputs["y"])
            for name in self.state_names:
                state, following = self._inputs[name], self._outputs[f"{name}_next"]
                if (list(state["shape"]), state["dtype"]) != (list(following["shape"]), following["dtype"]):
                    raise ValueError(f"state {name} is not as it will be at the next timestep")

    def session(self) -> TFLiteSession:
        """A new session in zero state."""
        indices = [
            (int(self._inputs[name]["index"]), int(self._outputs[f"{name}_next"]["index"])) for name in self.state_names
        ]
        x, y = int(self._inputs["x"]["index"]), int(self._outputs["y"]["index"])
        with _refusing(self._source):
            return TFLiteSession(self._interpreter(), x, y, indices, self._source)

    @property
    def state_bytes(self) -> int:
        """Size of one stream's states."""
        details = (self._inputs[name] for name in self.state_names)
        return sum(np.zeros(d["shape"], d["dtype"]).nbytes for d in details)

    def _interpreter(self) -> Any:
        interpreter = self._class(model_content=self._content, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter


class TFLiteSession:
    """One stream's interpreter, and its tensors as NumPy arrays over the interpreter's own memory.

    The tensors of a graph of fixed shapes do not move once they are allocated, so a step copies nothing but the
    next states onto the states. The arrays are made from addresses because the interpreter refuses to run while
    anyone holds the arrays that it gives out itself.
    """

    def __init__(self, interpreter: Any, x: int, y: int, states: Sequence[tuple[int, int]], source: str) -> None:
        self._interpreter = interpreter
        self._source = source
        self._invoke: Callable[[], None] = interpreter.invoke
        self.x: Float32Array = _view(interpreter, x)
        self.y: Float32Array = _view(interpreter, y)
        arrays = [(_view(interpreter, current), _view(interpreter, following)) for current, following in states]
        self._states = [current for current, _ in arrays]
        # Assigning one memoryview to another costs half of what NumPy's assignment does.
        self._copies = [(_bytes(a), _bytes(b)) for a, b in arrays if a.size and b.size]
        self.x[...] = 0
        self.reset()

    def advance(self) -> None:
        """One timestep."""
        try:
            self._invoke()
        except Exception as error:
            raise BundleError(f"{self._source}: this TFLite runtime failed ({_reason(error)})") from error
        for current, following in self._copies:
            current[:] = following

    def run(self, xs: Float32Array, ys: Float32Array) -> None:
        """T timesteps."""
        x, y, advance = self.x, self.y, self.advance
        for row, result in zip(xs, ys, strict=True):
            x[...] = row
            advance()
            result[...] = y

    def states(self) -> list[npt.NDArray[Any]]:
        """Copies of the states."""
        return [state.copy() for state in self._states]

    def restore(self, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        for mine, given in zip(self._states, states, strict=True):
            mine[...] = given

    def reset(self) -> None:
        """Back to zero state."""
        for state in self._states:
            state[...] = 0

    def bare_call(self) -> Callable[[], object]:
        """The interpreter's own call."""
        return self._invoke


@contextmanager
def _refusing(source: str) -> Generator[None]:
    """Runtimes' exceptions at a file that is damaged have no common root."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{source}: this TFLite runtime cannot load it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = reason_of(error)
    return text if isinstance(error, ValueError | RuntimeError) and text else f"{type(error).__name__}: {text}"


def _width(tensor: dict[str, Any]) -> int:
    shape = [int(n) for n in tensor["shape"]]
    if tensor["dtype"] != np.float32 or not shape or math.prod(shape) != shape[-1]:
        raise ValueError(f"{tensor['name']} is no row of float32 numbers")
    return shape[-1]


def _view(interpreter: Any, index: int) -> npt.NDArray[Any]:
    """A tensor's memory as a flat array; valid as long as the interpreter lives."""
    tensor = interpreter.tensor(index)()
    memory = (ctypes.c_char * tensor.nbytes).from_address(tensor.ctypes.data)
    return np.frombuffer(memory, tensor.dtype)


def _bytes(array: Any) -> memoryview:
    return memoryview(array).cast("B")
