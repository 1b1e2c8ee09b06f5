"""Keras models that stream by window alone: whatever is in them, an answer is the whole model on the last T inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import InputError, UnsupportedModelError, reason_of
from ...runtime.manifest import MAX_WIDTH
from ...runtime.parity import compare
from ...runtime.streaming import MAX_TIMESTEPS, MOST_NUMBERS, WINDOW, Streaming, Whole, Window, whole
from ..calibration import as_sequences
from ..from_keras.call import NotCarriedError
from ..from_keras.ends import check_ends
from ..from_keras.file import LoadedModel
from ..from_keras.leading import Leading, leading_layers
from ..from_keras.reference import MIN_SNR_DB, with_dtype
from ..from_keras.timesteps import graph_of, nodes_of, timesteps_of
from ..golden_inputs import MASKED_FRACTION, SEED, drawn, raw_inputs, synthetic_inputs
from .tracing import call_model, plain_model
from .words import ModelInWords

Floats = npt.NDArray[np.floating[Any]]

# Windows per call of the model, and numbers of these.
_BATCH, _NUMBERS = 256, 2**24
# No float32 tells more whole numbers apart.
_MOST_IDS = 2**24
# Of made-up inputs, the first at which all of Keras's answers are finite.
STRENGTHS = (1.0, 0.25, 0.0625)


@dataclass(frozen=True, eq=False)
class WindowModel(ModelInWords):
    """A Keras model of one input with timesteps and one output, run on windows of so many timesteps.

    Attributes:
        name: what it is called.
        model: the `keras.Model`.
        timesteps: of a window: T.
        shape: of a timestep inside of the model: (features,), () of a single number, or that of a frame.
        answer: shape of an answer: (outputs,), or (rows, outputs) where Keras gives a sequence.
        because: why no state can be carried through it.
        leading: what the layers with which it begins say of its inputs.
    """

    timesteps: int
    shape: tuple[int, ...]
    answer: tuple[int, ...]
    because: str
    leading: Leading

    @classmethod
    def of(cls, loaded: LoadedModel, name: str | None, window: int | None, refused: NotCarriedError) -> WindowModel:
        """A Keras model that was loaded and whose state cannot be carried.

        Args:
            loaded: the model.
            name: what to call it; by default what it is called.
            window: timesteps of a window; by default the fixed number of its input.
            refused: why its state cannot be carried.

        Raises:
            NotCarriedError: how many timesteps a window has is open; `refused` says what to do.
            UnsupportedModelError: it has no timesteps, several inputs or outputs, or keeps a state between calls.
            InputError: its number of timesteps is another than `window`.
        """
        model, called = loaded.model, name or loaded.name
        graph = graph_of(model)
        check_ends(graph, f'model "{model.name}"')
        found = timesteps_of(graph)
        if found is None or "string" in graph.inputs[0].dtype:
            raise refused
        timesteps = found.count if window is None else whole("window", window)
        if timesteps is None:
            raise refused
        if found.count not in (None, timesteps) or not 1 <= timesteps <= MAX_TIMESTEPS:
            raise InputError(
                f"{called}: takes {found.count or 'any number of'} timesteps at a time, so its window cannot be of "
                f"{timesteps}"
            )
        _check_nodes(model, window is not None)
        answer = _answer(plain_model(model), timesteps, found.shape, called)
        for what, size, most in (
            ("numbers in a timestep", prod(found.shape), MAX_WIDTH),
            ("numbers in a row of an answer", answer[-1], MAX_WIDTH),
            ("numbers in a window", timesteps * prod(found.shape), MOST_NUMBERS),
            ("numbers in an answer", prod(answer), MOST_NUMBERS),
        ):
            if size > most:
                raise UnsupportedModelError(
                    f"{called}: has {size:,} {what}, and {most:,} is the most; build it smaller"
                )
        leading = leading_layers(model)
        if leading.ids is not None and leading.ids > _MOST_IDS:
            raise UnsupportedModelError(
                f"{called}: takes {leading.ids:,} ids, and float32 tells {_MOST_IDS:,} apart; give the model fewer"
            )
        return cls(called, model, timesteps, found.shape, answer, refused.because, leading)

    @property
    def features(self) -> int:
        """Numbers of a timestep: of a frame, all of it in one row."""
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        """Numbers of an answer's row."""
        return self.answer[-1]

    def streaming(self, carry: bool, hop: int | None) -> Streaming:
        """How it streams.

        Raises:
            InputError: its state was to be carried, or the hop is none.
        """
        if carry:
            raise InputError(f"{self.name}: its state cannot be carried, because of {self.because}; leave out --carry")
        how = Whole(self.because, self.answer[0] if len(self.answer) == 2 else None, self.leading.ids)
        chosen = Window(self.timesteps, 1 if hop is None else whole("hop", hop))  # Checks the hop.
        return Streaming(WINDOW, chosen.timesteps, chosen.hop, whole=how)

    def traced(self, model: Any) -> Callable[[Any], Any]:
        """A TensorFlow function of a batch of windows (N, T, features), which gives (N, outputs) or (N, rows, outputs).

        Args:
            model: this one, or one of the same layers.
        """
        import tensorflow as tf

        call = _on_windows(model, self.timesteps, self.shape)
        return lambda x: tf.reshape(call(x), (-1, *self.answer))

    def windows(self, xs: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Keras's answers to windows (N, T, features): (N, outputs), or (N, rows, outputs).

        It is the model as it is; in float32 and stateless, where it is not.

        Raises:
            UnsupportedModelError: Keras itself cannot call it.
        """
        return np.asarray(self._answers(np.asarray(xs, np.float32), self._called), np.float32)

    def in_float64(self, xs: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
        """The same by Keras in float64; None where Keras does not compute the model so."""
        import tensorflow as tf

        try:
            double = with_dtype(plain_model(self.model), "float64")
            call = self._called_as(double, tf.float64)
            return np.asarray(self._answers(np.asarray(xs, np.float64), call), np.float64)
        except Exception:  # Code of the model's own may hold on to float32.
            return None

    def calibration(self, data: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Sequences (N, T, features) from what the model itself takes, or from one sequence.

        Raises:
            InputError: data does not fit.
        """
        array = np.asarray(data)
        depth = len(self.shape)
        if depth > 1 and array.ndim > depth and array.shape[-depth:] == self.shape:
            array = array.reshape(*array.shape[:-depth], self.features)
        elif self.features == 1 and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] != 1)):
            array = array[..., None]
        sequences = as_sequences(array, self.features)
        ids = self.leading.ids
        if ids is not None and not ((sequences >= 0) & (sequences < ids) & (sequences == np.floor(sequences))).all():
            raise InputError(f"calibration data: holds others than the model's ids, the whole numbers 0 to {ids - 1}")
        return sequences

    def inputs(self, calibration: Floats | None, lengths: list[int], strength: float) -> npt.NDArray[np.float32]:
        """Inputs of sequences of these lengths, one behind the other: (sum of lengths, features).

        Args:
            calibration: (N, T, features); a run of it is drawn for each length. None: they are made up.
            lengths: of the sequences.
            strength: of made-up inputs.
        """
        rng = np.random.default_rng(SEED)
        steps = sum(lengths)
        hidden = rng.random(steps) < MASKED_FRACTION
        if calibration is not None:
            return drawn(rng, np.asarray(calibration, np.float32), lengths).astype(np.float32)
        if self.leading.ids is not None:
            ids = rng.integers(self.leading.ids, size=(steps, self.features))
            # 0 is what sequences are padded with, and what an Embedding may mask.
            return np.where(hidden[:, None], 0, ids).astype(np.float32)
        made_up = strength * synthetic_inputs(rng, steps, self.features)
        if len(self.shape) == 1:
            made_up = raw_inputs(self.leading.layers, made_up, hidden)
        if "float" not in graph_of(self.model).inputs[0].dtype:
            made_up = np.abs(np.rint(made_up))
        return made_up.astype(np.float32)

    @cached_property
    def _called(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        return self._called_as(plain_model(self.model), tf.float32)

    def _called_as(self, model: Any, dtype: Any) -> Callable[[Any], Any]:
        import tensorflow as tf

        # The number of timesteps is told: TimeDistributed of Keras 3.15 goes wrong where TensorFlow does not know it.
        spec = tf.TensorSpec((None, self.timesteps, self.features), dtype)
        return tf.function(self.traced(model), input_signature=[spec], autograph=False)

    def _answers(self, xs: Floats, call: Callable[[Any], Any]) -> Floats:
        batch = max(1, min(_BATCH, _NUMBERS // (self.timesteps * self.features)))
        try:
            found = np.concatenate([call(xs[i : i + batch]).numpy() for i in range(0, len(xs), batch)])
            alone = np.concatenate([call(xs[i : i + 1]).numpy() for i in {0, len(xs) - 1}])
        except Exception as error:  # Keras raises whatever its layers raise.
            raise UnsupportedModelError(f"{self.name}: Keras itself cannot call it ({reason_of(error)})") from error
        together = found[list({0, len(xs) - 1})]
        finite = np.isfinite(together).all()
        if finite and compare(together.reshape(1, -1), alone.reshape(1, -1)).snr_db < MIN_SNR_DB:
            raise UnsupportedModelError(
                f"{self.name}: Keras's answer to a window depends on what else is in its batch, so it has no answer of "
                "its own; leave out what mixes the sequences of a batch"
            )
        return found


def _on_windows(model: Any, timesteps: int, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """A TensorFlow function of a batch of windows, (N, T, features), which brings them into the model's own shape."""
    import tensorflow as tf

    given = graph_of(model).inputs[0]
    # A vector is one that the model itself makes a sequence.
    own = (timesteps * prod(shape),) if len(given.shape) == 2 else (timesteps, *shape)

    def call(x: Any) -> Any:
        windows = x if own == tuple(x.shape[1:]) else tf.reshape(x, (-1, *own))
        return call_model(model, windows if "float" in given.dtype else tf.cast(windows, given.dtype))

    return call


def _answer(model: Any, timesteps: int, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The shape of an answer to one window, as TensorFlow finds it: what Keras says of it may be wrong or open."""
    import tensorflow as tf

    spec = tf.TensorSpec((1, timesteps, prod(shape)), tf.float32)
    try:
        traced = tf.function(_on_windows(model, timesteps, shape), input_signature=[spec], autograph=False)
        found = traced.get_concrete_function().outputs[0].shape
        if not found.is_fully_defined():
            found = traced(tf.zeros(spec.shape)).shape
    except Exception as error:  # Keras raises whatever its layers raise.
        raise UnsupportedModelError(
            f"{name}: Keras itself cannot call it on {timesteps} timesteps ({reason_of(error)})"
        ) from error
    answer = tuple(found)[1:]
    if 0 in answer:
        raise UnsupportedModelError(f"{name}: gives {answer}, which is no number, for {timesteps} timesteps")
    return (prod(answer),) if len(answer) < 2 else (answer[0], prod(answer[1:]))


def _check_nodes(model: Any, chosen: bool) -> None:
    """Refuse what a window from zero state is not: random layers, and a state that goes on between calls."""
    import keras

    for node in nodes_of(graph_of(model)):
        layer = node.operation
        where = f'layer "{layer.name}" ({type(layer).__name__})'
        if node.arguments.kwargs.get("training"):
            raise UnsupportedModelError(
                f"{where}: is called with training=True, so its output is random; call it without `training`"
            )
        if getattr(layer, "stateful", False) and isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            if not chosen:
                raise UnsupportedModelError(
                    f"{where}: is stateful, and a window begins from zero state; build it with stateful=False, or say "
                    "that its windows are to begin so all the same (--window T)"
                )
        elif isinstance(layer, keras.Model):
            _check_nodes(layer, chosen)
