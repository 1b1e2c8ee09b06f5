"""Keras models that cannot be streamed (Bidirectional, say), exported as sequence graphs by others' converters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import UnsupportedModelError, reason_of
from ...runtime.golden import Golden
from ..conditioning import PROBABILITIES
from ..from_keras.ends import check_ends, check_input, graph_of
from ..from_keras.file import load
from ..from_keras.leading import leading_layers
from ..from_keras.reference import called
from ..golden_inputs import MASKED_FRACTION, SEED, raw_inputs, synthetic_inputs

STEPS, LENGTHS = 1024, (64, 32, 7, 1)


@dataclass(frozen=True, eq=False)
class UnstreamableModel:
    """A Keras model with one input (batch, time, features) and one output.

    Attributes:
        name: what it is called.
        model: the `keras.Model`.
        features: width of the input.
        outputs: width of the output.
        steps: timesteps of a sequence, where the model takes only so many.
    """

    name: str
    model: Any
    features: int
    outputs: int
    steps: int | None

    @classmethod
    def of(cls, source: Any, name: str | None = None) -> UnstreamableModel:
        """Load a Keras model from a path, or take one as it is.

        Raises:
            InputError: the file cannot be read.
            UnsupportedModelError: it does not have one input of rank 3, of floats, and one output of a known width.
        """
        loaded = load(source)
        model, called = loaded.model, name or loaded.name
        graph = graph_of(model)
        check_ends(graph, f'model "{model.name}"')
        check_input(model)
        shape, width = graph.inputs[0].shape, graph.outputs[0].shape[-1]
        if width is None:
            raise UnsupportedModelError(
                f"{called}: gives {tuple(graph.outputs[0].shape)}, and an exported graph gives a fixed number of "
                "outputs; build it with a fixed number of timesteps (Input((T, features)))"
            )
        return cls(called, model, int(shape[2]), int(width), shape[1])

    @property
    def layers(self) -> tuple[str, ...]:
        """One line per Keras layer, for people."""
        return tuple(f"{layer.name}: {type(layer).__name__}" for layer in self.model.layers)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.model.count_params())

    @property
    def probabilities(self) -> bool:
        """Whether the outputs come from a sigmoid or a softmax."""
        last = self.model.outputs[0]._keras_history.operation
        return getattr(getattr(last, "activation", None), "__name__", "") in PROBABILITIES or (
            type(last).__name__ == "Softmax"
        )

    def golden(self) -> Golden:
        """Sequences of several lengths (of the only one, where the model takes but one), and Keras's outputs.

        Raises:
            UnsupportedModelError: Keras itself cannot call the model, or its outputs are not finite.
        """
        from .converters import plain_model

        # A stateful model would start each sequence where the last one ended; a sequence graph starts from zero.
        model = plain_model(self.model)
        lengths = [self.steps] * max(STEPS // self.steps, 1) if self.steps else list(LENGTHS) * (STEPS // sum(LENGTHS))
        inputs = self._inputs(sum(lengths))
        starts = tuple(int(s) for s in np.cumsum([0, *lengths[:-1]]))
        # One graph for each length: step by step in Python, Keras takes longer than all else together. Call by call,
        # since a batch of sequences could hide what one does to the next.
        try:
            calls = {length: called(model, (length, self.features)) for length in set(lengths)}
            sequences = np.split(inputs, starts[1:])
            rows = [calls[len(sequence)](sequence[None]).reshape(-1, self.outputs) for sequence in sequences]
        except Exception as error:  # Keras raises whatever its layers raise.
            raise UnsupportedModelError(f"{self.name}: Keras itself cannot call it ({reason_of(error)})") from error
        outputs = np.concatenate(rows)
        if not np.isfinite(outputs).all():
            raise UnsupportedModelError(
                f"{self.name}: Keras itself gives outputs that are not finite; check its weights"
            )
        return Golden(inputs, outputs, starts)

    def _inputs(self, steps: int) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng(SEED)
        leading = leading_layers(self.model)
        if leading.ids is not None:
            return rng.integers(leading.ids, size=(steps, self.features)).astype(np.float32)
        made_up = synthetic_inputs(rng, steps, self.features)
        hidden = rng.random(steps) < MASKED_FRACTION
        return raw_inputs(leading.layers, made_up, hidden).astype(np.float32)

    def convert(self, format_: str) -> bytes:
        """The sequence graph: through tf2onnx, or TensorFlow's converter."""
        from .converters import keras_to_onnx_sequence, keras_to_tflite_sequence

        return keras_to_onnx_sequence(self.model) if format_ == "onnx" else keras_to_tflite_sequence(self.model)
