"""Integer products and the rounding of weights: hand calculations, LiteRT's own sums, and the models of a study."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from edgelstm.export.calibration import record
from edgelstm.export.products import answers, products
from edgelstm.export.rounding import by_moments, nearest, round_network, row_scales
from edgelstm.export.to_native import native_step_file
from edgelstm.export.to_tflite import tflite_step_graph
from edgelstm.export.to_tflite.ops import Operators
from edgelstm.export.to_tflite.writer import ModelWriter
from edgelstm.runtime.network import GRU, LSTM, Affine, Dense, Network, SimpleRNN
from edgelstm.runtime.parity import TOLERANCES

from .interpreters import litert_steps, snr_db

RNG = np.random.default_rng(12)


def quadratic(error: np.ndarray, moments: np.ndarray) -> float:
    return float(((error @ moments) * error).sum())


def test_rounding_by_moments_comes_near_the_best_there_is():
    """Four weights, all 3⁴ roundings next to the nearest tried."""
    z = RNG.standard_normal((1000, 2)) @ RNG.standard_normal((2, 4)) + 0.1 * RNG.standard_normal((1000, 4))
    moments = z.T @ z / len(z)
    ratios = []
    for _ in range(20):
        weights = RNG.uniform(-1, 1, (1, 4))
        scales = row_scales(weights) * 8  # A coarse grid, so that the largest is no longer fixed.
        steps = nearest(weights, scales).astype(int)
        grid = np.array(np.meshgrid(*[[-1, 0, 1]] * 4)).reshape(4, -1).T
        best = min(quadratic(weights - (steps + g) * scales, moments) for g in grid)
        plain = quadratic(weights - steps * scales, moments)
        learned = quadratic(weights - by_moments(weights, scales, moments, 10**6, np.ones(4)) * scales, moments)
        ratios.append([plain / best, learned / best])
    assert np.median(ratios, axis=0)[1] < 1.5
    assert np.median(ratios, axis=0)[0] > 4


def test_independent_inputs_leave_nothing_to_cancel():
    weights = RNG.standard_normal((7, 33))
    scales = row_scales(weights)
    moments = np.diag(RNG.uniform(0.1, 10, 33))
    np.testing.assert_array_equal(by_moments(weights, scales, moments, 999, np.ones(33)), nearest(weights, scales))


@pytest.mark.parametrize("columns", [1, 64, 65, 130])
def test_rounding_in_blocks_is_rounding_one_by_one(columns):
    """The textbook's loop, one weight after the other with the inverse of what is left, against the blocks."""
    z = RNG.standard_normal((500, 8)) @ RNG.standard_normal((8, columns)) + RNG.standard_normal((500, columns))
    moments, weights = z.T @ z / len(z), RNG.standard_normal((5, columns))
    scales, largest, count = row_scales(weights), np.abs(z).max(0), 500
    h = moments / largest / largest[:, None]
    h += np.eye(columns) * (1e-3 + 0.1 * columns / count) * np.mean(np.diag(h))
    left, steps = weights * largest, np.zeros((5, columns))
    fixed = np.abs(weights) > 126.9 * scales
    todo = list(np.argsort(-np.diag(h), kind="stable"))
    while todo:
        inverse = np.linalg.inv(h[np.ix_(todo, todo)])
        k = todo[0]
        unit = scales[:, 0] * largest[k]
        steps[:, k] = np.clip(np.rint(left[:, k] / unit), -127, 127)
        steps[:, k] = np.where(fixed[:, k], np.sign(weights[:, k]) * 127, steps[:, k])
        error = (left[:, k] - steps[:, k] * unit) / inverse[0, 0]
        for column, other in zip(inverse[0, 1:], todo[1:], strict=True):
            left[:, other] -= error * column
        todo = todo[1:]
    got = by_moments(weights, scales, moments, count, largest)
    assert (got == steps).mean() > 0.999  # A tie may fall the other way.


def large(kind: str, inputs: int = 5, units: int = 24, reset_after: bool = True):
    def w(*shape: int) -> np.ndarray:
        return (RNG.standard_normal(shape) * 1.2 / np.sqrt(shape[0])).astype(np.float32)

    if kind == "LSTM":
        return LSTM("r", w(inputs, 4 * units), w(units, 4 * units), w(4 * units))
    if kind == "GRU":
        second = w(3 * units) if reset_after else np.zeros(3 * units, np.float32)
        return GRU("r", w(inputs, 3 * units), w(units, 3 * units), w(3 * units), second, reset_after=reset_after)
    return SimpleRNN("r", w(inputs, 4 * units), w(4 * units, 4 * units) * np.float32(0.6), w(4 * units))


LAYERS = [large("LSTM"), large("GRU"), large("GRU", reset_after=False), large("SimpleRNN")]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{type(layer).__name__}")
@pytest.mark.parametrize("apart", [True, False])
def test_a_rounded_network_is_one_that_int8_holds(layer, apart):
    network = Network("n", (layer,), 5, True)
    slow = np.cumsum(RNG.standard_normal((8, 300, 5)), 1).astype(np.float32) * 0.2
    rounded = round_network(network, products(layer), apart, record(network, slow)).layers[0]
    for product in products(layer):
        for part in product.of(rounded).parts if apart else [product.of(rounded).weights]:
            scales = row_scales(part.T)
            np.testing.assert_allclose(nearest(part.T, scales) * scales, part.T, rtol=1e-6, atol=1e-9)
    assert rounded.bias is layer.bias


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{type(layer).__name__}")
def test_rounding_is_never_worse_where_it_was_compared(layer):
    network = Network("n", (layer,), 5, True)
    slow = np.cumsum(RNG.standard_normal((8, 300, 5)), 1).astype(np.float32) * 0.2
    recorded = record(network, slow)
    seen = recorded.of(products(layer)[0])
    exact = answers(layer, seen.sequences.astype(np.float64))

    def error(with_layer) -> float:
        got = answers(with_layer, seen.sequences.astype(np.float64))
        return float(np.square(got - exact)[seen.counted].sum())

    for product in products(layer):
        plain = nearest(product.weights.T, row_scales(product.weights.T)) * row_scales(product.weights.T)
        learned = round_network(network, [product], False, recorded).layers[0]
        assert error(learned) <= 1.001 * error(product.with_weights(plain.T))


# ---- Sums beyond 2³¹ ----


def operators(content: bytes) -> list[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def all_alike(inputs: int) -> Network:
    dense = Dense("d", np.ones((inputs, 3), np.float32) * [1, -1, 0.5], np.array([0, 1, 2], np.float32))
    return Network("n", (replace(dense, kernel=dense.kernel.astype(np.float32)),), inputs, True)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize(("inputs", "pieces"), [(516, 1), (517, 2), (520, 2), (1033, 3)])
def test_sums_beyond_int32_are_split(inputs, pieces, precision):
    network = all_alike(inputs)
    recorded = record(network, np.ones((4, 20, inputs), np.float32))
    content = tflite_step_graph(network, precision, {}, recorded)
    assert operators(content).count("FULLY_CONNECTED") == pieces
    # Eight times what calibration saw: every int16 is at its end, every weight at 127.
    xs = np.concatenate([np.full((2, inputs), 8.0), np.full((2, inputs), -8.0), RNG.uniform(-8, 8, (4, inputs))])
    xs = xs.astype(np.float32)
    want = network.run(xs.astype(np.float64))
    np.testing.assert_allclose(litert_steps(content, xs)[:4], want[:4], rtol=2e-3)
    assert snr_db(litert_steps(content, xs)[4:], want[4:]) > 60


def fully_negative(last: int) -> Network:
    """517 inputs: -127 from all but the last, `last` from that; and a row for which the last counts as much."""
    kernel = np.zeros((517, 2), np.float32)
    kernel[:, 0], kernel[-1] = -127, (last, 127)
    return Network("n", (Dense("d", kernel, np.zeros(2, np.float32)),), 517, True)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize(("last", "pieces"), [(-3, 1), (3, 1), (-4, 2), (4, 2)])
def test_it_is_the_sum_of_a_row_that_is_split(last, pieces, precision):
    """516 · 127 + 3 is the most whose product with -32,768 fits; one more would not."""
    network = fully_negative(last)
    content = tflite_step_graph(network, precision, {}, record(network, np.ones((4, 20, 517), np.float32)))
    assert operators(content).count("FULLY_CONNECTED") == pieces
    # Beyond eight times what calibration saw, so that every int16 is at its end, in the sign of most of the sum.
    xs = np.full((4, 517), -9, np.float32)
    xs[:, -1] *= np.float32(-np.sign(last))
    xs[2:] *= -1
    want = network.run(np.clip(xs, -8, 8).astype(np.float64))
    np.testing.assert_allclose(litert_steps(content, xs), want, rtol=1e-3, atol=20)


def weights_of_sum(total: int) -> np.ndarray:
    """int8 (2, 517), the absolute values of either row adding up to this."""
    row = np.full(517, -127)
    row[-1] += 517 * 127 - total
    return np.array([row, row])


@pytest.mark.parametrize(("total", "right"), [(516 * 127, True), (65_535, True), (65_536, False), (517 * 127, False)])
def test_litert_s_own_sum_overflows_there(total, right):
    """What the split is for: one product whose sum is 2³¹ answers a wrong sign."""
    from ai_edge_litert.interpreter import Interpreter

    model = ModelWriter()
    graph = model.graph("step")
    ops = Operators(graph)
    x = graph.tensor("x", (1, 517))
    weights = ops.constant(weights_of_sum(total), np.int8, [1 / 127])
    y = ops.fully_connected(ops.quantize(x, 1 / 32767), weights, None, 517 / 32767, version=4)
    model.signature("step", graph, {"x": x}, {"y": ops.dequantize(y)})
    runner = Interpreter(model_content=model.to_bytes(), num_threads=1).get_signature_runner("step")
    answer = runner(x=np.full((1, 517), -2, np.float32))["y"][0]
    assert (np.abs(answer - total / 127).max() < 0.1) == right


# ---- The same bytes ----

DIGESTS = """
import hashlib, sys
import numpy as np
from edgelstm.export.calibration import record
from edgelstm.export.to_tflite import tflite_sequence_graph, tflite_step_graph
from edgelstm.runtime.elm import read_elm
network, _ = read_elm(open(sys.argv[1], "rb").read(), sys.argv[1])
recorded = record(network, np.load(sys.argv[2]))
for precision in ("float32", "float16", "dynamic", "int8", "int16x8"):
    for legacy in (False, True):
        step = tflite_step_graph(network, precision, {"name": "n"}, recorded, legacy)
        sequence = tflite_sequence_graph(network, {"name": "n"}, precision, recorded, legacy)
        print(precision, legacy, *(hashlib.sha256(content).hexdigest() for content in (step, sequence)))
"""


@pytest.mark.slow
def test_every_process_writes_the_same_bytes(tmp_path):
    """Whatever the order of its sets, and however many threads multiply its matrices."""
    second, third = (replace(large("GRU", 24, reset_after=after), name=f"g{after}") for after in (True, False))
    network = Network("n", (LAYERS[0], second, third), 5, True)
    (tmp_path / "n.elm").write_bytes(native_step_file(network, "float32", {"name": "n"}))
    np.save(tmp_path / "data.npy", RNG.standard_normal((6, 200, 5)).astype(np.float32))
    command = [sys.executable, "-c", DIGESTS, str(tmp_path / "n.elm"), str(tmp_path / "data.npy")]
    said = [
        subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout
        for env in (
            {"PYTHONHASHSEED": "1", "OPENBLAS_NUM_THREADS": "1"},
            {"PYTHONHASHSEED": "2", "OPENBLAS_NUM_THREADS": "2"},
        )
    ]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 10


# ---- Calibration that says little ----


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_larger_inputs_and_short_calibration(precision):
    """Twice what calibration saw, or 60 timesteps of it, cost no more than some dB."""
    rng = np.random.default_rng(3)
    head = Dense("d", rng.standard_normal((24, 2)).astype(np.float32), np.ones(2, np.float32))
    network = Network("n", (LAYERS[0], head), 5, True)
    seen = np.cumsum(rng.standard_normal((8, 400, 5)), 1).astype(np.float32) * 0.1
    xs = np.cumsum(rng.standard_normal((500, 5)), 0).astype(np.float32) * 0.1
    for calibration, inputs in ((seen, xs), (seen, 2 * xs), (seen, 4 * xs), (seen[:1, :60], xs)):
        content = tflite_step_graph(network, precision, {}, record(network, calibration))
        want = network.run(inputs.astype(np.float64))
        assert snr_db(litert_steps(content, inputs), want) >= TOLERANCES[precision]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("dead", [[2], [0, 1, 2, 3, 4]])
def test_features_that_are_scaled_to_nothing(precision, dead):
    """A BatchNormalization whose gamma is 0 for some features, or for all."""
    scale, zeros = np.ones(5, np.float32), np.zeros(5, np.float32)
    scale[dead] = 0
    affine = Affine("a", zeros, scale, zeros)
    assert affine.bound(float("inf")) == (0 if len(dead) == 5 else float("inf"))
    network = Network("n", (affine, LAYERS[0]), 5, True)
    xs = RNG.standard_normal((300, 5)).astype(np.float32)
    content = tflite_step_graph(network, precision, {}, record(network, xs[None]))
    want = network.run(xs.astype(np.float64))
    assert snr_db(litert_steps(content, xs), want) >= TOLERANCES[precision]


def test_calibration_of_silence_and_of_one_timestep():
    network = Network("n", (LAYERS[0],), 5, True)
    xs = RNG.standard_normal((50, 5)).astype(np.float32)
    want = network.run(xs.astype(np.float64))
    for calibration in (np.zeros((1, 100, 5), np.float32), xs[None, :1]):
        content = tflite_step_graph(network, "int8", {}, record(network, calibration))
        assert snr_db(litert_steps(content, xs), want) > 20
