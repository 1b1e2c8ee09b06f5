"""What the layers with which a model begins say of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import UnsupportedModelError
from ...runtime.network import Layer
from .call import Call
from .layers import read_call
from .timesteps import graph_of, nodes_of

_PASSED_ON = ("Masking", "Normalization", "Rescaling", "BatchNormalization", "Dropout", "GaussianNoise")
_COUNTS = {"Embedding": "input_dim", "CategoryEncoding": "num_tokens"}


@dataclass(frozen=True)
class Leading:
    """What is known of a model's inputs.

    Attributes:
        layers: those through which its one input goes before anything mixes features or timesteps.
        ids: how many identifiers there are, where the inputs are 0, 1, …, ids - 1; else None.
    """

    layers: tuple[Layer, ...] = ()
    ids: int | None = None


def leading_layers(model: Any) -> Leading:
    """Follow a built model's one input until it branches or meets another layer than those that scale or mask."""
    graph = graph_of(model)
    return _followed(graph, graph.inputs[0])


def _followed(graph: Any, tensor: Any) -> Leading:
    import keras

    layers: list[Layer] = []
    while True:
        users = [
            (node.operation, node)
            for node in nodes_of(graph)
            if any(source is tensor for source in node.input_tensors)
            # A mask of a model that was read from a file is spelt out as any(input != mask_value).
            and type(node.operation).__name__ != "NotEqual"
        ]
        # Whatever else takes them, what an Embedding takes are ids.
        counts = [
            int(getattr(layer, _COUNTS[type(layer).__name__])) for layer, _ in users if type(layer).__name__ in _COUNTS
        ]
        if counts:
            return Leading(tuple(layers), min(counts))
        if len(users) != 1:
            return Leading(tuple(layers))
        ((operation, node),) = users
        if isinstance(operation, keras.Model):
            inner_graph = graph_of(operation)
            inner = _followed(inner_graph, inner_graph.inputs[0])
            return Leading((*layers, *inner.layers), inner.ids)
        if type(operation).__name__ not in _PASSED_ON:
            return Leading(tuple(layers))
        result = node.output_tensors[0]
        try:
            layers.extend(read_call(Call(operation, operation.name, tuple(tensor.shape), tuple(result.shape))))
        except UnsupportedModelError:  # Statistics of their own for each timestep, say.
            return Leading(tuple(layers))
        tensor = result
