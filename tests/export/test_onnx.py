"""ONNX graphs by onnxruntime's own calls, against Keras, tf2onnx, onnxruntime's quantiser and float64 formulas."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from edgelstm.export import read_keras
from edgelstm.export.to_onnx.graph import PRECISIONS, onnx_step_graph
from edgelstm.runtime.activations import SIGMOID, TANH, UNLIMITED, Function
from edgelstm.runtime.network import (
    GRU,
    LSTM,
    Activation,
    Affine,
    Dense,
    LayerNormalization,
    Masking,
    Network,
    PReLU,
    SimpleRNN,
)
from edgelstm.runtime.parity import TOLERANCES

from ..zoo import DISCONTINUOUS, ZOO, zoo_inputs, zoo_model
from .interpreters import snr_db
from .test_tflite import CASES, keras_function
from .tf2onnx_reference import tf2onnx_sequences

RNG = np.random.default_rng(11)
_FIRST = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def numbers_from_the_first_on():
    """Whatever ran before: a test alone and a test among all have the same weights."""
    RNG.bit_generator.state = _FIRST


def session(content: bytes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def zero_states(graph, batch: int = 1) -> dict[str, np.ndarray]:
    return {i.name: np.zeros((1, batch, i.shape[2]), np.float32) for i in graph.get_inputs() if i.name != "x"}


def call(graph, xs: np.ndarray, states: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One call as an application makes it: (time, batch, features) and states in, outputs and next states out."""
    names = [o.name for o in graph.get_outputs()]
    answer = dict(zip(names, graph.run(names, {"x": xs, **states}), strict=True))
    return answer["y"], {name: answer[f"{name}_next"] for name in states}


def steps(content: bytes, xs: np.ndarray) -> np.ndarray:
    """Timestep by timestep: (T, features) → (T, outputs)."""
    graph = session(content)
    states, ys = zero_states(graph), []
    for x in xs:
        y, states = call(graph, x[None, None], states)
        ys.append(y[0, 0])
    return np.array(ys)


def whole(content: bytes, xs: np.ndarray) -> np.ndarray:
    """As one chunk: (T, features) → (T, outputs)."""
    graph = session(content)
    return call(graph, xs[:, None], zero_states(graph))[0][:, 0]


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def lstm(name: str, inputs: int, units: int, activation=TANH, recurrent=SIGMOID, gain: float = 1.0) -> LSTM:
    kernel, bias = normal(inputs, 4 * units, scale=gain / inputs**0.5), normal(4 * units, scale=0.5)
    return LSTM(name, kernel, normal(units, 4 * units, scale=0.6 / units**0.5), bias, activation, recurrent)


def gru(name: str, inputs: int, units: int, activation=TANH, recurrent=SIGMOID, reset_after=True) -> GRU:
    kernel, bias = normal(inputs, 3 * units, scale=1 / inputs**0.5), normal(3 * units, scale=0.5)
    second = normal(3 * units, scale=0.5) * np.float32(reset_after)
    matrix = normal(units, 3 * units, scale=0.6 / units**0.5)
    return GRU(name, kernel, matrix, bias, second, activation, recurrent, reset_after)


def simple_rnn(name: str, inputs: int, units: int, activation=TANH) -> SimpleRNN:
    return SimpleRNN(
        name, normal(inputs, units), normal(units, units, scale=0.5 / units**0.5), normal(units), activation
    )


def dense(name: str, inputs: int, units: int) -> Dense:
    return Dense(name, normal(inputs, units, scale=1 / inputs**0.5), normal(units))


def exact(network: Network, xs: np.ndarray) -> np.ndarray:
    return network.run(xs.astype(np.float64))


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_every_activation_function_is_keras_s(name, parameters):
    x = np.concatenate([np.linspace(-12, 12, 961), [-90.0, -50.0, 50.0, 90.0, 0.5, -0.5, 0.7]]).astype(np.float32)
    rows = x.reshape(-1, 1)
    if name in ("softmax", "log_softmax"):
        rows = normal(50, 6, scale=4.0)
    if name == "exponential":
        rows = np.clip(rows, -12, 12)
    network = Network("f", (Activation("f", Function(name, parameters)),), rows.shape[1], True)
    want = keras_function(name, parameters, rows)
    np.testing.assert_allclose(whole(onnx_step_graph(network, "float32", {}), rows), want, rtol=3e-6, atol=3e-6)


LAYERS = {
    "LSTM": lstm,
    "GRU": gru,
    "GRU, reset before": lambda *args: gru(*args, reset_after=False),
    "SimpleRNN": lambda name, inputs, units, activation, _: simple_rnn(name, inputs, units, activation),
}
# What the operators know, and the like of which they do not.
FUNCTIONS_OF_LAYERS = [
    (Function("sigmoid"), True),
    (Function("tanh"), True),
    (Function("softsign"), True),
    (Function("hard_sigmoid"), True),
    (Function("hard_sigmoid_keras2"), True),
    (Function("sparse_sigmoid"), True),
    (Function("elu", (0.7,)), True),
    (Function("relu", (0.0, UNLIMITED, 0.0)), True),
    (Function("relu", (0.2, UNLIMITED, 0.0)), True),
    (Function("linear"), True),
    (Function("relu", (0.0, 6.0, 0.0)), False),
    (Function("relu", (0.1, UNLIMITED, 0.3)), False),
    (Function("softplus"), False),
    (Function("gelu", (0.0,)), False),
    (Function("softmax"), False),
]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("function", "by_operator"), FUNCTIONS_OF_LAYERS, ids=str)
def test_recurrent_layers_with_every_kind_of_activation(kind, function, by_operator):
    layer = LAYERS[kind]("layer", 3, 9, function, SIGMOID)
    network = Network("n", (layer,), 3, True)
    content = onnx_step_graph(network, "float32", {})
    kinds = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert ("Scan" not in kinds) == by_operator
    xs = normal(60, 3, scale=2.0)
    want = exact(network, xs)
    assert snr_db(steps(content, xs), want) >= 100
    assert snr_db(whole(content, xs), want) >= 100


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU, reset before"])
@pytest.mark.parametrize(
    "function", [f for f, _ in FUNCTIONS_OF_LAYERS if "sig" in f.name or f.name == "softmax"], ids=str
)
def test_recurrent_activations(kind, function):
    network = Network("n", (LAYERS[kind]("layer", 3, 9, Function("softsign"), function),), 3, True)
    xs = normal(60, 3, scale=2.0)
    assert snr_db(steps(onnx_step_graph(network, "float32", {}), xs), exact(network, xs)) >= 100


def test_cell_states_are_not_clipped():
    """A counter: the cell state grows by one in each timestep."""
    bias = np.array([50, 50, 50, 50], np.float32)
    layer = LSTM("l", np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32), bias)
    graph = session(onnx_step_graph(Network("n", (layer,), 1, True), "float32", {}))
    _, states = call(graph, np.zeros((300, 1, 1), np.float32), zero_states(graph))
    assert states["l_c"][0, 0, 0] == pytest.approx(300, abs=1e-3)


def mixed_network() -> Network:
    """Every kind of layer, by operator and by `Scan`."""
    return Network(
        "mixed",
        (
            Affine("scale", normal(3), normal(3), normal(3)),
            lstm("first", 3, 40),
            PReLU("prelu", normal(40)),
            gru("second", 40, 20, Function("silu")),
            LayerNormalization("norm", normal(20), normal(20), 1e-3),
            simple_rnn("third", 20, 12),
            dense("head", 12, 4),
        ),
        3,
        True,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("masked", [False, True])
def test_every_kind_of_layer_in_every_precision(precision, masked):
    network = mixed_network()
    xs = normal(120, 3, scale=2.0)
    if masked:
        network = Network("masked", (Masking("mask", 0.5), *network.layers), 3, True)
        xs[::5] = 0.5
        xs[:3] = 0.5
        xs[7, :2] = 0.5  # A row is masked only as a whole.
    content = onnx_step_graph(network, precision, {})
    assert snr_db(steps(content, xs), exact(network, xs)) >= TOLERANCES[precision]


@pytest.mark.parametrize("masked", [False, True])
def test_rows_of_a_batch_are_independent(masked):
    network = mixed_network()
    xs = normal(40, 5, 3, scale=2.0)
    if masked:
        network = Network("masked", (Masking("mask", -1.0), *network.layers), 3, True)
        xs[RNG.random((40, 5)) < 0.4] = -1.0
    graph = session(onnx_step_graph(network, "float32", {}))
    first, states = call(graph, xs[:17], zero_states(graph, 5))
    second, _ = call(graph, xs[17:], states)
    ys = np.concatenate([first, second])
    for row in range(5):
        np.testing.assert_allclose(ys[:, row], exact(network, xs[:, row]), rtol=2e-5, atol=2e-5)


def test_the_interface_is_what_the_page_says():
    network = Network("pump", (lstm("lstm_1", 3, 8), gru("gru", 8, 4), dense("head", 4, 2)), 3, True)
    metadata = {"zebra": "ü", "edgelstm": '{"features": ["a", "b", "c"]}'}
    content = onnx_step_graph(network, "float32", metadata)
    assert content == onnx_step_graph(network, "float32", metadata)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]

    def interface(values):
        return [(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values]

    assert interface(model.graph.input) == [
        ("x", ["time", "batch", 3]),
        ("lstm_1_h", [1, "batch", 8]),
        ("lstm_1_c", [1, "batch", 8]),
        ("gru_h", [1, "batch", 4]),
    ]
    assert interface(model.graph.output) == [
        ("y", ["time", "batch", 2]),
        ("lstm_1_h_next", [1, "batch", 8]),
        ("lstm_1_c_next", [1, "batch", 8]),
        ("gru_h_next", [1, "batch", 4]),
    ]
    keys = [entry.key for entry in model.metadata_props]
    assert keys == sorted(keys)
    assert metadata.items() <= {entry.key: entry.value for entry in model.metadata_props}.items()
    assert [node.op_type for node in model.graph.node] == ["LSTM", "Squeeze", "GRU", "Squeeze", "MatMul", "Add"]
    assert {"lstm_1/kernel", "lstm_1/recurrent_kernel", "lstm_1/bias", "head/kernel", "gru/kernel"} <= {
        tensor.name for tensor in model.graph.initializer
    }


def test_half_and_a_quarter_of_the_size():
    network = Network("n", (lstm("a", 8, 32), lstm("b", 32, 32), dense("d", 32, 4)), 8, True)
    full, half, quarter = (len(onnx_step_graph(network, precision, {})) for precision in PRECISIONS)
    assert half < 0.55 * full
    assert quarter < 0.37 * full  # Its input kernel and its biases are not int8.


def test_weights_for_raw_inputs_survive_every_precision():
    """Pressure in pascal beside a concentration: small weights for large inputs must not round to nothing."""
    first = lstm("first", 3, 40)
    units = np.array([101325.0, 25.0, 3e-6], np.float32)
    kernel = (first.kernel / units[:, None]).astype(np.float32)
    raw = LSTM("first", kernel, first.recurrent_kernel, first.bias)
    network = Network("n", (raw, dense("d", 40, 2)), 3, True)
    xs = normal(150, 3) * units
    want = exact(network, xs)
    for precision in PRECISIONS:
        assert snr_db(steps(onnx_step_graph(network, precision, {}), xs), want) >= TOLERANCES[precision], precision
    assert np.abs(kernel).max() > 65504  # Beyond float16, too.


def test_layer_normalization_far_from_zero():
    layer = LayerNormalization("n", np.ones(6, np.float32), np.zeros(6, np.float32), 1e-3)
    network = Network("n", (layer,), 6, True)
    xs = normal(50, 6) + np.float32(3000)
    np.testing.assert_allclose(
        whole(onnx_step_graph(network, "float32", {}), xs), exact(network, xs), rtol=1e-5, atol=1e-5
    )


def wide_network() -> Network:
    # A first product too small to be quantised, so that the rest of the file is what the quantiser makes of it.
    return Network("wide", (dense("mix", 7, 16), lstm("wide", 16, 128, gain=2.0), dense("head", 128, 4)), 7, True)


def test_wide_lstm_layers_as_onnxruntime_quantises_them(tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    network = wide_network()
    (tmp_path / "float.onnx").write_bytes(onnx_step_graph(network, "float32", {}))
    content = onnx_step_graph(network, "dynamic", {})
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert "DynamicQuantizeLSTM" in kinds
    xs = normal(200, 7, scale=2.0)
    want = exact(network, xs)
    theirs = []
    for seven_bits in (False, True):  # Where a processor has no VNNI, its sums of eight bits saturate.
        quantize_dynamic(
            tmp_path / "float.onnx",
            tmp_path / "int8.onnx",
            op_types_to_quantize=["LSTM"],
            per_channel=True,
            reduce_range=seven_bits,
            weight_type=QuantType.QInt8,
        )
        theirs.append(snr_db(steps((tmp_path / "int8.onnx").read_bytes(), xs), want))
    assert max(theirs) >= TOLERANCES["dynamic"]
    assert snr_db(steps(content, xs), want) >= max(theirs) - 3


def test_int8_products_are_exact():
    """One timestep by hand: activations in 0…255, weights in -127…127 around 128, sums in integers, each gate."""
    units = 128
    layer = lstm("wide", 16, units, gain=2.0)
    x = np.abs(normal(16, scale=2.0)) + 1  # All alike and large: where narrow sums would saturate.
    kernel = np.abs(layer.kernel)
    positive = LSTM("wide", kernel, layer.recurrent_kernel, layer.bias * 0 - kernel.sum(0) * x.mean())
    network = Network(
        "n", (Dense("id", np.eye(16, dtype=np.float32)[:, :16], np.zeros(16, np.float32)), positive), 16, True
    )
    scale_w = kernel.max(0) / 127
    weights = np.rint(kernel / scale_w)
    scale_x = x.max() / 255
    z = (np.rint(x / scale_x) @ weights) * scale_x * scale_w + positive.bias
    i, _, g, o = np.split(z, 4)
    want = np.tanh(np.tanh(g) / (1 + np.exp(-i))) / (1 + np.exp(-o))
    got = steps(onnx_step_graph(network, "dynamic", {}), x[None])[0]
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int16x8", "float64"])
def test_other_precisions_do_not_exist(precision):
    with pytest.raises(ValueError, match="no ONNX file in"):
        onnx_step_graph(mixed_network(), precision, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tutorial_stacked", "wide", "gru", "softmax_classifier", "tutorial_deep"])
def test_tf2onnx_s_files_agree(name):
    """On whole sequences from zero state."""
    model = zoo_model(name)
    length = model.inputs[0].shape[1] or 100
    xs = np.stack([zoo_inputs(name, length, seed) for seed in (3, 4, 5)])
    theirs, kinds = tf2onnx_sequences(model, xs)
    assert ("LSTM" in kinds) == (name != "gru")
    graph = session(onnx_step_graph(read_keras(model), "float32", {}))
    ours, _ = call(graph, np.ascontiguousarray(xs.swapaxes(0, 1)), zero_states(graph, 3))
    ours = ours.swapaxes(0, 1) if theirs.ndim == 3 else ours[-1]
    assert snr_db(ours, theirs) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_by_onnxruntime_s_own_calls(name):
    network = read_keras(zoo_model(name))
    xs = zoo_inputs(name, 320, 21)
    want = network.reference(xs)
    for precision in PRECISIONS[:1] if name in DISCONTINUOUS else PRECISIONS:
        content = onnx_step_graph(network, precision, {})
        assert snr_db(steps(content, xs), want) >= TOLERANCES[precision], precision
        if precision != "dynamic":
            assert snr_db(whole(content, xs), want) >= TOLERANCES[precision], precision


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_drift_in_100_000_steps(precision):
    network = wide_network()
    xs = np.tile(normal(1000, 7, scale=2.0), (100, 1))
    content = onnx_step_graph(network, precision, {})
    want = exact(network, xs[:2000])
    ys = steps(content, xs)
    first, last = snr_db(ys[1000:2000], want[1000:]), snr_db(ys[-1000:], want[1000:])
    assert first >= TOLERANCES[precision]
    assert last >= first - 0.5
