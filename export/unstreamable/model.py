"""Keras models that cannot be streamed (Bidirectional, say), exported as sequence graphs by others' converters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.errors import UnsupportedModelError
from ...runtime.golden import Golden
from ..from_keras.file import load
from ..golden import SEED, synthetic_inputs

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
            UnsupportedModelError: it does not have one input of rank 3 and one output of a known width.
        """
        loaded = load(source)
        model, called = loaded.model, name or loaded.name
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise UnsupportedModelError(
                f"{called}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs; a sequence graph has one "
                "of each; export a keras.Model of one input and one output"
            )
        shape, result = model.inputs[0].shape, model.outputs[0].shape
        if len(shape) != 3 or shape[2] is None or result[-1] is None:
            raise UnsupportedModelError(
                f"{called}: takes {tuple(shape)} and gives {tuple(result)}; a sequence graph takes "
                "(batch, time, features) and needs the widths of both"
            )
        return cls(called, model, int(shape[2]), int(result[-1]), shape[1])

    @property
    def layers(self) -> tuple[str, ...]:
        """One line per Keras layer, for people."""
        return tuple(f"{layer.name}: {type(layer).__name__}" for layer in self.model.layers)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.model.count_params())

    def golden(self) -> Golden:
        """Sequences of several lengths (of the only one, where the model takes but one), and Keras's outputs.

        Raises:
            UnsupportedModelError: Keras's own outputs are not finite.
        """
        from .converters import plain_model

        # A stateful model would start each sequence where the last one ended; a sequence graph starts from zero.
        model = plain_model(self.model)
        lengths = [self.steps] * max(STEPS // self.steps, 1) if self.steps else list(LENGTHS) * (STEPS // sum(LENGTHS))
        inputs = synthetic_inputs(np.random.default_rng(SEED), sum(lengths), self.features).astype(np.float32)
        starts = tuple(int(s) for s in np.cumsum([0, *lengths[:-1]]))
        # Call by call: a batch of sequences could hide what one does to the next.
        rows = [
            np.asarray(model(sequence[None], training=False), np.float32).reshape(-1, self.outputs)
            for sequence in np.split(inputs, starts[1:])
        ]
        outputs = np.concatenate(rows)
        if not np.isfinite(outputs).all():
            raise UnsupportedModelError(f"{self.name}: Keras itself gives outputs that are not finite")
        return Golden(inputs, outputs, starts)

    def convert(self, format_: str) -> bytes:
        """The sequence graph: through tf2onnx, or TensorFlow's converter."""
        from .converters import keras_to_onnx_sequence, keras_to_tflite_sequence

        return keras_to_onnx_sequence(self.model) if format_ == "onnx" else keras_to_tflite_sequence(self.model)
