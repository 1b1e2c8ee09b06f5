"""Numbers below 1.2e-38: that they cost no time, change no answer, and leave the caller's floating-point mode alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime.activations import LINEAR, Function
from edgelstm.runtime.network import (
    GRU,
    LSTM,
    Activation,
    Affine,
    Dense,
    Layer,
    LayerNormalization,
    Masking,
    Network,
    PReLU,
    SimpleRNN,
)

from tests.engine.models import LEAST
from tests.engine.test_kernels import answers, kernels
from tests.engine.toolchain import HERE, compile_engine, link, require, run

F, H = 4, 16  # Few enough that a denormal costs more than all the rest.
SLOWEST = 5.0  # A denormal costs tens of times as much; other processes on the machine cost some times as much.
TINY = np.array([1e-37, 1e-38, 1e-39, -1e-40, 1e-41, -1e-45], np.float32)


def normal(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def dense(inputs: int, outputs: int, activation: Function = LINEAR) -> Dense:
    return Dense("d", normal(inputs, inputs, outputs), zeros(outputs), activation)


@cache
def model(name: str) -> Network:
    """Models whose states decay slowly, or that do nothing but multiply."""
    open_gate = zeros(4 * H)
    open_gate[H : 2 * H] = 4.6  # A sigmoid of 0.99.
    kept = zeros(3 * H)
    kept[:H] = 4.6
    relu = Function("relu", (0.0, 3.4028235e38, 0.0))
    eye = np.eye(H, dtype=np.float32) * np.float32(0.99)
    ones = np.ones(H, np.float32)

    def lstm(activation: Function, recurrent: Function, bias: np.ndarray = open_gate) -> LSTM:
        return LSTM("l", normal(1, F, 4 * H), normal(2, H, 4 * H) * np.float32(0.1), bias, activation, recurrent)

    def gru(activation: Function, reset_after: bool) -> GRU:
        recurrent = normal(4, H, 3 * H) * np.float32(0.1)
        return GRU(
            "g", normal(3, F, 3 * H), recurrent, kept, zeros(3 * H), activation, Function("sigmoid"), reset_after
        )

    recurrent = SimpleRNN("r", normal(5, F, H), eye, zeros(H), LINEAR)
    layers: dict[str, list[Layer]] = {
        "lstm": [lstm(Function("tanh"), Function("sigmoid")), dense(H, F)],
        "lstm of tiny biases": [
            lstm(Function("tanh"), Function("sigmoid"), open_gate + np.float32(1e-39)),
            dense(H, F),
        ],
        "lstm of other functions": [lstm(relu, Function("hard_sigmoid")), dense(H, F)],
        "gru": [gru(Function("tanh"), True), dense(H, F)],
        "gru, reset before": [gru(LINEAR, False), dense(H, F)],
        "linear rnn": [recurrent, dense(H, F)],
        "dense chain": [dense(F, 32), dense(32, 32), dense(32, 32), dense(32, F)],
        "tiny weights": [recurrent, Dense("d", normal(6, H, H) * np.float32(1e-38), zeros(H), LINEAR), dense(H, F)],
        "functions": [
            recurrent,
            *(Activation(name, Function(name, p)) for name, p in (("softplus", ()), ("elu", (1.0,)))),
            dense(H, H, Function("exponential")),
            dense(H, F, relu),
        ],
        "vectors": [
            Affine("a", zeros(F), np.full(F, 2, np.float32), zeros(F)),
            dense(F, H),
            PReLU("p", normal(7, H)),
            LayerNormalization("n", ones, zeros(H), 1e-3),
            dense(H, F),
        ],
    }
    return Network("m", tuple(layers[name]), F, True)


MODELS = (
    "lstm", "lstm of tiny biases", "lstm of other functions", "gru", "gru, reset before", "linear rnn", "dense chain",
    "tiny weights", "functions", "vectors",
)  # fmt: skip


def file_of(network: Network, precision: str = "float32") -> bytes:
    return native_step_file(network, precision, {"name": "m"})


@pytest.fixture(scope="module", params=["flushing", "by exponents"])
def program(request, tmp_path_factory) -> Path:
    """check_denormals, on processors that have a mode for it, and as on those that have none."""
    require("gcc")
    folder = tmp_path_factory.mktemp("denormals")
    flags = ["-O3"] if request.param == "flushing" else ["-O3", "-DEDGELSTM_PORTABLE", "-DEDGELSTM_NO_FLUSH"]
    objects = compile_engine(folder, "gcc", *flags)
    return link(folder / "check_denormals", "gcc", HERE / "check_denormals.c", objects, *flags)


@pytest.mark.engine
@pytest.mark.parametrize("name", MODELS)
def test_time_does_not_depend_on_the_data(name, program, tmp_path):
    """Counted, not timed to a percent; steps, runs, fleets and windows are compared in every mode, too."""
    path = tmp_path / "m.elm"
    for precision in LEAST:
        path.write_bytes(file_of(model(name), precision))
        lines = run(program, path).splitlines()
        assert lines
        assert lines[-1].startswith("portable ")
        for line in lines:
            kernel, *ratios, found = line.split()
            assert max(map(float, ratios)) < SLOWEST, (precision, kernel, ratios)
            assert found == "0", (precision, kernel)


@pytest.mark.parametrize("kernel", kernels())
def test_every_half_weight_is_read_right(kernel):
    """Subnormal ones too, which as float32 are numbers like any other."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].astype(np.float32)
    network = Network("m", (Dense("d", halves[None], zeros(len(halves)), LINEAR),), 1, True)
    got = answers(file_of(network, "float16"), kernel, np.ones((1, 1), np.float32))
    np.testing.assert_array_equal(got[0], halves)


@pytest.mark.parametrize("kernel", kernels())
def test_a_denormal_input_is_not_the_masked_value(kernel):
    network = Network("m", (Masking("k", 0.0), SimpleRNN("r", *map(np.float32, ([[1]], [[1]], [1])), LINEAR)), 1, True)  # pyright: ignore
    xs = np.array([[1], [1e-41], [0], [-0.0], [2]], np.float32)
    assert answers(file_of(network), kernel, xs).ravel().tolist() == [2, 3, 3, 3, 6]


@pytest.mark.parametrize("kernel", kernels())
def test_functions_of_tiny_numbers_are_within_1e_30(kernel):
    sizes = np.concatenate([TINY, np.geomspace(1e-37, 1e-9, 58, dtype=np.float32)])
    values = np.concatenate([sizes, -sizes])
    exact = values.astype(np.float64)
    plus = np.maximum(exact, 0)
    expected = {
        Function("squareplus", (0.0,)): plus,
        Function("squareplus", (1e-40,)): 0.5 * (exact + np.sqrt(exact**2 + float(np.float32(1e-40)))),
        Function("celu", (1e10,)): exact,
        Function("celu", (1e-40,)): np.where(exact > 0, exact, np.maximum(exact, -1e-40)),
        Function("threshold", (0.0, 5.0)): np.where(exact <= 0, 5.0, exact),
        Function("relu", (0.5, 3.4028235e38, 0.0)): np.where(exact > 0, exact, exact / 2),
        Function("tanh"): np.tanh(exact),
        Function("elu", (1.0,)): np.where(exact > 0, exact, np.expm1(exact)),
    }
    for function, want in expected.items():
        network = Network("f", (Activation("f", function),), 64, True)
        got = answers(file_of(network), kernel, values.reshape(-1, 64)).ravel().astype(np.float64)
        rounding = 3e-7 * np.maximum(np.abs(want), np.abs(exact))
        assert (np.abs(got - want) <= 1e-30 + rounding).all(), function


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("epsilon", [1e-3, 1e-30, 1e-37, 1e-40, 0.0])
def test_layer_normalization_of_tiny_differences(kernel, epsilon):
    """Squares that would be taken for zero beside an epsilon that is smaller still."""
    epsilon = float(np.float32(epsilon))
    layer = LayerNormalization("n", np.ones(F, np.float32), zeros(F), epsilon)
    for size in (1e-15, 1e-19, 1e-25, 1e-34):
        x = (np.array([[1, 2, -3, 0.5]]) * size).astype(np.float32)
        centred = x.astype(np.float64) - x.astype(np.float64).mean()
        want = centred / np.sqrt((centred**2).mean() + epsilon)
        got = answers(file_of(Network("m", (layer,), F, True)), kernel, x)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("kernel", kernels())
def test_what_is_not_finite_is_refused_beside_denormals(kernel):
    for bad in (np.nan, np.inf, -np.inf):
        xs = np.array([[1e-41, bad, 1e-45, 0]], np.float32)
        with pytest.raises(ValueError, match="not a finite"):
            answers(file_of(model("lstm")), kernel, xs)
