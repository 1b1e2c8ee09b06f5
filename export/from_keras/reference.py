"""Keras itself as the reference: a model's output on every prefix of a sequence, computed by Keras's own layers.

Calling the model on every prefix would cost the square of the length. Instead the chain of layers is walked once,
with every recurrent layer's cell in a `keras.layers.RNN` that gives its whole sequence and its last state. Before the
first answer, that walk is checked against the model itself, called as it is on a few prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import InputError, UnsupportedModelError, reason_of
from ...runtime.network import check_width
from ...runtime.parity import compare
from .call import Call, NotCarriedError
from .functions import keras2_functions
from .masking import RECURRENT
from .timesteps import graph_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Floats = npt.NDArray[np.float32]

CHUNK = 2048  # Timesteps per call of the graph, which bounds the memory it takes.
CHECKED_LENGTHS = (1, 2, 5, 13)
GRAPH_FROM = 64
BATCH = 256  # Windows per call of the model.
MIN_SNR_DB = 80.0  # Of one walk of Keras against another: only the order of float32 sums differs.


class KerasReference:
    """Callable: (T, features) float32 → Keras's outputs on every prefix, (T, outputs) float32.

    Attributes:
        model: the `keras.Model`.
    """

    def __init__(self, model: Any, calls: Sequence[Call], mask_value: float | None) -> None:
        self.model = model
        self._calls = calls
        self._mask_value = mask_value
        self._walk: _Walk | None = None
        self._whole: dict[int, Callable[[Floats], Floats]] = {}

    def __call__(self, xs: npt.ArrayLike) -> Floats:
        """Keras's outputs on every prefix of a sequence.

        Args:
            xs: (T, features), T ≥ 1.

        Raises:
            InputError: `xs` has another shape.
            UnsupportedModelError: on the first call, if the walk over the layers does not give what the whole model
                gives.
        """
        array = np.asarray(xs, np.float32)
        features = graph_of(self.model).inputs[0].shape[-1]
        check_width(array, features, "reference")
        if array.ndim != 2 or len(array) == 0:
            raise InputError(f"reference: expected a sequence (T, {features}), got an array of shape {array.shape}")
        if self._walk is None:
            try:
                walk = _Walk(self._calls, features, self._mask_value)
                _check_against_model(self.model, walk, array, self._mask_value)
            except UnsupportedModelError:
                raise
            except Exception as error:  # Whatever TensorFlow raises of a layer that looks at more than one timestep.
                reason = reason_of(error)
                raise NotCarriedError(
                    f'model "{self.model.name}"',
                    f"its layers cannot be called one after the other ({reason})",
                    "please report it with the model's summary",
                ) from error
            self._walk = walk
        return self._walk.run(array)

    def windows(self, xs: npt.ArrayLike) -> Floats:
        """Keras's outputs on sequences of one length, each from zero state: the last one, where there are many.

        The whole model is called as it is, on batches, where it takes such batches.

        Args:
            xs: (N, T, features).

        Returns:
            (N, outputs).

        Raises:
            UnsupportedModelError: as the call of a single sequence does.
        """
        array = np.asarray(xs, np.float32)
        batch, steps, _ = graph_of(self.model).inputs[0].shape
        if batch is not None or steps not in (None, array.shape[1]) or _variables(self.model):
            return np.stack([self(sequence)[-1] for sequence in array])
        call = self._whole.get(array.shape[1])
        if call is None:
            whole = self.model if _is_float32(self.model) else with_dtype(self.model, "float32")
            call = self._whole[array.shape[1]] = called(whole, array.shape[1:])
        answers = [call(array[i : i + BATCH]) for i in range(0, len(array), BATCH)]
        # A Reshape at the end of the model gives its last vector another shape: no sequence, but its numbers in order.
        sequences = bool(self._calls) and len(self._calls[-1].output_shape) == 3
        return np.concatenate([y[:, -1] if sequences else y.reshape(len(y), -1) for y in answers])


class _Walk:
    """The chain of layers in one TensorFlow graph, run over a sequence piece by piece."""

    def __init__(self, calls: Sequence[Call], features: int, mask_value: float | None) -> None:
        import keras
        import tensorflow as tf

        self._mask_value = mask_value
        twins = [_twin(call) for call in calls]
        rnns = [twin for call, twin in zip(calls, twins, strict=True) if call.kind in RECURRENT]
        structure = [rnn.get_initial_state(1) for rnn in rnns]
        self._zeros = keras.tree.flatten(structure)

        def piece(x: Any, *flat_states: Any) -> tuple[Any, list[Any]]:
            with tf.name_scope("reference"):  # Within another, a layer's name may begin with an underscore.
                return chain(x, flat_states)

        def chain(x: Any, flat_states: Sequence[Any]) -> tuple[Any, list[Any]]:
            """(1, T, features) and the states → (T, outputs) and the next states."""
            states = iter(keras.tree.pack_sequence_as(structure, list(flat_states)))
            following: list[Any] = []
            for call, twin in zip(calls, twins, strict=True):
                if call.kind not in RECURRENT:
                    # Every timestep is a sequence of its own, and one of a batch for the layers behind.
                    x = x[0] if call.is_only_timestep else _apply(twin, x)
                    continue
                # Given an initial state, Keras does not look for the mask of the input by itself.
                mask = getattr(x, "_keras_mask", None)
                x, *new = twin(x, initial_state=next(states), mask=mask, training=False)
                following.extend(keras.tree.flatten(new))
                if not call.layer.return_sequences:
                    x = x[0]  # The layers behind take (batch, units): every timestep is one of a batch.
            return (x[0] if len(x.shape) == 3 else x), following

        specs = [
            tf.TensorSpec((1, None, features), tf.float32),
            *(tf.TensorSpec(z.shape, z.dtype) for z in self._zeros),
        ]
        self._piece = tf.function(piece, autograph=False).get_concrete_function(*specs)

    def run(self, xs: Floats) -> Floats:
        import tensorflow as tf

        states = self._zeros
        outputs: list[Any] = []
        start = 0
        while start < len(xs):
            stop = self._end_of_piece(xs, start)
            y, states = self._piece(tf.constant(xs[None, start:stop]), *states)
            outputs.append(y.numpy())
            start = stop
        return np.concatenate(outputs)

    def _end_of_piece(self, xs: Floats, start: int) -> int:
        stop = min(start + CHUNK, len(xs))
        # Keras repeats the last output for a masked timestep, but gives zeros where a piece begins with one.
        while self._mask_value is not None and stop < len(xs) and (xs[stop] == np.float32(self._mask_value)).all():
            stop += 1
        return stop


def _apply(layer: Any, x: Any) -> Any:
    import keras

    if not isinstance(layer, keras.layers.TimeDistributed):
        return layer(x, training=False) if layer._call_has_training_arg else layer(x)
    # Where the length is not known to TensorFlow, TimeDistributed of Keras 3.15 gives as many timesteps as there are
    # sequences in the batch. Every timestep as one of a batch is what it means.
    y = _apply(layer.layer, x[0])[None]
    mask = getattr(x, "_keras_mask", None)
    if mask is not None:
        y._keras_mask = mask
    return y


def _twin(call: Call) -> Any:
    """The layer itself, or its like in float32; of a recurrent layer, its cell in an RNN that gives everything."""
    import keras

    layer = call.layer
    if call.kind in RECURRENT:
        cell = _float32_cell(layer.cell)
        rnn = keras.layers.RNN(
            cell,
            return_sequences=True,
            return_state=True,
            name=layer.name,
            dtype="float32",
        )
        rnn.build((1, None, call.input_shape[-1]))
        rnn.set_weights(layer.get_weights())
        return rnn
    if _is_float32(layer):
        return layer
    with keras2_functions():
        twin = type(layer).from_config(float32_config(layer.get_config()))
    twin.build(call.input_shape)
    copy_weights(layer, twin)
    return twin


def _float32_cell(cell: Any) -> Any:
    import keras

    if isinstance(cell, keras.layers.StackedRNNCells):
        return keras.layers.StackedRNNCells([_float32_cell(part) for part in cell.cells], dtype="float32")
    settings = {"activation": cell.activation, "use_bias": cell.use_bias, "dtype": "float32"}
    if not isinstance(cell, keras.layers.SimpleRNNCell):
        settings["recurrent_activation"] = cell.recurrent_activation
    if isinstance(cell, keras.layers.GRUCell):
        settings["reset_after"] = cell.reset_after
    return type(cell)(cell.units, **settings)


def _is_float32(layer: Any) -> bool:
    return all(part.compute_dtype == part.variable_dtype == "float32" for part in layer._flatten_layers())


def float32_config(config: Any, dtype: str = "float32") -> Any:
    """A layer's or model's configuration with every dtype policy in it set to float32, or to another one."""
    if isinstance(config, dict):
        return {key: dtype if key == "dtype" else float32_config(value, dtype) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(float32_config(value, dtype) for value in config)
    return config


def copy_weights(source: Any, target: Any) -> None:
    """Copy weights, those of Normalization included, which keeps them in another form too."""
    target.set_weights(source.get_weights())
    for layer in target._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _check_against_model(model: Any, walk: _Walk, xs: Floats, mask_value: float | None) -> None:
    """Raise `UnsupportedModelError` unless the walk gives what the whole model gives on a few prefixes."""
    batch, steps, _ = graph_of(model).inputs[0].shape
    lengths = (steps,) if steps is not None else CHECKED_LENGTHS
    x = np.resize(xs, (max(lengths), xs.shape[1]))
    if mask_value is not None:
        x[[0, *range(3, len(x), 4)]] = mask_value
    try:
        whole = model if _is_float32(model) else with_dtype(model, "float32")
        expected = [_call(whole, np.repeat(x[None, :length], batch or 1, axis=0)) for length in lengths]
    except Exception as error:
        reason = reason_of(error)
        raise UnsupportedModelError(f'model "{model.name}": Keras itself cannot call it ({reason})') from error
    ours = walk.run(x)
    # A Reshape at the end of the model is left out of the walk.
    expected = [y.reshape(-1, ours.shape[1]) for y in expected]
    found = [ours[n - len(y) : n] for n, y in zip(lengths, expected, strict=True)]
    want = np.concatenate(expected)
    if not np.isfinite(want).all():
        raise UnsupportedModelError(
            f'model "{model.name}": Keras itself gives outputs that are not finite; check its weights and the inputs'
        )
    parity = compare(np.concatenate(found), want)
    if parity.snr_db < MIN_SNR_DB:
        raise NotCarriedError(
            f'model "{model.name}"',
            "its layers one after the other do not give what the whole model gives (signal-to-noise ratio "
            f"{parity.snr_db:.0f} dB), so something in it is not understood",
            "please report it with the model's summary",
        )


def with_dtype(model: Any, dtype: str) -> Any:
    """A model of the same layers and weights that computes in another dtype."""
    with keras2_functions():
        clone = type(model).from_config(float32_config(model.get_config(), dtype))
    copy_weights(model, clone)
    return clone


def _call(model: Any, x: Floats) -> Floats:
    """The whole model called once on a batch of equal sequences, from zero state: one's outputs."""
    import keras
    import tensorflow as tf

    inputs = keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, [tf.constant(x)])
    # Step by step in Python, a long sequence takes longer than its graph takes to build.
    call = tf.function(model, autograph=False) if x.shape[1] > GRAPH_FROM else model
    with _zero_states(model):
        (output,) = keras.tree.flatten(call(inputs, training=False))
    return np.asarray(output, np.float32)[0]


def called(model: Any, shape: tuple[int, ...]) -> Callable[[Floats], Floats]:
    """The whole model as a function of a batch of sequences of this shape (T, features), as one graph.

    The length is told, because TimeDistributed of Keras 3.15 goes wrong where TensorFlow does not know it.
    """
    import keras
    import tensorflow as tf

    def call(x: Any) -> Any:
        inputs = keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, [x])
        return keras.tree.flatten(model(inputs, training=False))[0]

    traced = tf.function(call, input_signature=[tf.TensorSpec((None, *shape), tf.float32)], autograph=False)
    return lambda x: np.asarray(traced(tf.constant(x)), np.float32)


def _variables(model: Any) -> list[Any]:
    """The states of stateful layers."""
    import keras

    return [
        variable
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and layer.states is not None
        for variable in keras.tree.flatten(layer.states)
    ]


@contextmanager
def _zero_states(model: Any) -> Iterator[None]:
    """Zero the states of stateful layers for a while, and put them back."""
    variables = _variables(model)
    kept = [variable.numpy() for variable in variables]
    for variable in variables:
        variable.assign(np.zeros(variable.shape))
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
