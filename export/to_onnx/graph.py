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

from collections.abc import Iterator, Mapping, Sequence

from ...runtime.network import Network
from ...runtime.onnx_metadata import CHECKSUM_KEY, CHECKSUM_PLACEHOLDER, CHUNKS_KEY, seal
from ..calibration import Calibration
from ..products import LEAST_WEIGHTS, Product, products
from ..rounding import round_network
from .ops import OnnxOps
from .recurrent import expressible, quantizes_activations
from .writer import OnnxWriter

PRECISIONS = ("float32", "float16", "dynamic")


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
    ops = OnnxOps(graph)
    states = [spec.name for spec in network.states]
    following = [f"{name}_next" for name in states]
    if network.mask_value is None:
        y, _ = network.lower(ops, "x", states)
    else:
        # One `Scan` of all layers: at each timestep other sequences of a batch may hold their states.
        graph.layer = network.layers[0].name
        y = ops.scan("x", states, following, lambda x, last: network.lower(ops, x, last))
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


def int8_products(network: Network) -> Iterator[Product]:
    """What of each product will be int8 in a `dynamic` file: see `OnnxWriter.weight`."""
    raw = True
    for layer in network.layers:
        some = products(layer)
        whole = quantizes_activations("dynamic", layer, raw)
        for each in some:
            sizes = [positions.size for positions in each.positions]
            if expressible(layer):  # ONNX's own operator takes one matrix of the input and one of the state.
                sizes = [sum(_sizes(some, of_state)) for of_state in each.of_state]
            kept = [of_state or not raw for of_state in each.of_state]
            chosen = [whole or (keep and size >= LEAST_WEIGHTS) for keep, size in zip(kept, sizes, strict=True)]
            if any(chosen):
                yield each.only(chosen)
        raw = raw and not some


def _sizes(some: Sequence[Product], of_state: bool) -> list[int]:
    """Numbers of weights of those parts of products that multiply a state, or of the others."""
    parts = [part for each in some for part in zip(each.positions, each.of_state, strict=True)]
    return [positions.size for positions, is_state in parts if is_state == of_state]
