"""Keras models as networks: `read_keras`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime import network as net
from .call import Call, NotCarriedError
from .chain import chain_of
from .ends import check_ends, check_input
from .file import LoadedModel, load
from .layers import INERT, read_call
from .masking import check_masking
from .reference import KerasReference
from .timesteps import graph_of

if TYPE_CHECKING:
    import keras


def read_keras(source: str | Path | keras.Model, name: str | None = None) -> net.Network:
    """Read a Keras model as a network of single timesteps.

    Weights become float32 whatever the model's dtype policy, and the network's reference computes with Keras in
    float32 from the same weights.

    Args:
        source: a `.keras` or `.h5` file of Keras 2 or 3, or a `keras.Model`.
        name: what to call the network; by default the file's stem or the model's name.

    Returns:
        The network. Its `reference` takes (T, features) and gives Keras's outputs for every prefix, (T, outputs);
        its `window` is the fixed length of the model's input, if it has one.

    Raises:
        InputError: there is no such file, or it is damaged or not a Keras file.
        UnsupportedModelError: no state of the model can be carried exactly; the message names the layer and the
            remedy. Where that is a stream by window, `read_model` reads it.
    """
    return network_of(load(source), name)


def network_of(loaded: LoadedModel, name: str | None = None) -> net.Network:
    """A loaded Keras model as `read_keras` gives it."""
    graph = graph_of(loaded.model)
    check_ends(graph, f'model "{loaded.model.name}"')
    check_input(loaded.model)
    calls = _without_last_reshapes(chain_of(loaded.model))
    parts = [read_call(call) for call in calls]
    check_masking(calls, [not part for part in parts])
    _check_shared_states(calls)
    layers = _with_unique_names(layer for part in parts for layer in part)
    network = net.Network(
        name or loaded.name,
        layers,
        features=graph.inputs[0].shape[-1],
        return_sequences=bool(calls) and len(calls[-1].output_shape) == 3,
        window=None if any(getattr(c.layer, "stateful", False) for c in calls) else graph.inputs[0].shape[1],
    )
    if not network.recurrent_layers:
        raise NotCarriedError(
            f'model "{network.name}"',
            "it has no recurrent layer, so there is no state to carry",
            "train it with an LSTM, GRU or SimpleRNN layer",
        )
    return replace(network, reference=KerasReference(loaded.model, calls, network.mask_value))


def _without_last_reshapes(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    """The chain without layers at its end that give its last vector another shape: its numbers stay in their order."""
    kept = len(calls)
    while kept and (calls[kept - 1].kind in ("Reshape", "Flatten") or not _works(calls[kept - 1])):
        kept -= 1
    reshaped = [position for position in range(kept, len(calls)) if calls[position].kind in ("Reshape", "Flatten")]
    first = next((at for at in reshaped if len(calls[at].input_shape) == 2), None)
    return calls if first is None else calls[:first]


def _works(call: Call) -> bool:
    """Whether a layer does anything outside of training."""
    return call.kind not in INERT


def _check_shared_states(calls: Sequence[Call]) -> None:
    for position, call in enumerate(calls):
        earlier = [other.layer for other in calls[:position]]
        if getattr(call.layer, "stateful", False) and any(call.layer is layer for layer in earlier):
            raise call.refused(
                "is stateful and called twice, so that its second call begins with the state of its first",
                "build it with stateful=False",
            )


def _with_unique_names(layers: Iterable[net.Layer]) -> tuple[net.Layer, ...]:
    """Names that are identifiers and differ, since they name the states of exported graphs."""
    taken: set[str] = set()
    named: list[net.Layer] = []
    for layer in layers:
        base = re.sub(r"[^0-9A-Za-z_]", "_", layer.name) or "layer"
        base = f"_{base}" if base[0].isdigit() else base
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        named.append(replace(layer, name=name))
    return tuple(named)
