"""Every kernel of this processor, as Python drives it, against Keras."""

from __future__ import annotations

import statistics
from functools import cache

import numpy as np
import pytest
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime.activations import Function
from edgelstm.runtime.network import Activation, Network

from tests.engine.models import LEAST, NAMES, elm, golden, precisions
from tests.export.interpreters import snr_db
from tests.zoo import ZOO

_native = pytest.importorskip("edgelstm.runtime._native")
# Keras takes most of the time: every eighth model goes the whole way.
STEPS = {name: 10_000 if i % 8 else 50_000 for i, name in enumerate(NAMES)}
FEWER = 5_000


def kernels() -> list[str]:
    found = []
    for name in ("avx512", "avx2", "neondot", "neon", "portable"):
        try:
            found.append(_native.Model(elm("tutorial_last", "float32"), name).kernel)
        except _native.Error:
            continue
    return found


def answers(content: bytes, kernel: str, xs: np.ndarray) -> np.ndarray:
    model = _native.Model(content, kernel)
    ys = np.empty((len(xs), model.outputs), np.float32)
    _native.State(model).run(np.ascontiguousarray(xs, np.float32), ys)
    return ys


@cache
def ratio(name: str, precision: str, kernel: str) -> float:
    """That of a model's answers to those of Keras, over all of its timesteps."""
    xs, want = golden(name, STEPS[name])
    return snr_db(answers(elm(name, precision), kernel, xs), want)


@pytest.mark.engine
@pytest.mark.parametrize("name", NAMES)
def test_long_streams_follow_keras(name):
    xs, want = golden(name, STEPS[name])
    fastest, *others = kernels()
    for precision in precisions(name):
        assert ratio(name, precision, fastest) >= LEAST[precision], (precision, fastest)
        for kernel in others:
            found = snr_db(answers(elm(name, precision), kernel, xs[:FEWER]), want[:FEWER])
            assert found >= LEAST[precision], (precision, kernel)


@pytest.mark.engine
def test_int8_in_the_median_of_the_zoo():
    fastest, *_ = kernels()
    assert statistics.median(ratio(name, "int8", fastest) for name in ZOO if "int8" in precisions(name)) >= 38


def functions(kernel: str, name: str, values: np.ndarray) -> np.ndarray:
    """A function of the engine, over so many values, in rows of 64."""
    network = Network("f", (Activation("f", Function(name)),), 64, True)
    return answers(native_step_file(network, "float32", {"name": "f"}), kernel, values.reshape(-1, 64)).reshape(-1)


@pytest.mark.parametrize("kernel", kernels())
def test_exp_tanh_and_sigmoid_are_within_2e_7(kernel):
    near = np.linspace(-30, 30, 64 * 40000, dtype=np.float32)
    tiny = np.geomspace(1e-38, 1, 64 * 500, dtype=np.float32)
    far = np.geomspace(1, 3e38, 64 * 500, dtype=np.float32)
    values = np.concatenate([near, tiny, -tiny, far, -far])
    exact = values.astype(np.float64)
    with np.errstate(over="ignore"):
        assert np.abs(functions(kernel, "tanh", values) - np.tanh(exact)).max() <= 2e-7
        assert np.abs(functions(kernel, "sigmoid", values) - 1 / (1 + np.exp(-exact))).max() <= 2e-7
        below = values[values <= 0]
        below = below[: len(below) // 64 * 64]
        assert np.abs(functions(kernel, "exponential", below) - np.exp(below.astype(np.float64))).max() <= 2e-7
    # Near zero tanh keeps its relative accuracy, or small states would drown in the error.
    small = tiny[tiny > 1e-30][: 64 * 300]
    assert np.abs(functions(kernel, "tanh", small) / np.tanh(small.astype(np.float64)) - 1).max() <= 3e-7


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("precision", LEAST)
def test_enormous_finite_inputs_end_in_finite_states(kernel, precision):
    xs = np.array([[1e37, -1e37, 1e37, 1e-45, -1e-45, 0.0, 1.0, -1.0]] * 5, np.float32)
    content = elm("LSTM 8 32 32 4", precision)
    assert np.isfinite(answers(content, kernel, xs)).all()


def test_a_kernel_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="has no kernel"):
        _native.Model(elm("tutorial_last", "float32"), "abacus")
