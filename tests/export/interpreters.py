"""The interpreters' own calls, as an application makes them: nothing of `edgelstm.runtime` in between."""

from __future__ import annotations

import numpy as np


def litert_steps(content: bytes, xs: np.ndarray) -> np.ndarray:
    """Step a `.tflite` step graph with LiteRT's signature runner, states passed by hand: (T, outputs)."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner("step")
    details = runner.get_input_details()
    states = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items() if name != "x"}
    ys = []
    for x in xs:
        answer = runner(x=x[None], **states)
        states = {name: answer[f"{name}_next"] for name in states}
        ys.append(answer["y"][0])
    return np.array(ys)


def litert_sequence(content: bytes, xs: np.ndarray) -> np.ndarray:
    """Run a `.tflite` sequence graph on one sequence (T, features)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(x["index"], (1, *xs.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(x["index"], xs[None])
    interpreter.invoke()
    return interpreter.get_tensor(y["index"])


def snr_db(actual: np.ndarray, expected: np.ndarray) -> float:
    """10·log10 of the power of what is expected over that of the difference."""
    noise = np.square(np.asarray(actual, float) - expected).sum()
    return 10 * np.log10(np.square(np.asarray(expected, float)).sum() / max(noise, 1e-30))
