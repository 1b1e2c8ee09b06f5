"""TFLite files of a network: the step graph and the sequence graph, in every precision.

Step graph, signature `step`: inputs `x` (1, features) and each state by its name, such as `lstm_h` (1, units);
outputs `y` (1, outputs) and each next state as `lstm_h_next`. All of them are float32 in every precision. States start
as zeros and are fed back as they are.

Sequence graph, signature `sequence`: input `x` (1, T, features) for any T, output `y` (1, T, outputs), or
(1, outputs) where the Keras model answers only once per sequence. It keeps nothing between calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...runtime.network import Network
from ...runtime.tflite_metadata import CHECKSUM_PLACEHOLDER, METADATA_NAME, seal
from ..calibration import Calibration
from ..products import Product, is_integer, products
from ..rounding import round_network
from .float_step import FloatStep
from .integer_products import IntegerProducts
from .writer import GraphWriter, ModelWriter, Value

INTEGER_PRECISIONS = ("int8", "int16x8")


def tflite_step_graph(
    network: Network,
    precision: str,
    description: Mapping[str, Any],
    calibration: Calibration | None = None,
    legacy: bool = False,
    integer: Callable[[Product], bool] = is_integer,
) -> bytes:
    """The step graph as a `.tflite` file.

    Args:
        network: what to write.
        precision: one of the five.
        description: what to store in the file about it, as JSON; `edgelstm.runtime` shows it.
        calibration: what `record` found of the network. `int8` and `int16x8` need it if a matrix has 1,024 weights or
            more; the weights of `dynamic` are rounded better with it.
        legacy: keep the file loadable by tflite-runtime 2.14; only `dynamic` differs.
        integer: which matrix products have integer weights, in the precisions that have such.
    """
    model = ModelWriter()
    graph = model.graph("step")
    x = graph.tensor("x", (1, network.features))
    states = [graph.tensor(spec.name, (1, spec.units)) for spec in network.states]
    network = _rounded(network, precision, calibration, integer)
    y, following = network.lower(_step(graph, precision, calibration, legacy, integer), x, states)
    names = [spec.name for spec in network.states]
    model.signature(
        "step",
        graph,
        {"x": x, **dict(zip(names, states, strict=True))},
        {"y": y, **{f"{name}_next": value for name, value in zip(names, following, strict=True)}},
    )
    return _finish(model, description)


def _step(
    graph: GraphWriter,
    precision: str,
    calibration: Calibration | None,
    legacy: bool,
    integer: Callable[[Product], bool] = is_integer,
) -> FloatStep:
    if precision in INTEGER_PRECISIONS:
        return IntegerProducts(graph, precision, calibration, integer)
    return FloatStep(graph, precision, legacy, integer)


def _rounded(
    network: Network,
    precision: str,
    calibration: Calibration | None,
    integer: Callable[[Product], bool] = is_integer,
) -> Network:
    """For `dynamic`, the network with those weights that int8 will hold."""
    if precision != "dynamic" or calibration is None:
        return network
    large = [product for layer in network.layers for product in products(layer) if integer(product)]
    return round_network(network, large, False, calibration)


def tflite_sequence_graph(
    network: Network,
    description: Mapping[str, Any],
    precision: str = "float32",
    calibration: Calibration | None = None,
    legacy: bool = False,
) -> bytes:
    """The sequence graph as a `.tflite` file: a loop around the same operators as the step graph's.

    The arguments are those of `tflite_step_graph`.
    """
    model = ModelWriter()
    main, condition, body = (model.graph(name) for name in ("sequence", "condition", "body"))
    network = _rounded(network, precision, calibration)
    step = _step(body, precision, calibration, legacy)

    def carried(graph: GraphWriter) -> list[Value]:
        result = (-1, network.outputs) if network.return_sequences else (1, network.outputs)
        return [
            graph.tensor("t", (1,), np.int32),
            graph.tensor("x", (1, -1, network.features)),
            graph.tensor("y", result),
            *(graph.tensor(spec.name, (1, spec.units)) for spec in network.states),
        ]

    _condition(condition, carried(condition))
    _body(body, carried(body), network, step)
    x = main.tensor("x", (1, -1, network.features))
    steps = _length(main, x)
    if network.return_sequences:
        zeros = main.tensor("zeros", (-1, network.outputs))
        shape = main.tensor("shape", (2,), np.int32)
        width = main.constant("width", [network.outputs], np.int32)
        main.op("CONCATENATION", [steps, width], [shape], 1, "ConcatenationOptions", axis=0)
        main.op("FILL", [shape, main.constant("zero", np.float32(0))], [zeros], 1, "FillOptions")
    else:
        zeros = main.constant("zeros", np.zeros((1, network.outputs)))
    start = [main.constant(f"{spec.name}_zero", np.zeros((1, spec.units))) for spec in network.states]
    loop = [main.constant("start", [0], np.int32), x, zeros, *start]
    after = carried(main)
    options = {"condSubgraphIndex": condition.index, "bodySubgraphIndex": body.index}
    main.op("WHILE", loop, after, 1, "WhileOptions", **options)
    y = after[2]
    if network.return_sequences:
        y = main.tensor("result", (1, -1, network.outputs))
        main.op("EXPAND_DIMS", [after[2], main.constant("axis", [0], np.int32)], [y], 1, "ExpandDimsOptions")
    model.signature("sequence", main, {"x": x}, {"y": y})
    return _finish(model, description)


def _length(graph: GraphWriter, x: Value) -> Value:
    """The number of timesteps of x, shape (1,)."""
    shape, length = graph.tensor("x_shape", (3,), np.int32), graph.tensor("steps", (1,), np.int32)
    graph.op("SHAPE", [x], [shape], 1, "ShapeOptions", outType=graph.model.schema.TensorType.INT32)
    one = graph.constant("one", [1], np.int32)
    graph.op("SLICE", [shape, one, one], [length], 1, "SliceOptions")
    return length


def _condition(graph: GraphWriter, carried: list[Value]) -> None:
    more = graph.tensor("more", (1,), np.bool_)
    graph.op("LESS", [carried[0], _length(graph, carried[1])], [more], 1, "LessOptions")
    graph.set_interface(carried, [more])


def _body(graph: GraphWriter, carried: list[Value], network: Network, step: FloatStep) -> None:
    t, x, ys, *states = carried
    now = graph.tensor("x_t", (1, 1, network.features))
    graph.op("GATHER", [x, t], [now], 1, "GatherOptions", axis=1)
    flat = graph.tensor("x_now", (1, network.features))
    graph.op("RESHAPE", [now, graph.constant("flat", [1, network.features], np.int32)], [flat])
    y, following = network.lower(step, flat, states)
    if network.return_sequences:
        where = graph.tensor("where", (2,), np.int32)
        graph.op(
            "CONCATENATION",
            [t, graph.constant("column", [0], np.int32)],
            [where],
            1,
            "ConcatenationOptions",
            axis=0,
        )
        updated = graph.tensor("ys", ys.shape)
        graph.op("DYNAMIC_UPDATE_SLICE", [ys, y, where], [updated], 1)
        y = updated
    after = graph.tensor("t_next", (1,), np.int32)
    one = graph.constant("one", [1], np.int32)
    graph.op("ADD", [t, one], [after], 1, "AddOptions")
    # Every loop output needs a tensor of its own, where the last layer's state is also the answer.
    outputs = [after, x, y, *following]
    for position, value in enumerate(outputs):
        if position > 2 and value.index == y.index:
            copy = graph.tensor("copy", value.shape)
            graph.op("RESHAPE", [value, graph.constant("same", list(value.shape), np.int32)], [copy])
            outputs[position] = copy
    graph.set_interface(carried, outputs)


def _finish(model: ModelWriter, description: Mapping[str, Any]) -> bytes:
    text = json.dumps({"crc32": CHECKSUM_PLACEHOLDER.decode(), **description})
    model.metadata(METADATA_NAME, text.encode())
    return seal(model.to_bytes())
