"""TFLite graphs by LiteRT's own calls, against Keras's functions and float64 formulas."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.export.calibration import record
from edgelstm.export.to_tflite.graph import tflite_sequence_graph, tflite_step_graph
from edgelstm.runtime.activations import FUNCTIONS, UNLIMITED, Function
from edgelstm.runtime.network import GRU, LSTM, Activation, Dense, Network, SimpleRNN

from .interpreters import litert_sequence, litert_steps, snr_db

# Parameters of the functions that have some, and Keras's call with the same.
PARAMETERS = {
    "relu": [
        (0.1, 2.0, -1.0),
        (0.0, UNLIMITED, 0.0),
        (0.3, 2.0, 0.5),
        (0.2, UNLIMITED, 0.0),
        (0.0, 6.0, 0.0),
        (0.0, UNLIMITED, -1.0),
    ],
    "elu": [(1.0,), (0.7,)],
    "celu": [(1.0,), (2.5,)],
    "gelu": [(0.0,), (1.0,)],
    "hard_shrink": [(0.5,)],
    "soft_shrink": [(0.5,)],
    "threshold": [(0.7, -2.0)],
    "squareplus": [(4.0,)],
}
CASES = [(name, parameters) for name in FUNCTIONS for parameters in PARAMETERS.get(name, [()])]


def keras_function(name: str, parameters: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    from keras import activations, ops

    if name == "hard_sigmoid_keras2":  # Not in Keras 3: its definition in Keras 2.
        return np.clip(0.2 * x + 0.5, 0, 1)
    if name == "relu":
        slope, maximum, threshold = parameters
        maximum = None if maximum == UNLIMITED else maximum
        return np.array(activations.relu(ops.array(x), slope, maximum, threshold))
    if name == "gelu":
        return np.array(activations.gelu(ops.array(x), bool(parameters[0])))
    return np.array(getattr(activations, name)(ops.array(x), *parameters))


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_every_activation_function(name, parameters):
    x = np.concatenate([np.linspace(-12, 12, 961), [-50.0, 50.0, 0.0, 0.5, -0.5, 0.7, 1.0, -1.0]]).astype(np.float32)
    network = Network("f", (Activation("f", Function(name, parameters)),), 1, True)
    if name in ("softmax", "log_softmax"):
        x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32) * 4
        network = Network("f", network.layers, 6, True)
    rows = x.reshape(len(x), -1)
    if name == "exponential":
        rows = np.clip(rows, -12, 12)
    got = litert_steps(tflite_step_graph(network, "float32", {}), rows)
    want = keras_function(name, parameters, rows)
    np.testing.assert_allclose(got, want, rtol=3e-6, atol=3e-6)


def random_network(kind: str, activation: Function, recurrent: Function, reset_after: bool = True) -> Network:
    rng = np.random.default_rng(5)

    def w(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 1.2 / np.sqrt(shape[0])).astype(np.float32)

    u, f = 24, 5
    if kind == "LSTM":
        # A cell without an upper bound grows without one, unless its recurrence is weak.
        weak = np.float32(0.3 if activation.name == "relu" else 1)
        layer = LSTM("r", w(f, 4 * u), w(u, 4 * u) * weak, w(4 * u) * weak, activation, recurrent)
    elif kind == "GRU":
        second = w(3 * u) if reset_after else np.zeros(3 * u, np.float32)
        layer = GRU("r", w(f, 3 * u), w(u, 3 * u), w(3 * u), second, activation, recurrent, reset_after)
    else:
        layer = SimpleRNN("r", w(f, u), w(u, u) * np.float32(0.6), w(u), activation)
    return Network("n", (layer, Dense("d", w(u, 3), w(3))), f, True)


KINDS = [
    random_network("LSTM", Function("tanh"), Function("sigmoid")),
    random_network("LSTM", Function("softsign"), Function("hard_sigmoid")),
    random_network("LSTM", Function("relu", (0.0, UNLIMITED, 0.0)), Function("sigmoid")),
    random_network("GRU", Function("tanh"), Function("sigmoid")),
    random_network("GRU", Function("tanh"), Function("sigmoid"), reset_after=False),
    random_network("GRU", Function("elu", (1.0,)), Function("hard_sigmoid"), reset_after=False),
    random_network("SimpleRNN", Function("tanh"), Function("linear")),
    random_network("SimpleRNN", Function("gelu", (0.0,)), Function("linear")),
]
LEAST = {"float32": 110, "float16": 55, "dynamic": 33, "int8": 40, "int16x8": 60}


@pytest.mark.slow
@pytest.mark.parametrize("network", KINDS, ids=lambda n: f"{type(n.layers[0]).__name__}-{n.layers[0].activation}")
def test_step_graphs_follow_float64(network):
    rng = np.random.default_rng(6)
    xs = rng.standard_normal((400, network.features)).astype(np.float32)
    want = network.run(xs.astype(np.float64))
    recorded = record(network, rng.standard_normal((8, 400, network.features)).astype(np.float32))
    for precision, least in LEAST.items():
        for legacy in (False, True):
            content = tflite_step_graph(network, precision, {}, recorded, legacy)
            assert snr_db(litert_steps(content, xs), want) > least, precision


@pytest.mark.parametrize("network", KINDS, ids=lambda n: f"{type(n.layers[0]).__name__}-{n.layers[0].activation}")
@pytest.mark.parametrize("precision", LEAST)
def test_sequence_graphs_in_every_precision(network, precision):
    rng = np.random.default_rng(6)
    recorded = record(network, rng.standard_normal((8, 400, network.features)).astype(np.float32))
    xs = rng.standard_normal((200, network.features)).astype(np.float32)
    for legacy in (False, True):
        content = tflite_sequence_graph(network, {}, precision, recorded, legacy)
        got = litert_sequence(content, xs)[0]
        assert snr_db(got, network.run(xs.astype(np.float64))) > LEAST[precision]
        # The same operators as in the step graph, so the same numbers.
        step = litert_steps(tflite_step_graph(network, precision, {}, recorded, legacy), xs)
        np.testing.assert_allclose(got, step, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", KINDS, ids=lambda n: f"{type(n.layers[0]).__name__}-{n.layers[0].activation}")
@pytest.mark.parametrize("return_sequences", [True, False])
def test_sequence_graphs_keep_nothing_between_calls(network, return_sequences):
    network = Network("n", network.layers, network.features, return_sequences)
    content = tflite_sequence_graph(network, {})
    rng = np.random.default_rng(6)
    for steps in (1, 2, 150, 7):
        xs = rng.standard_normal((steps, network.features)).astype(np.float32)
        want = network.run(xs.astype(np.float64))
        got = litert_sequence(content, xs)
        assert got.shape == ((1, steps, 3) if return_sequences else (1, 3))
        assert snr_db(got.reshape(-1, 3), want if return_sequences else want[-1:]) > 110


def test_one_interpreter_for_sequences_of_any_length():
    from ai_edge_litert.interpreter import Interpreter

    network = KINDS[0]
    interpreter = Interpreter(model_content=tflite_sequence_graph(network, {}), num_threads=1)
    rng = np.random.default_rng(6)
    for steps in (30, 30, 3, 500):
        xs = rng.standard_normal((1, steps, network.features)).astype(np.float32)
        interpreter.resize_tensor_input(0, xs.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], xs)
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert snr_db(got[0], network.run(xs[0].astype(np.float64))) > 110


def operators(content: bytes) -> set[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return {names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes}


@pytest.mark.parametrize("precision", LEAST)
def test_only_builtin_operators(precision):
    for network in KINDS:
        recorded = record(network, np.ones((1, 20, network.features), np.float32))
        used = operators(tflite_step_graph(network, precision, {}, recorded))
        assert not used & {"CUSTOM", "READ_VARIABLE", "VAR_HANDLE", "CALL_ONCE", "DELEGATE"}
    assert "CUSTOM" not in operators(tflite_sequence_graph(KINDS[0], {}))


@pytest.mark.parametrize("precision", LEAST)
def test_everything_that_goes_in_and_comes_out_is_float32(precision):
    from ai_edge_litert.interpreter import Interpreter

    for network in KINDS:
        recorded = record(network, np.ones((1, 50, network.features), np.float32))
        content = tflite_step_graph(network, precision, {}, recorded)
        runner = Interpreter(model_content=content).get_signature_runner("step")
        for details in (runner.get_input_details(), runner.get_output_details()):
            assert {detail["dtype"] for detail in details.values()} == {np.float32}


def test_constants_are_aligned_for_vector_loads():
    from ai_edge_litert import schema_py_generated as schema

    content = tflite_step_graph(KINDS[0], "float32", {})
    model = schema.Model.GetRootAs(content)
    sizes = 0
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
            sizes += buffer.DataLength()
    assert sizes > 4 * KINDS[0].parameters


def test_the_same_network_gives_the_same_bytes():
    recorded = record(KINDS[0], np.ones((1, 20, 5), np.float32))
    for precision in LEAST:
        first, second = (tflite_step_graph(KINDS[0], precision, {"name": "n"}, recorded) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_keeps_what_its_gate_says_to_keep(reset_after):
    """With an update gate of exactly 1, a state is the same to the bit after 200 timesteps."""
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(9)
    bias = np.concatenate([np.full(8, 60), rng.standard_normal(16)]).astype(np.float32)
    kernels = (rng.standard_normal((n, 24)).astype(np.float32) for n in (3, 8))
    layer = GRU("g", *kernels, bias, np.zeros(24, np.float32), reset_after=reset_after)
    content = tflite_step_graph(Network("n", (layer,), 3, True), "float32", {})
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner("step")
    start = state = rng.uniform(-1, 1, (1, 8)).astype(np.float32)
    for _ in range(200):
        state = runner(x=rng.standard_normal((1, 3)).astype(np.float32), g_h=state)["g_h_next"].copy()
    np.testing.assert_array_equal(state, start)
