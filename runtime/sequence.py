"""Runs sequence graphs: a whole sequence from zero state per call, nothing kept between calls."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .backends import Float32Array
from .errors import BackendUnavailableError, BundleError, reason_of
from .golden import Golden


def replay_sequences(format_: str, content: bytes, source: str, golden: Golden) -> Float32Array:
    """Run every golden sequence through a sequence graph: (T, outputs), or (sequences, outputs).

    Where the golden vectors have a window, each window is run, and the last answer to it counts: (answers, outputs).

    Raises:
        BackendUnavailableError: no library that runs the format is installed.
        BundleError: the library cannot load or run the graph.
    """
    run = _tflite if format_ == "tflite" else _onnx
    if golden.window is not None:
        return np.concatenate([answers[-1:] for answers in run(content, source, list(golden.windows()))])
    return np.concatenate(run(content, source, list(golden.sequences())))


def _tflite(content: bytes, source: str, sequences: list[Float32Array]) -> list[Float32Array]:
    from .backends.tflite import interpreter_class

    answers: list[Float32Array] = []
    try:
        interpreter = interpreter_class()(model_content=content, num_threads=1)
        # By position: a sequence graph has one input and one output.
        (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
        for sequence in sequences:
            batch = sequence[None]
            if tuple(interpreter.get_input_details()[0]["shape"]) != batch.shape:
                interpreter.resize_tensor_input(x["index"], batch.shape, strict=True)
            interpreter.allocate_tensors()
            interpreter.set_tensor(x["index"], batch)
            interpreter.invoke()
            answers.append(_rows(interpreter.get_tensor(y["index"])))
    except BackendUnavailableError:
        raise
    except Exception as error:  # Runtimes' exceptions at a file that is damaged have no common root.
        raise BundleError(f"{source}: cannot be run ({reason_of(error)})") from error
    return answers


def _onnx(content: bytes, source: str, sequences: list[Float32Array]) -> list[Float32Array]:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise BackendUnavailableError('the onnx backend needs onnxruntime: pip install "edgelstm[onnx]"') from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        return [_rows(session.run(["y"], {"x": sequence[None]})[0]) for sequence in sequences]
    except Exception as error:  # onnxruntime's exceptions have no common root but this.
        raise BundleError(f"{source}: cannot be run ({reason_of(error)})") from error


def _rows(answer: Any) -> Float32Array:
    """(1, T, outputs) or (1, outputs) as (T, outputs) or (1, outputs)."""
    return np.asarray(answer, np.float32).reshape(-1, np.shape(answer)[-1])
