"""ONNX files of a network: one graph that serves a step, a chunk and a batch.

The interface, the same for every network and precision:

| | name | shape, float32 |
|---|---|---|
| input | `x` | (time, batch, features) |
| input, one for each state | its name, such as `lstm_1_h` | (1, batch, units) |
| output | `y` | (time, batch, outputs) |
| output, one for each state | its name and `_next`, such as `lstm_1_h_next` | (1, batch, units) |

`time` and `batch` are at least 1 and may differ from call to call. A sequence starts with states of zeros; each
`_next` output is the state to pass with the timesteps that follow.

Opset 17, IR version 8, and `com.microsoft` version 1 where wide LSTM layers compute in int8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, singledispatch
from typing import Any

from ...runtime.network import (
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
    Recurrent,
    SimpleRNN,
)
from ...runtime.onnx_metadata import CHECKSUM_KEY, CHECKSUM_PLACEHOLDER, CHUNKS_KEY, seal
from ..calibration import Calibration
from ..products import LEAST_WEIGHTS, Product, products
from ..rounding import round_network
from .activations import activate
from .recurrent import expressible, product, quantizes_activations, sequence, step
from .writer import OnnxWriter, float_value

PRECISIONS = ("float32", "float16", "dynamic")

# Values of `onnx.TensorProto.DataType`.
_INT32, _BOOL = 6, 9


def onnx_step_graph(
    network: Network, precision: str, metadata: Mapping[str, str], calibration: Calibration | None = None
) -> bytes:
    """The network as an `.onnx` file; its interface stands at the top of this module.

    Args:
        network: what to write.
        precision: `float32`; `float16`, weights of half the size, computing in float32; or `dynamic`, weights in
            int8, computing in float32 except for wide LSTM layers behind the first product.
        metadata: pairs to store in the file.
        calibration: what `record` found of the network, with which the weights of `dynamic` are rounded better.

    Returns:
        The file, the same bytes for the same arguments.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no ONNX file in {precision}; there are {', '.join(PRECISIONS)}")
    if precision == "dynamic" and calibration is not None:
        network = round_network(network, int8_products(network), True, calibration)
    graph = OnnxWriter(precision)
    states = [spec.name for spec in network.states]
    following = [f"{name}_next" for name in states]
    if network.mask_value is None:
        y = _chain(graph, network, "x", states, following)
    else:
        y = _masked_chain(graph, network, network.mask_value, "x", states, following)
    # Layers that quantise their activations do so with one scale for a whole chunk.
    chunks = "stepwise" if precision == "dynamic" else "whole"
    shapes = [(1, "batch", spec.units) for spec in network.states]
    content = graph.to_bytes(
        network.name,
        {"x": ("time", "batch", network.features), **dict(zip(states, shapes, strict=True))},
        {"y": ("time", "batch", network.outputs), **dict(zip(following, shapes, strict=True))},
        y,
        {**metadata, CHECKSUM_KEY: CHECKSUM_PLACEHOLDER, CHUNKS_KEY: chunks},
    )
    return seal(content)


def _chain(graph: OnnxWriter, network: Network, x: str, states: Sequence[str], following: Sequence[str]) -> str:
    """Append all layers over a whole sequence: (time, batch, features) → (time, batch, outputs)."""
    for layer, raw, at in _placed(network):
        graph.layer = layer.name
        if isinstance(layer, (LSTM, GRU, SimpleRNN)):
            last, names = states[at], following[at]
            if expressible(layer):
                x = sequence(graph, layer, x, last, names, raw)
            else:
                x = _scan(graph, x, last, names, partial(_step_output, graph, layer, raw))
        else:
            x = _emit(layer, graph, x, raw)
    return x


def _step_output(
    graph: OnnxWriter, layer: Recurrent, raw: bool, x: str, states: Sequence[str]
) -> tuple[str, list[str]]:
    new = step(layer, graph, x, states, raw)
    return new[0], new


def _masked_chain(
    graph: OnnxWriter, network: Network, mask_value: float, x: str, states: Sequence[str], following: Sequence[str]
) -> str:
    """Append all layers as one `Scan`, since at each timestep other sequences of a batch may hold their states."""
    graph.layer = network.layers[0].name
    return _scan(graph, x, states, following, partial(_masked_step, graph, network, mask_value))


def _masked_step(
    graph: OnnxWriter, network: Network, mask_value: float, x: str, states: Sequence[str]
) -> tuple[str, list[str]]:
    masked = graph.op("Equal", x, graph.number(mask_value))
    # ONNX has no "all" over an axis of booleans; the least of their numbers is one.
    least = graph.op("ReduceMin", graph.op("Cast", masked, to=_INT32), axes=[-1], keepdims=1)
    hold = graph.op("Cast", least, to=_BOOL)
    x = graph.op("Where", hold, graph.number(0.0), x)
    new: list[str] = []
    for layer, raw, at in _placed(network):
        graph.layer = layer.name
        if isinstance(layer, (LSTM, GRU, SimpleRNN)):
            last = states[at]
            if expressible(layer):
                fresh = [graph.name(kind) for kind in layer.state_names]
                sequence(graph, layer, x, last, fresh, raw)
            else:
                fresh = step(layer, graph, x, last, raw)
            held = [graph.op("Where", hold, old, now) for old, now in zip(last, fresh, strict=True)]
            new.extend(held)
            x = held[0]
        elif not isinstance(layer, Masking):
            x = _emit(layer, graph, x, raw)
    return x, new


def _placed(network: Network) -> Iterator[tuple[Layer, bool, slice]]:
    """Each layer, whether its inputs have the scales of the model's own (no product has mixed them), its states."""
    raw, at = True, 0
    for layer in network.layers:
        end = at + (len(layer.state_names) if isinstance(layer, (LSTM, GRU, SimpleRNN)) else 0)
        yield layer, raw, slice(at, end)
        raw, at = raw and not isinstance(layer, (LSTM, GRU, SimpleRNN, Dense)), end


def int8_products(network: Network) -> Iterator[Product]:
    """What of each product will be int8 in a `dynamic` file: see `OnnxWriter.weight`."""
    for layer, raw, _ in _placed(network):
        whole = isinstance(layer, (LSTM, GRU, SimpleRNN)) and quantizes_activations("dynamic", layer, raw)
        for each in products(layer):
            # What ONNX's own operators take is one matrix for all gates; a GRU in single operators has two.
            split = isinstance(layer, GRU) and not layer.reset_after and not expressible(layer)
            sizes = {"x": 0 if raw else each.layer.kernel.size}
            if not isinstance(each.layer, Dense):
                h = each.only("h", "rh").weights.size if split else each.layer.recurrent_kernel.size
                sizes |= {"h": h, "rh": h}
            chosen = each.only(*(name for name, size in sizes.items() if whole or size >= LEAST_WEIGHTS))
            if chosen.inputs:
                yield chosen


def _scan(
    graph: OnnxWriter,
    x: str,
    states: Sequence[str],
    following: Sequence[str],
    body: Callable[[str, Sequence[str]], tuple[str, list[str]]],
) -> str:
    """Append a `Scan` of `body`, which gives the output and the next states of one timestep, over x's timesteps."""
    from onnx import helper

    layer = graph.layer
    # `Scan` takes the first axis away; a second one of 1 keeps a timestep a sequence, of length 1.
    steps = graph.op("Unsqueeze", x, graph.axis(1))
    x_t, last = graph.name("x_t"), [graph.name("state") for _ in states]
    with graph.body() as nodes:
        y_t, new = body(x_t, last)
        graph.layer = layer
        # A state is an output of the layer as well, but a value can leave a body only once.
        y_t = graph.op("Identity", y_t)
    inner = helper.make_graph(
        nodes,
        f"{layer}/step",
        [float_value(name, None) for name in (*last, x_t)],
        [float_value(name, None) for name in (*new, y_t)],
    )
    stacked = graph.name("steps")
    graph.ops("Scan", [*states, steps], [*following, stacked], body=inner, num_scan_inputs=1)
    return graph.op("Squeeze", stacked, graph.axis(1))


@singledispatch
def _emit(layer: Any, graph: OnnxWriter, x: str, raw: bool) -> str:
    """Append a layer without state: (time, batch, inputs) → (time, batch, outputs)."""
    raise NotImplementedError(type(layer).__name__)


@_emit.register
def _(layer: Dense, graph: OnnxWriter, x: str, raw: bool) -> str:
    return activate(graph, layer.activation, product(graph, x, "kernel", layer.kernel, layer.bias, raw))


@_emit.register
def _(layer: Affine, graph: OnnxWriter, x: str, raw: bool) -> str:
    # Always in full float32: a mean of 101325 has no float16.
    for kind, what, values, neutral in (
        ("Sub", "center", layer.center, 0),
        ("Mul", "scale", layer.scale, 1),
        ("Add", "offset", layer.offset, 0),
    ):
        if (values != neutral).any():
            x = graph.op(kind, x, graph.constant(what, values))
    return x


@_emit.register
def _(layer: LayerNormalization, graph: OnnxWriter, x: str, raw: bool) -> str:
    # onnxruntime takes the variance as E[x²] - E[x]², which loses it for values far from zero (at 1000: errors of
    # 1e-4, else 6e-7). The operator is exact on what has been centred before.
    centered = graph.op("Sub", x, graph.op("ReduceMean", x, axes=[-1], keepdims=1))
    gamma, beta = graph.constant("gamma", layer.gamma), graph.constant("beta", layer.beta)
    return graph.op("LayerNormalization", centered, gamma, beta, axis=-1, epsilon=layer.epsilon)


@_emit.register
def _(layer: Activation, graph: OnnxWriter, x: str, raw: bool) -> str:
    return activate(graph, layer.function, x)


@_emit.register
def _(layer: PReLU, graph: OnnxWriter, x: str, raw: bool) -> str:
    return graph.op("PRelu", x, graph.constant("slope", layer.slope))
