"""The `onnx` backend: onnxruntime."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendUnavailableError, BundleError, reason_of
from ..onnx_metadata import CHECKSUM_KEY, CHUNKS_KEY, check_seal
from ..streaming import Streaming
from ..tflite_metadata import METADATA_NAME
from . import Float32Array, Opened
from .window import Described, WindowSession, described_window

# Timesteps per call of `run`: beyond it, calls cost nothing any more, but their buffers grow.
_CHUNK = 512


def open_onnx(content: bytes, source: str) -> Opened:
    """Open a step graph or a window graph.

    Raises:
        BackendUnavailableError: onnxruntime is not installed.
        BundleError: it is damaged, or neither.
    """
    runtime = _library()
    check_seal(content, source)
    session = _session(runtime, content, source)
    with _loading(runtime, source):
        texts: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
    described = described_window(texts.get(METADATA_NAME, ""), source)
    if described is None:
        return OnnxArtifact(content, source, session)
    return OnnxWindowArtifact(runtime, session, source, described)


def _session(runtime: Any, content: bytes, source: str) -> Any:
    with _loading(runtime, source):
        # It would try again, and say so on standard output.
        how = {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}
        return runtime.InferenceSession(content, _options(runtime), **how)


@contextmanager
def _loading(runtime: Any, source: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's exceptions have no common root but this.
        reason = reason_of(error)
        raise BundleError(f"{source}: this onnxruntime ({runtime.__version__}) cannot load it: {reason}") from error


class OnnxWindowArtifact:
    """An opened window graph: input `x` (batch, T, features), output `y` (batch, [rows,] outputs)."""

    state_names: tuple[str, ...] = ()
    state_bytes = 0

    def __init__(self, runtime: Any, session: Any, source: str, described: Described) -> None:
        self._source = source
        self.metadata = {METADATA_NAME: described.text}
        self.fixed: Streaming | None = described.streaming
        self.features, self.outputs = described.features, described.outputs
        self._batch = described.batch
        with _loading(runtime, source):
            inputs, outputs = session.get_inputs(), session.get_outputs()
        kinds = [(value.name, value.type) for value in (*inputs, *outputs)]
        if (
            kinds != [("x", "tensor(float)"), ("y", "tensor(float)")]
            or tuple(inputs[0].shape[1:]) != described.batch[1:]
        ):
            raise BundleError(f"{source}: does not take what its description says; export it again")
        self._session = session

    def session(self) -> WindowSession:
        """A new session; all share one `InferenceSession`, which allows that."""
        run = self._session.run
        zeros = {"x": np.zeros(self._batch, np.float32)}

        def call(batch: Float32Array) -> Float32Array:
            return run(["y"], {"x": batch})[0]

        return WindowSession(self, call, lambda: run(["y"], zeros), self._source)


class OnnxArtifact:
    """An opened step graph. All streams and threads share one `InferenceSession`, which allows that."""

    fixed: Streaming | None = None

    def __init__(self, content: bytes, source: str, session: Any = None) -> None:
        runtime = _library()
        check_seal(content, source)
        self._runtime = runtime
        self._source = source
        self._session = _session(runtime, content, source) if session is None else session
        with _loading(runtime, source):
            inputs = _widths(self._session.get_inputs())
            outputs = _widths(self._session.get_outputs())
            everything: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.state_names = tuple(name for name in inputs if name != "x")
        expected = {"y": outputs.get("y"), **{f"{name}_next": inputs[name] for name in self.state_names}}
        if "x" not in inputs or outputs != expected or None in (*inputs.values(), *outputs.values()):
            raise BundleError(
                f"{source}: not a step graph of EdgeLSTM: its inputs are {', '.join(inputs)}, its outputs "
                f"{', '.join(outputs)}; export the Keras model with `edgelstm export`"
            )
        self._state_widths = tuple(inputs[name] or 0 for name in self.state_names)
        self.features = inputs["x"] or 0
        self.outputs = outputs["y"] or 0
        self._chunks = everything.get(CHUNKS_KEY) == "whole"
        self.metadata = {key: value for key, value in everything.items() if key not in (CHECKSUM_KEY, CHUNKS_KEY)}

    def session(self) -> OnnxSession:
        """A new session in zero state."""
        widths = dict(zip(self.state_names, self._state_widths, strict=True))
        return OnnxSession(
            self._runtime, self._session, self._source, self.features, self.outputs, widths, self._chunks
        )

    @property
    def state_bytes(self) -> int:
        """Size of one stream's states."""
        return 4 * sum(self._state_widths)


class OnnxSession:
    """One stream's states and buffers, bound to the graph's inputs and outputs once.

    There are two sets of states: a step reads one and writes the other, and then they change places. So nothing is
    copied, and a step that fails leaves the state as it was. (A graph must not write a state where it still reads
    it: the next h of one operator may be written before the last h has been used by another.)
    """

    def __init__(
        self,
        runtime: Any,
        session: Any,
        source: str,
        features: int,
        outputs: int,
        widths: Mapping[str, int],
        chunks: bool,
    ) -> None:
        self.x: Float32Array = np.zeros(features, np.float32)
        self.y: Float32Array = np.zeros(outputs, np.float32)
        self._widths = widths
        self._source = source
        self._chunks = chunks
        self._states = (_zeros(widths), _zeros(widths))
        self._at = 0
        self._options = runtime.RunOptions()
        self._options.log_severity_level = _QUIET
        x, y = self.x.reshape(1, 1, -1), self.y.reshape(1, 1, -1)
        forth = _binding(session, x, y, self._states[0], self._states[1])
        back = _binding(session, x, y, self._states[1], self._states[0])
        # onnxruntime's Python layer around this call takes a tenth of a small model's step.
        self._call: Callable[[Any, Any], None] = session._sess.run_with_iobinding
        self._bindings = (forth._iobinding, back._iobinding)
        # Last, to be let go of last: bindings point into the session.
        self._session = session

    def advance(self) -> None:
        """One timestep."""
        try:
            self._call(self._bindings[self._at], self._options)
        except Exception as error:
            raise self._failure(error) from error
        self._at ^= 1

    def run(self, xs: Float32Array, ys: Float32Array) -> None:
        """T timesteps, many to a call.

        Where layers quantise their activations as they come, one scale serves a whole call, and a chunk would give
        other numbers than its steps; there each timestep has its own call.
        """
        saved = self.states()
        try:
            if self._chunks and len(xs) > 1:
                for start in range(0, len(xs), _CHUNK):
                    self._run_chunk(xs[start : start + _CHUNK], ys[start : start + _CHUNK])
            else:
                for row, answer in zip(xs, ys, strict=True):
                    self.x[...] = row
                    self.advance()
                    answer[...] = self.y
        except BaseException:
            self.restore(saved)
            raise

    def states(self) -> list[npt.NDArray[Any]]:
        """Copies of the states, each (units,)."""
        return [state.reshape(-1).copy() for state in self._states[self._at].values()]

    def restore(self, states: Sequence[npt.NDArray[Any]]) -> None:
        """Take over states as `states` gave them."""
        for mine, given in zip(self._states[self._at].values(), states, strict=True):
            mine[0, 0] = given

    def reset(self) -> None:
        """Back to zero state."""
        for state in self._states[self._at].values():
            state[...] = 0

    def bare_call(self) -> Callable[[], object]:
        """onnxruntime's documented call on buffers of its own: the stream does not notice."""
        x, y = np.zeros((1, 1, self.x.size), np.float32), np.zeros((1, 1, self.y.size), np.float32)
        last, following = _zeros(self._widths), _zeros(self._widths)
        binding = _binding(self._session, x, y, last, following)

        def call(_keep: object = (x, y, last, following)) -> None:
            self._session.run_with_iobinding(binding)

        return call

    def _run_chunk(self, xs: Float32Array, ys: Float32Array) -> None:
        x = np.ascontiguousarray(xs, np.float32).reshape(len(xs), 1, -1)
        y = np.empty((len(ys), 1, self.y.size), np.float32)
        binding = _binding(self._session, x, y, self._states[self._at], self._states[self._at ^ 1])
        try:
            self._call(binding._iobinding, self._options)
        except Exception as error:
            raise self._failure(error) from error
        self._at ^= 1
        ys[...] = y[:, 0]

    def _failure(self, error: Exception) -> BundleError:
        reason = reason_of(error)
        return BundleError(f"{self._source}: onnxruntime failed ({reason}); the state is as it was")


_QUIET = 4  # Fatal errors only; everything else arrives as an exception.


def _library() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError('the onnx backend needs onnxruntime: pip install "edgelstm[onnx]"') from error
    except ImportError as error:
        # Installed but unusable: say so rather than hide it.
        raise BackendUnavailableError(
            f"the onnx backend cannot load onnxruntime ({error}); install it again"
        ) from error


def _options(runtime: Any) -> Any:
    """One thread, which a step keeps busy for microseconds, and memory that does not grow."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Both keep memory for every chunk length that ever came, and make small steps no faster.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def _widths(values: Sequence[Any]) -> dict[str, int | None]:
    """The last dimension of each float input or output; None where it is not of the kind expected."""
    return {
        value.name: value.shape[2]
        if value.type == "tensor(float)" and len(value.shape) == 3 and isinstance(value.shape[2], int)
        else None
        for value in values
    }


def _zeros(widths: Mapping[str, int]) -> dict[str, Float32Array]:
    return {name: np.zeros((1, 1, units), np.float32) for name, units in widths.items()}


def _binding(
    session: Any,
    x: Float32Array,
    y: Float32Array,
    last: Mapping[str, Float32Array],
    following: Mapping[str, Float32Array],
) -> Any:
    """A binding to the memory of these arrays, which have to outlive it."""
    binding = session.io_binding()
    for name, array in {"x": x, **last}.items():
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    for name, array in {"y": y, **{f"{name}_next": array for name, array in following.items()}}.items():
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return binding
