"""What the layers with which a model begins say of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import UnsupportedModelError
from ...runtime.network import Layer
from .chain import Call, graph_of
from .layers import read_call

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
    tensor = graph.inputs[0]
    layers: list[Layer] = []
    while True:
        users = [
            (operation, node)
            for operation in graph.operations
            for node in operation._inbound_nodes
            if any(source is tensor for source in node.input_tensors)
            # A mask of a model that was read from a file is spelt out as any(input != mask_value).
            and type(operation).__name__ != "NotEqual"
        ]
        if len(users) != 1:
            return Leading(tuple(layers))
        ((operation, node),) = users
        kind = type(operation).__name__
        if kind in _COUNTS:
            return Leading(tuple(layers), int(getattr(operation, _COUNTS[kind])))
        if kind not in _PASSED_ON:
            return Leading(tuple(layers))
        result = node.output_tensors[0]
        try:
            layers.extend(read_call(Call(operation, operation.name, tuple(tensor.shape), tuple(result.shape))))
        except UnsupportedModelError:  # Statistics of their own for each timestep, say.
            return Leading(tuple(layers))
        tensor = result
