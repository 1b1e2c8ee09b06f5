"""What enters and leaves a model: one sequence of float features, one answer, and no states."""

from __future__ import annotations

from typing import Any

from ...runtime.errors import UnsupportedModelError
from .call import NotCarriedError
from .refusals import REASONS, reason_and_remedy, refusal
from .timesteps import first_call, graph_of, nodes_of, timesteps_of


def check_ends(graph: Any, where: str) -> None:
    """Refuse a graph with several inputs or outputs, and say what to do with these very ones.

    Args:
        graph: of a model.
        where: what to call the model.

    Raises:
        UnsupportedModelError: it has several.
    """
    given = [tensor for node in nodes_of(graph) for tensor in _tensors(initial_state(node))]
    states = [tensor for tensor in graph.inputs if any(tensor is other for other in given)]
    if len(graph.inputs) > 1 and states:
        owners = "layer " + _listed(
            {node.operation.name for node in nodes_of(graph) if initial_state(node) is not None}
        )
        next_ones = [t for t in graph.outputs if _is_state(t)]
        also = f" and its outputs number {_numbers(graph.outputs, next_ones)} the next ones" if next_ones else ""
        raise UnsupportedModelError(
            f"{where}: its inputs {_listed(tensor.name for tensor in states)} are the states of {owners}{also}; build "
            "it without initial_state and without the states among its outputs: the runtime keeps the state, from "
            "zeros on"
        )
    if len(graph.inputs) != 1:
        names = _listed(tensor.name for tensor in graph.inputs)
        raise UnsupportedModelError(
            f"{where} has {len(graph.inputs)} inputs ({names}), but a stream has one; {_join(graph)}"
        )
    if len(graph.outputs) != 1:
        states = [tensor for tensor in graph.outputs if _is_state(tensor)]
        heads = [tensor for tensor in graph.outputs if not _is_state(tensor)]
        if states and len(heads) == 1:
            raise UnsupportedModelError(
                f"{where}: its outputs number {_numbers(graph.outputs, states)} are states, which the runtime keeps; "
                f"pass keras.Model(model.inputs, model.outputs[{_numbers(graph.outputs, heads)}])"
            )
        names = _listed(tensor._keras_history.operation.name for tensor in graph.outputs)
        raise UnsupportedModelError(
            f"{where} has {len(graph.outputs)} outputs ({names}), but a stream has one; export each as a model of its "
            "own, of the same weights: keras.Model(model.inputs, model.outputs[0]), and so on"
        )


def check_input(model: Any) -> None:
    """Refuse a model whose input is not (batch, time, features) of floats.

    Raises:
        NotCarriedError: it is not, but has timesteps all the same.
        UnsupportedModelError: it has none.
    """
    graph = graph_of(model)
    tensor = graph.inputs[0]
    shape = tuple(tensor.shape)
    where = f'model "{model.name}"'
    call = first_call(graph)
    if call is not None and call.kind == "Embedding":
        width = call.output_shape[-1]
        raise call.not_carried(
            "takes whole numbers (tokens), and a step takes float features",
            f"build the layers behind it on keras.Input((None, {width})), copy their weights, and give the stream the "
            "rows of its `embeddings`",
        )
    if len(shape) == 2 and call is not None and call.kind == "Reshape" and len(call.output_shape) == 3:
        raise call.not_carried(
            f"makes a sequence of an input of {shape[1]} numbers, and a step takes one timestep after the other",
            f"build the model on keras.Input({call.output_shape[1:]}) without this layer, and copy the weights",
        )
    has_timesteps = timesteps_of(graph) is not None
    if len(shape) != 3 and call is not None and call.kind in REASONS:
        raise refusal(call) if has_timesteps else call.refused(*reason_and_remedy(call))
    if len(shape) > 3 and has_timesteps:
        raise NotCarriedError(
            where,
            f"its input has the shape {shape}, so a timestep of it is no vector of features, which a step takes",
            "make the layers that turn it into one a model of their own, and build those behind them on "
            "keras.Input((None, features))",
        )
    if len(shape) == 2 and has_timesteps:
        raise NotCarriedError(
            where,
            f"its input is one vector of {shape[1] or 'all'} timesteps, and a step takes one after the other",
            f"build the model on keras.Input(({shape[1]}, 1))",
        )
    if len(shape) != 3 or shape[-1] is None:
        raise UnsupportedModelError(
            f"{where}: its input has the shape {shape}, but a stream needs (batch, time, features) with a fixed number "
            "of features; build the model on keras.Input((None, features))"
        )
    if "float" not in tensor.dtype:
        raise NotCarriedError(
            where,
            f"its input is {tensor.dtype}, and a step takes float features",
            f"build the model on keras.Input({shape[1:]}, dtype='float32') and copy the weights",
        )


def initial_state(node: Any) -> Any:
    """What a recurrent layer is given as its first state; None where it begins with zeros."""
    import keras

    if not isinstance(node.operation, (keras.layers.RNN, keras.layers.Bidirectional)):
        return None
    arguments = node.arguments
    given = arguments.kwargs.get("initial_state")
    if given is None and len(arguments.args) > 1:
        given = arguments.args[1]
    sequence = arguments.args[0] if arguments.args else None
    if given is None and isinstance(sequence, (list, tuple)) and len(sequence) > 1:
        given = sequence[1:]  # The old way to give states.
    return given


def _tensors(structure: Any) -> list[Any]:
    import keras

    return [] if structure is None else keras.tree.flatten(structure)


def _is_state(tensor: Any) -> bool:
    import keras

    operation, _, position = tensor._keras_history
    return position > 0 and isinstance(operation, (keras.layers.RNN, keras.layers.Bidirectional))


def _join(graph: Any) -> str:
    """What to do about several inputs: one, where they are put side by side at once; else a model for each part."""
    import keras

    takers = [node for node in nodes_of(graph) if any(t is i for t in node.input_tensors for i in graph.inputs)]
    if len(takers) == 1 and isinstance(takers[0].operation, keras.layers.Concatenate):
        shape = tuple(takers[0].output_tensors[0].shape)
        if len(shape) == 3 and takers[0].operation.axis in (-1, 2):
            return (
                f'build it on one keras.Input({shape[1:]}) in place of layer "{takers[0].operation.name}", and copy '
                "the weights"
            )
    return (
        "export the part behind each as a model of its own, keras.Model(input, output of the part's last layer), and "
        "join their answers outside"
    )


def _numbers(tensors: Any, chosen: list[Any]) -> str:
    return ", ".join(str(at) for at, tensor in enumerate(tensors) if any(tensor is c for c in chosen))


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)
