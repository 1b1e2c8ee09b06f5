"""What is said of a Keras model that is exported as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..conditioning import PROBABILITIES


@dataclass(frozen=True, eq=False)
class ModelInWords:
    """A Keras model and what its manifest says of it."""

    name: str
    model: Any

    @property
    def layers(self) -> tuple[str, ...]:
        """One line per Keras layer, for people."""
        layers = [layer for layer in self.model.layers if type(layer).__name__ != "InputLayer"]
        return tuple(f"{layer.name}: {_kind(layer)}" for layer in layers)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.model.count_params())

    @property
    def probabilities(self) -> bool:
        """Whether the outputs come from a sigmoid or a softmax."""
        last = self.model.outputs[0]._keras_history.operation
        if type(last).__name__ == "TimeDistributed":
            last = last.layer
        activation = getattr(getattr(last, "activation", None), "__name__", "")
        return activation in PROBABILITIES or type(last).__name__ == "Softmax"


def _kind(layer: Any) -> str:
    kind = type(layer).__name__
    if kind in ("Bidirectional", "TimeDistributed"):
        inner = getattr(layer, "forward_layer", None) or layer.layer
        kind += f" of {_kind(inner)}"
    widths = [
        str(tensor.shape[-1])
        for node in layer._inbound_nodes[:1]
        for tensor in (node.input_tensors[:1] + node.output_tensors[:1])
    ]
    return f"{kind} {' → '.join(widths)}" if len(widths) == 2 else kind
