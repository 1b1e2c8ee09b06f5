"""The functional graph of a model, and what of its input is time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import UnsupportedModelError
from .call import Call

# What leaves a vector a vector, so that the layer behind decides whether it is one of timesteps.
_VECTORS = ("Normalization", "Rescaling", "BatchNormalization", "Dropout", "GaussianNoise", "Identity", "Activation")


def graph_of(model: Any) -> Any:
    """The functional graph of a Sequential or functional model.

    Raises:
        UnsupportedModelError: the model has none: it is subclassed, or not built yet.
    """
    import keras
    from keras.src.models.functional import Functional

    if type(model).call not in (keras.Sequential.call, Functional.call):
        raise UnsupportedModelError(
            f'model "{model.name}" ({type(model).__name__}): its call() is written in Python, which cannot be read '
            "layer by layer; build the same layers with keras.Sequential or keras.Model(inputs, outputs) and copy "
            "the weights"
        )
    graph = model._functional if isinstance(model, keras.Sequential) else model
    if graph is None:
        raise UnsupportedModelError(
            f'model "{model.name}" has not been built, so it has no weights yet; give its first layer an input shape, '
            "train it, or load its weights"
        )
    return graph


def nodes_of(graph: Any) -> Iterator[Any]:
    """The calls of a graph's operations."""
    for nodes in graph._nodes_by_depth.values():
        yield from nodes


def first_call(graph: Any) -> Call | None:
    """The call of the layer that takes the input; of a nested model, that of the layer in it."""
    import keras

    for node in nodes_of(graph):
        if any(tensor is graph.inputs[0] for tensor in node.input_tensors):
            if isinstance(node.operation, keras.Model):
                return first_call(graph_of(node.operation))
            if isinstance(node.operation, keras.layers.Layer):
                shapes = tuple(graph.inputs[0].shape), tuple(node.output_tensors[0].shape)
                return Call(node.operation, node.operation.name, *shapes)
    return None


@dataclass(frozen=True)
class Timesteps:
    """What of a model's one input is time.

    Attributes:
        count: timesteps; None where their number is open.
        shape: of one: (features,), () where it is a single number, or that of a frame.
    """

    count: int | None
    shape: tuple[int, ...]


def timesteps_of(graph: Any) -> Timesteps | None:
    """The timesteps of a graph's input, or None where it has none, or the size of one is open.

    The axis behind the batch is time. A vector is one of timesteps where the first layer that does not work on it
    element by element makes a sequence of it: an Embedding, say, or a Reshape.
    """
    tensor = graph.inputs[0]
    shape = tuple(tensor.shape)
    if len(shape) == 2:
        return _of_vector(graph, tensor)
    found = Timesteps(shape[1], shape[2:]) if len(shape) > 2 else None
    return None if found is None or None in found.shape else found


def _of_vector(graph: Any, tensor: Any) -> Timesteps | None:
    import keras

    for node in nodes_of(graph):
        operation = node.operation
        if not any(source is tensor for source in node.input_tensors):
            continue
        if isinstance(operation, keras.Model):
            found = timesteps_of(graph_of(operation))
        else:
            result, kind = node.output_tensors[0], type(operation).__name__
            made = tuple(result.shape)
            if len(made) == 2 and kind in _VECTORS:
                found = _of_vector(graph, result)
            elif len(made) < 3 or kind == "RepeatVector":
                found = None
            elif kind == "Reshape":  # The numbers of a window in their order.
                found = Timesteps(made[1], made[2:])
            else:
                found = Timesteps(made[1], ()) if made[1] == tensor.shape[1] else None
        if found is not None and None not in found.shape:
            return found
    return None
