"""A Keras model flattened into the ordered chain of its layers as they are called.

Nested models are opened and a layer that is called twice stands there twice. Whatever is not a chain is refused
here: branches, several inputs or outputs, states passed by hand, operations that are not layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import UnsupportedModelError

_NAME = re.compile(r"[A-Za-z0-9_.\\/>-]*")
SEQUENCE_HINT = "export it as a sequence graph instead (--graph sequence)"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a Keras layer.

    Attributes:
        layer: the `keras.layers.Layer`.
        path: its name, behind the names of the models it is nested in: `encoder/lstm_1`.
        input_shape: with the batch first, None where it is free.
        output_shape: likewise; of the first output where there are several.
    """

    layer: Any
    path: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]

    @property
    def kind(self) -> str:
        """Name of the layer's class."""
        return type(self.layer).__name__

    def refused(self, reason: str, remedy: str) -> UnsupportedModelError:
        """The error that refuses this layer, naming it."""
        return UnsupportedModelError(f'layer "{self.path}" ({self.kind}): {reason}; {remedy}')


def chain_of(model: Any, within: str = "") -> tuple[Call, ...]:
    """Flatten a built `keras.Model` into the chain of its layers, input layers left out.

    Args:
        model: a Sequential or functional model.
        within: path of the layer that holds it, with a slash at its end.

    Raises:
        UnsupportedModelError: the model is not a chain with one input and one output.
    """
    import keras

    graph = graph_of(model)
    where = f'model "{within}{model.name}"'
    _check_ends(graph, where)
    calls: list[Call] = []
    tensor = graph.outputs[0]
    while True:
        operation, index, position = tensor._keras_history
        node = operation._inbound_nodes[index]
        if node.is_input:
            break
        path = f"{within}{operation.name}"
        if not _NAME.fullmatch(operation.name):
            raise UnsupportedModelError(
                f'{where}: TensorFlow takes no name like "{operation.name}", only letters A to Z, digits, _ . > -; '
                "build the model with another name for it and copy the weights"
            )
        if not isinstance(operation, keras.layers.Layer):
            raise UnsupportedModelError(
                f'{where}: contains the operation "{operation.name}" ({type(operation).__name__}) outside of any '
                "layer, whose meaning for a single timestep is unknown; express it with a layer, "
                f"or {SEQUENCE_HINT}"
            )
        source = _single_input(node, graph, path, type(operation).__name__)
        call = Call(operation, path, tuple(source.shape), tuple(node.output_tensors[0].shape))
        if position != 0:
            raise call.refused(
                f"the model goes on from its output number {position}, a state",
                "use its first output, which is the same value as the state h of the last timestep",
            )
        calls[:0] = chain_of(operation, f"{path}/") if isinstance(operation, keras.Model) else [call]
        tensor = source
    return tuple(calls)


def check_input(model: Any) -> None:
    """Refuse a model whose input is not (batch, time, features) of floats.

    Raises:
        UnsupportedModelError: it is not.
    """
    tensor = graph_of(model).inputs[0]
    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[-1] is None:
        raise UnsupportedModelError(
            f'model "{model.name}": its input has the shape {shape}, but a stream needs (batch, time, features) with '
            "a fixed number of features; build the model on keras.Input((None, features))"
        )
    if "float" not in tensor.dtype:
        raise UnsupportedModelError(
            f'model "{model.name}": its input is {tensor.dtype}, but a stream takes float features; '
            "build the model on keras.Input((None, features), dtype='float32')"
        )


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


def _check_ends(graph: Any, where: str) -> None:
    if len(graph.inputs) != 1:
        names = ", ".join(tensor.name for tensor in graph.inputs)
        raise UnsupportedModelError(
            f"{where} has {len(graph.inputs)} inputs ({names}), but a stream has one; "
            "concatenate the features into one input, or split the model"
        )
    if len(graph.outputs) != 1:
        raise UnsupportedModelError(
            f"{where} has {len(graph.outputs)} outputs, but a stream has one (its states are kept by the runtime); "
            "pass keras.Model(model.inputs, model.outputs[0])"
        )


def _single_input(node: Any, graph: Any, path: str, kind: str) -> Any:
    """The one tensor a layer is called on."""

    def refused(reason: str, remedy: str) -> UnsupportedModelError:
        return UnsupportedModelError(f'layer "{path}" ({kind}): {reason}; {remedy}')

    arguments = node.arguments.kwargs
    if arguments.get("training"):
        raise refused("is called with training=True, so its output is random", "call it without `training`")
    if arguments.get("initial_state") is not None:
        raise refused(
            "is given an initial_state by the model; a stream starts from zeros",
            f"build the model without initial_state, or {SEQUENCE_HINT}",
        )
    mask = arguments.get("mask")
    tensors = [tensor for tensor in node.input_tensors if tensor is not mask]
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors)
        raise refused(
            f"joins {len(tensors)} tensors ({names}), but only a chain of layers can be streamed",
            f"remove the branch, or {SEQUENCE_HINT}",
        )
    if mask is not None and not _is_implicit_mask(mask, tensors[0], graph):
        raise refused(
            "is given a mask by hand",
            "put a Masking layer first in the model and leave the mask to Keras",
        )
    return tensors[0]


def _is_implicit_mask(mask: Any, tensor: Any, graph: Any) -> bool:
    """Whether a mask is the one Keras hands on from a Masking layer.

    A model just built has it on the tensor. In a model read from a file it is spelt out in the graph as
    any(input != mask_value).
    """
    import keras

    if mask is getattr(tensor, "_keras_mask", None):
        return True
    spelt: list[Any] = []
    for expected in ("Any", "NotEqual"):
        operation, index, _ = mask._keras_history
        if type(operation).__name__ != expected:
            return False
        spelt.append(operation)
        arguments = operation._inbound_nodes[index].arguments
        mask = arguments.args[0]
    values = [*arguments.args[1:], *arguments.kwargs.values()]
    return spelt[0].axis in (-1, [-1], (-1,)) and any(
        isinstance(layer, keras.layers.Masking)
        and values == [layer.mask_value]
        and any(mask is node.input_tensors[0] for node in layer._inbound_nodes)
        for layer in graph.operations
    )
