"""A Keras model flattened into the ordered chain of its layers as they are called.

Nested models are opened and a layer that is called twice stands there twice. Whatever is not a chain is refused
here: branches, several inputs or outputs, states passed by hand, operations that are not layers.
"""

from __future__ import annotations

import re
from typing import Any

from ...runtime.errors import UnsupportedModelError
from .call import Call, NotCarriedError
from .ends import check_ends, initial_state
from .refusals import REASONS, refusal
from .timesteps import graph_of

_NAME = re.compile(r"[A-Za-z0-9_.\\/>-]*")


def chain_of(model: Any, within: str = "") -> tuple[Call, ...]:
    """Flatten a built `keras.Model` into the chain of its layers, input layers left out.

    Args:
        model: a Sequential or functional model.
        within: path of the layer that holds it, with a slash at its end.

    Raises:
        UnsupportedModelError: the model is not a chain with one input and one output.
    """
    import keras

    where = f'model "{within}{model.name}"'
    try:
        graph = graph_of(model)
        check_ends(graph, where)
    except UnsupportedModelError as error:
        if not within:
            raise
        # What is within another can be as it likes, where that other is run as a whole.
        reason = str(error).removeprefix(f"{where}: ").removeprefix(f"{where} ").partition(";")[0]
        raise NotCarriedError(where, f"within another model, {reason}", "build its layers into that one") from error
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
            raise NotCarriedError(
                where,
                f'contains the operation "{operation.name}" ({type(operation).__name__}) outside of any layer, whose '
                "meaning for a single timestep is unknown",
                "express it with a layer",
            )
        first = node.input_tensors[0]
        call = Call(operation, path, tuple(first.shape), tuple(node.output_tensors[0].shape))
        source = _single_input(node, graph, call)
        if position != 0:
            raise _refused_state(call, position)
        calls[:0] = chain_of(operation, f"{path}/") if isinstance(operation, keras.Model) else [call]
        tensor = source
    return tuple(calls)


def _single_input(node: Any, graph: Any, call: Call) -> Any:
    """The one tensor a layer is called on."""
    arguments = node.arguments.kwargs
    if arguments.get("training"):
        raise call.refused("is called with training=True, so its output is random", "call it without `training`")
    if initial_state(node) is not None:
        raise call.not_carried("is given an initial_state by the model, and a stream starts from zeros")
    mask = arguments.get("mask")
    tensors = [tensor for tensor in node.input_tensors if tensor is not mask]
    if len(tensors) != 1:
        if call.kind in REASONS:
            raise refusal(call)
        names = " and ".join(f'"{tensor._keras_history.operation.name}"' for tensor in tensors)
        raise call.not_carried(
            f"joins the outputs of {names}, and the state of a chain of layers alone can be carried",
            "train it without the branch",
        )
    if mask is not None and not _is_implicit_mask(mask, tensors[0], graph):
        raise call.not_carried(
            "is given a mask by hand",
            "put a Masking layer first in the model and leave the mask to Keras",
        )
    return tensors[0]


def _refused_state(call: Call, position: int) -> NotCarriedError:
    """The error where a model goes on from a state that a recurrent layer gives."""
    reason = f"the model goes on from its output number {position}, a state"
    cells = getattr(getattr(call.layer, "cell", None), "cells", ())
    if position == 1 and not cells:
        same = "use its first output" if not call.layer.return_sequences else "set return_sequences=False"
        return call.not_carried(reason, f"{same}, which is the same value as the state h of the last timestep")
    return call.not_carried(reason)


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
