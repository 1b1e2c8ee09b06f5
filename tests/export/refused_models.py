"""Models that cannot be streamed: what the error must say, and its remedies, carried out.

`REFUSED` maps names to cases. A remedy that keeps the weights is a function of the model that shows, against Keras,
that it streams; one that takes training again (`instead`) is a model of the advised kind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edgelstm.export import read_keras

from tests.export.interpreters import snr_db


@dataclass
class Case:
    build: Callable[[], Any]
    words: tuple[str, ...]
    remedies: list[Callable[[Any], None]] = field(default_factory=list)


REFUSED: dict[str, Case] = {}
Builder = Callable[..., Any]


def model_of(builder: Builder) -> Any:
    """The model of a builder `(keras, keras.layers) → layers or a model`, of the same weights every time."""
    import keras

    keras.utils.set_random_seed(11)
    made = builder(keras, keras.layers)
    return keras.Sequential([keras.Input((12, 4)), *made]) if isinstance(made, list) else made


def refused(*words: str, instead: Builder | None = None) -> Callable[[Builder], Builder]:
    """Register a builder whose refusal contains these words, and a model of the kind that it advises to train."""

    def register(builder: Builder) -> Builder:
        case = Case(lambda: model_of(builder), words)
        if instead is not None:
            case.remedies.append(lambda model: streams(model_of(instead)))
        REFUSED[builder.__name__] = case
        return builder

    return register


def remedy(of: Builder) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register what an error advises to do with the refused model itself."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def seeded(model: Any) -> None:
            import keras

            keras.utils.set_random_seed(12)
            function(model)

        REFUSED[of.__name__].remedies.append(seeded)
        return function

    return register


def inputs(features: int, steps: int = 12) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((steps, features)).astype(np.float32)


def outputs_of_keras(model: Any, x: np.ndarray) -> np.ndarray:
    import keras

    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()
    (y,) = keras.tree.flatten(model(np.repeat(x[None], model.inputs[0].shape[0] or 1, 0), training=False))
    return np.asarray(y)[0]


def streams(model: Any, x: np.ndarray | None = None, want: np.ndarray | None = None) -> np.ndarray:
    """Read a model, stream it, and compare with Keras's own call, or with other numbers."""
    if x is None:
        x = inputs(model.inputs[0].shape[-1], model.inputs[0].shape[1] or 9)
    network = read_keras(model)
    want = outputs_of_keras(model, x) if want is None else want
    ys = network.run(x)
    found = ys if network.return_sequences else ys[-1]
    assert snr_db(found.reshape(want.shape), want) >= 100
    return ys


def last(K, L):
    return [L.LSTM(4), L.Dense(1)]


def sequence(K, L):
    return [L.LSTM(4, return_sequences=True), L.Dense(1)]


# ---- Layers that look at other timesteps ----


@refused('"both_ways" (Bidirectional)', "the end of the sequence", "forward layer alone", instead=sequence)
def bidirectional(K, L):
    return [L.Bidirectional(L.LSTM(4, return_sequences=True), name="both_ways"), L.Dense(1)]


@refused('"backwards" (LSTM)', "go_backwards=True", "go_backwards=False", instead=last)
def backwards(K, L):
    return [L.LSTM(4, go_backwards=True, name="backwards"), L.Dense(1)]


@refused("(Conv1D)", "several timesteps at once", "outside of the model", instead=last)
def convolution(K, L):
    return [L.Conv1D(4, 3, padding="causal"), L.LSTM(4)]


@remedy(convolution)
def convolve_outside(model):
    """By a model of the front layers, whose answers the model of those behind streams."""
    import keras

    front = keras.Model(model.inputs, model.layers[0].output)
    behind = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4)])
    behind.set_weights(model.layers[1].get_weights())
    x = inputs(4)
    streams(behind, np.asarray(front(x[None]))[0], outputs_of_keras(model, x))


@refused("(Conv1D)", "one value for several timesteps", "without this layer", instead=last)
def convolution_with_strides(K, L):
    return [L.Conv1D(4, 1, strides=2), L.LSTM(4)]


@refused(
    "(DepthwiseConv1D)",
    "not implemented",
    "Conv1D of kernel size 1",
    instead=lambda K, L: [L.Conv1D(8, 1), L.Dense(8), L.LSTM(4)],
)
def depthwise_convolution(K, L):
    return [L.DepthwiseConv1D(1, depth_multiplier=2), L.LSTM(4)]


@refused("(Conv1D)", "not implemented", "train it with Dense", instead=lambda K, L: [L.Dense(4), L.LSTM(4)])
def convolution_in_groups(K, L):
    return [L.Conv1D(4, 1, groups=2), L.LSTM(4)]


@refused("(Conv1DTranspose)", "several timesteps for one", "per-step layers alone", instead=last)
def transposed_convolution(K, L):
    return [L.Conv1DTranspose(4, 3, strides=2), L.LSTM(4)]


@refused("(ZeroPadding1D)", "how many timesteps", "without this layer", instead=last)
def padding(K, L):
    return [L.ZeroPadding1D(2), L.LSTM(4)]


@refused("(GlobalAveragePooling1D)", "a stream has no end", "return_sequences=False", instead=last)
def pooling(K, L):
    return [L.LSTM(4, return_sequences=True), L.GlobalAveragePooling1D()]


@refused("(AveragePooling1D)", "one value for several timesteps", "without this layer", instead=last)
def average_pooling(K, L):
    return [L.AveragePooling1D(2), L.LSTM(4)]


@refused("(MaxPooling1D)", "several timesteps at once", "without this layer", instead=last)
def pooling_without_strides(K, L):
    return [L.MaxPooling1D(3, strides=1, padding="same"), L.LSTM(4)]


@refused("(Attention)", "the whole sequence at once", "recurrent and per-step layers", instead=sequence)
def attention(K, L):
    x = K.Input((12, 4))
    y = L.LSTM(4, return_sequences=True)(x)
    return K.Model(x, L.Dense(1)(L.Attention()([y, y])))


@refused("(MultiHeadAttention)", "the whole sequence at once", instead=sequence)
def several_heads(K, L):
    x = K.Input((12, 4))
    y = L.LSTM(4, return_sequences=True)(x)
    return K.Model(x, L.MultiHeadAttention(2, 2)(y, y[:, :1]))


@refused("(RepeatVector)", "encoder-decoder", "per-step layers alone", instead=sequence)
def encoder_decoder(K, L):
    return [L.LSTM(4), L.RepeatVector(3), L.LSTM(4, return_sequences=True)]


@refused("(Flatten)", "joins all timesteps", "return_sequences=False", instead=last)
def flatten(K, L):
    return [L.LSTM(4, return_sequences=True), L.Flatten(), L.Dense(1)]


@refused("(Reshape)", "changes the shape", "without this layer", instead=last)
def reshape(K, L):
    return [L.Reshape((6, 8)), L.LSTM(4)]


@refused("(Reshape)", "changes the shape", "without this layer", instead=lambda K, L: [L.LSTM(4), L.Dense(12)])
def reshape_before_dense(K, L):
    return [L.LSTM(4), L.Dense(12), L.Reshape((4, 3)), L.Dense(2)]


@refused("(Permute)", "exchanges timesteps and features", "without this layer", instead=last)
def permute(K, L):
    return [L.Permute((2, 1)), L.LSTM(4)]


# ---- Layers of other kinds ----


@refused("(Lambda)", "Python code", "Rescaling or Activation", instead=lambda K, L: [L.Rescaling(2.0), L.LSTM(4)])
def lambda_layer(K, L):
    return [L.Lambda(lambda x: 2 * x), L.LSTM(4)]


@refused("custom layer derived from LSTM", "cannot be read", "layers of Keras", instead=last)
def subclassed_layer(K, L):
    class Peephole(L.LSTM):
        pass

    return [Peephole(4)]


@refused("cell Own is not one of Keras's own", "LSTMCell", instead=lambda K, L: [L.RNN(L.SimpleRNNCell(4))])
def custom_cell(K, L):
    class Own(L.SimpleRNNCell):
        pass

    return [L.RNN(Own(4))]


def masking_first(K, L):
    return [L.Masking(), L.Dense(4), L.LSTM(4)]


def with_normalization(K, L):
    return [L.LayerNormalization(), L.BatchNormalization(), L.Dense(3), L.LSTM(4)]


@refused("(UnitNormalization)", "not implemented", "LayerNormalization", instead=with_normalization)
def unit_normalization(K, L):
    return [L.UnitNormalization(), L.LSTM(4)]


@refused("(Discretization)", "gives whole numbers", "outside of the model")
def discretization(K, L):
    return [L.Discretization([-1.0, 0.0, 1.0]), L.LSTM(4)]


@remedy(discretization)
def discretize_outside(model):
    import keras

    behind = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4)])
    behind.set_weights(model.layers[1].get_weights())
    x = inputs(4)
    streams(behind, np.digitize(x, [-1.0, 0.0, 1.0]).astype(np.float32), outputs_of_keras(model, x))


@refused("quantised by Keras (int8)", "float model", instead=last)
def quantised_by_keras(K, L):
    model = K.Sequential([K.Input((12, 4)), L.LSTM(4), L.Dense(2)])
    model.layers[-1].quantize("int8")
    return model


@refused(
    "wraps a layer that works on sequences", "per-step layers alone", instead=lambda K, L: [L.Masking(), L.LSTM(4)]
)
def wrapped_masking(K, L):
    return [L.TimeDistributed(L.Masking()), L.LSTM(4)]


@refused("(Dense)", '"glu"', "another activation", instead=lambda K, L: [L.LSTM(4), L.Dense(4, "gelu")])
def gated_activation(K, L):
    return [L.LSTM(4), L.Dense(4, "glu")]


@refused('the activation "own"', "keras.activations", instead=lambda K, L: [L.LSTM(4, activation="softsign")])
def own_activation(K, L):
    def own(x):
        return K.ops.tanh(x) * 1.7

    return [L.LSTM(4, activation=own)]


@refused("Rescaling is used as an activation function", "a layer of its own")
def layer_as_activation(K, L):
    return [L.LSTM(4), L.Dense(4, activation=L.Rescaling(2.0))]


@remedy(layer_as_activation)
def as_a_layer(model):
    import keras

    layers = keras.layers.LSTM(4), keras.layers.Dense(4), keras.layers.Rescaling(2.0)
    own = keras.Sequential([keras.Input((12, 4)), *layers])
    own.set_weights(model.get_weights())
    x = inputs(4)
    streams(own, x, outputs_of_keras(model, x))


@refused("(LayerNormalization)", "axis", "use axis=-1", instead=lambda K, L: [L.LayerNormalization(), L.LSTM(4)])
def normalised_over_time(K, L):
    return [L.LayerNormalization(axis=1), L.LSTM(4)]


@refused("softmax works along axis 1", "use axis=-1", instead=lambda K, L: [L.Softmax(), L.LSTM(4)])
def softmax_over_time(K, L):
    return [L.Softmax(axis=1), L.LSTM(4)]


@refused("log_softmax works along axis 1", "use axis=-1", instead=lambda K, L: [L.Activation("log_softmax"), L.LSTM(4)])
def activation_over_time(K, L):
    return [L.Activation(functools.partial(K.activations.log_softmax, axis=1)), L.LSTM(4)]


@refused("(Rescaling)", "for every timestep", "axis=-1", instead=lambda K, L: [L.Rescaling([1.0, 2, 3, 4]), L.LSTM(4)])
def scaled_by_timestep(K, L):
    return [L.Rescaling(np.arange(1.0, 49).reshape(12, 4).tolist()), L.LSTM(4)]


def adapted_by_feature(K, L):
    layer = L.Normalization(axis=-1)
    layer.adapt(np.random.default_rng(0).normal(5, 2, (50, 4, 4)))
    return K.Sequential([K.Input((4, 4)), layer, L.LSTM(4)])


@refused("(Normalization)", "along axis", "axis=-1", instead=adapted_by_feature)
def adapted_by_timestep(K, L):
    # As many timesteps as features, so that the shapes alone do not tell.
    layer = L.Normalization(axis=1)
    layer.adapt(np.random.default_rng(0).normal(5, 2, (50, 4, 4)))
    return K.Sequential([K.Input((4, 4)), layer, L.LSTM(4)])


def shared_slopes(K, L):
    return [L.LSTM(4, return_sequences=True), L.PReLU(shared_axes=[1])]


@refused("(PReLU)", "slope of its own for every timestep", "shared_axes=[1]", instead=shared_slopes)
def slopes_by_timestep(K, L):
    return [L.LSTM(4, return_sequences=True), L.PReLU()]


@refused("weights that are not finite", "smaller learning rate or clipnorm", instead=last)
def diverged(K, L):
    model = K.Sequential([K.Input((12, 4)), L.LSTM(4), L.Dense(1)])
    model.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    return model


# ---- Masking ----


@refused("(Masking)", "behind another layer", "first in the model", instead=masking_first)
def late_masking(K, L):
    return [L.Dense(4), L.Masking(), L.LSTM(4)]


def repeats_outputs(K, L):
    return [L.Masking(), L.LSTM(4, return_sequences=True), L.Dense(1)]


@refused("zero_output_for_mask=True", "zero_output_for_mask=False", instead=repeats_outputs)
def zeros_for_masked(K, L):
    return [L.Masking(), L.LSTM(4, return_sequences=True, zero_output_for_mask=True), L.Dense(1)]


@refused("masks nothing", "finite mask_value", instead=lambda K, L: [L.Masking(-1.0), L.LSTM(4)])
def masks_nan(K, L):
    return [L.Masking(float("nan")), L.LSTM(4)]


@remedy(masks_nan)
def without_masking(model):
    import keras

    plain = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4)])
    plain.set_weights(model.get_weights())
    x = inputs(4)
    streams(plain, x, outputs_of_keras(model, x))


def softmax_activation(K, L):
    return [L.Masking(), L.LSTM(4, return_sequences=True), L.Activation("softmax")]


@refused("applies the mask", "Activation('softmax')", instead=softmax_activation)
def masked_softmax(K, L):
    return [L.Masking(), L.LSTM(4, return_sequences=True), L.Softmax()]


@refused("drops the mask", "before the Masking layer", instead=last)
def mask_dropped(K, L):
    return [L.Masking(), L.Reshape((12, 4)), L.LSTM(4)]


@refused("a mask by hand", "Masking layer first", instead=lambda K, L: [L.Masking(), L.LSTM(4)])
def mask_by_hand(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.LSTM(4)(x, mask=K.ops.any(x > 0, axis=-1)))


# ---- Ways to build a model ----


@refused("call() is written in Python", "keras.Sequential", "copy the weights")
def subclassed_model(K, L):
    class Own(K.Model):
        def __init__(self):
            super().__init__()
            self.lstm = L.LSTM(4)

        def call(self, x):
            return self.lstm(x)

    model = Own()
    model(np.zeros((1, 12, 4), np.float32))
    return model


@remedy(subclassed_model)
def as_sequential(model):
    import keras

    same = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4)])
    same.set_weights(model.get_weights())
    x = inputs(4)
    streams(same, x, np.asarray(model(x[None]))[0])


@refused("has not been built", "input shape", instead=lambda K, L: [L.LSTM(4)])
def never_built(K, L):
    return K.Sequential([L.LSTM(4)])


@remedy(never_built)
def train_it(model):
    model.compile("sgd", "mse")
    model.fit(np.zeros((1, 12, 4)), np.zeros((1, 4)), verbose=0)
    streams(model)


@refused("Größe 1", "another name", "copy the weights")
def umlauts(K, L):
    return [L.LSTM(4, name="Größe 1")]


@remedy(umlauts)
def renamed(model):
    import keras

    same = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4, name="size_1")])
    same.set_weights(model.get_weights())
    x = inputs(4)
    streams(same, x, outputs_of_keras(model, x))


@refused("outside of any layer", "with a layer", instead=lambda K, L: [L.Rescaling(2.0), L.LSTM(4)])
def bare_operation(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.LSTM(4)(x * 2.0))


@refused("training=True", "without `training`")
def monte_carlo_dropout(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.LSTM(4)(L.Dropout(0.5)(x, training=True)))


@remedy(monte_carlo_dropout)
def without_training(model):
    import keras

    x = keras.Input((12, 4))
    same = keras.Model(x, model.layers[2](model.layers[1](x)))
    streams(same)


@refused("joins the outputs of", '"lstm"', "without the branch", instead=sequence)
def residual(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.Add()([x, L.LSTM(4, return_sequences=True, name="lstm")(x)]))


@refused("stateful and called twice", "stateful=False", instead=lambda K, L: [L.LSTM(4, return_sequences=True)])
def shared_and_stateful(K, L):
    x = K.Input((12, 4), batch_size=1)
    twice = L.LSTM(4, stateful=True, return_sequences=True)
    return K.Model(x, twice(twice(x)))


@refused("no recurrent layer", "nothing to stream", "LSTM, GRU or SimpleRNN", instead=last)
def not_recurrent(K, L):
    return [L.Dense(4), L.Dense(1)]


# ---- States ----


@refused('"h_in", "c_in"', 'the states of layer "lstm"', "number 1, 2", "without initial_state")
def step_model(K, L):
    x, h, c = K.Input((1, 4), name="x"), K.Input((3,), name="h_in"), K.Input((3,), name="c_in")
    y, h_next, c_next = L.LSTM(3, return_sequences=True, return_state=True, name="lstm")(x, initial_state=[h, c])
    return K.Model([x, h, c], [L.Dense(2, name="head")(y), h_next, c_next])


@remedy(step_model)
def lets_the_runtime_keep_the_state(model):
    """The stream gives what Keras gives when the step model's states are handed on by hand."""
    import keras

    x = keras.Input((None, 4))
    y = keras.layers.LSTM(3, return_sequences=True)(x)
    same = keras.Model(x, keras.layers.Dense(2)(y))
    same.set_weights(model.get_weights())
    rows, h, c, want = inputs(4, 7), np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32), []
    for row in rows:
        y, h, c = map(np.asarray, model([row[None, None], h, c]))
        want.append(y[0, 0])
    streams(same, rows, np.array(want))


@refused('"before"', 'the states of layer "gru"', "the runtime keeps the state")
def step_model_by_position(K, L):
    x, h = K.Input((1, 4)), K.Input((3,), name="before")
    y, h_next = L.GRU(3, return_state=True, name="gru")(x, h)
    return K.Model([x, h], [y, h_next])


@remedy(step_model_by_position)
def lets_the_runtime_keep_it(model):
    import keras

    same = keras.Sequential([keras.Input((None, 4)), keras.layers.GRU(3, return_sequences=True)])
    same.set_weights(model.get_weights())
    rows, h, want = inputs(4, 7), np.zeros((1, 3), np.float32), []
    for row in rows:
        y, h = map(np.asarray, model([row[None, None], h]))
        want.append(y[0])
    streams(same, rows, np.array(want))


@refused("outputs number 1, 2 are states", "keras.Model(model.inputs, model.outputs[0])")
def states_as_outputs(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.LSTM(4, return_state=True)(x))


@remedy(states_as_outputs)
def first_output(model):
    import keras

    x = inputs(4)
    streams(keras.Model(model.inputs, model.outputs[0]), x, np.asarray(model(x[None])[0])[0])


@refused("output number 1, a state", "use its first output")
def goes_on_from_h(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.Dense(1)(L.LSTM(4, return_state=True)(x)[1]))


@remedy(goes_on_from_h)
def goes_on_from_the_output(model):
    import keras

    x = keras.Input((12, 4))
    xs = inputs(4)
    streams(keras.Model(x, model.layers[2](model.layers[1](x)[0])), xs, outputs_of_keras(model, xs))


@refused("output number 1, a state", "set return_sequences=False")
def goes_on_from_h_beside_a_sequence(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.Dense(1)(L.LSTM(4, return_sequences=True, return_state=True)(x)[1]))


@remedy(goes_on_from_h_beside_a_sequence)
def returns_the_last(model):
    import keras

    same = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4), keras.layers.Dense(1)])
    same.set_weights(model.get_weights())
    x = inputs(4)
    streams(same, x, outputs_of_keras(model, x))


@refused("output number 2, a state", "--graph sequence")
def goes_on_from_c(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.Dense(1)(L.LSTM(4, return_state=True)(x)[2]))


@refused("initial_state by the model", "--graph sequence")
def decoder_after_encoder(K, L):
    x = K.Input((12, 4))
    _, *states = L.LSTM(4, return_state=True)(x)
    return K.Model(x, L.LSTM(4)(x, initial_state=states))


# ---- Several inputs and outputs ----


@refused('2 inputs ("a", "b")', "one keras.Input((12, 7))", 'in place of layer "both"', "copy the weights")
def inputs_side_by_side(K, L):
    a, b = K.Input((12, 4), name="a"), K.Input((12, 3), name="b")
    return K.Model([a, b], L.LSTM(4)(L.Concatenate(name="both")([a, b])))


@remedy(inputs_side_by_side)
def one_input(model):
    import keras

    same = keras.Sequential([keras.Input((12, 7)), keras.layers.LSTM(4)])
    same.set_weights(model.get_weights())
    x = inputs(7)
    streams(same, x, np.asarray(model([x[None, :, :4], x[None, :, 4:]]))[0])


@refused('2 inputs ("a", "b")', "the part behind each", "join their answers outside")
def inputs_apart(K, L):
    a, b = K.Input((12, 4), name="a"), K.Input((5,), name="b")
    return K.Model([a, b], L.Concatenate(name="joined")([L.LSTM(4, name="part")(a), b]))


@remedy(inputs_apart)
def parts(model):
    import keras

    x, beside = inputs(4), inputs(5, 1)
    part = keras.Model(model.inputs[0], model.get_layer("part").output)
    want = np.asarray(model([x[None], beside]))[0]
    answer = streams(part, x, np.asarray(part(x[None]))[0])[-1]
    assert snr_db(np.concatenate([answer, beside[0]]), want) >= 100


@refused('2 outputs ("valve", "alarm")', "each as a model of its own", "model.outputs[0]")
def two_heads(K, L):
    x = K.Input((None, 4))
    y = L.LSTM(4, return_sequences=True)(x)
    return K.Model(x, [L.Dense(1, name="valve")(y), L.Dense(3, "softmax", name="alarm")(y)])


@remedy(two_heads)
def a_model_for_each(model):
    import keras

    x = inputs(4)
    wants = [np.asarray(y)[0] for y in model(x[None])]
    for output, want in zip(model.outputs, wants, strict=True):
        streams(keras.Model(model.inputs, output), x, want)


# ---- Inputs of another kind ----


@refused('"words" (Embedding)', "tokens", "keras.Input((None, 4))", "`embeddings`")
def embedding(K, L):
    return K.Sequential([K.Input((12,)), L.Embedding(10, 4, name="words"), L.LSTM(4), L.Dense(1)])


@remedy(embedding)
def rows_of_the_embedding(model):
    import keras

    behind = keras.Sequential([keras.Input((None, 4)), keras.layers.LSTM(4), keras.layers.Dense(1)])
    behind.set_weights(model.get_weights()[1:])
    tokens = np.arange(12) % 10
    rows = np.asarray(model.layers[0].embeddings)[tokens]
    streams(behind, rows, np.asarray(model(tokens[None]))[0])


@refused("its input is int32", "keras.Input((12, 4), dtype='float32')", "copy the weights")
def counts(K, L):
    x = K.Input((12, 4), dtype="int32")
    return K.Model(x, L.LSTM(4)(L.Rescaling(0.1)(x)))


@remedy(counts)
def as_floats(model):
    import keras

    x = keras.Input((12, 4), dtype="float32")
    same = keras.Model(x, keras.layers.LSTM(4)(keras.layers.Rescaling(0.1)(x)))
    same.set_weights(model.get_weights())
    numbers = np.random.default_rng(3).integers(0, 20, (12, 4))
    streams(same, numbers.astype(np.float32), outputs_of_keras(model, numbers.astype(np.int32)))


@refused('"steps" (Reshape)', "an input of 12 numbers", "keras.Input((12, 1))", "copy the weights")
def one_long_vector(K, L):
    return K.Sequential([K.Input((12,)), L.Reshape((12, 1), name="steps"), L.LSTM(4), L.Dense(1)])


@remedy(one_long_vector)
def timestep_by_timestep(model):
    import keras

    same = keras.Sequential([keras.Input((12, 1)), keras.layers.LSTM(4), keras.layers.Dense(1)])
    same.set_weights(model.get_weights())
    x = inputs(1)
    streams(same, x, np.asarray(model(x[None, :, 0]))[0])


@refused("(RepeatVector)", "per-step layers alone", instead=sequence)
def decoder(K, L):
    return K.Sequential([K.Input((4,)), L.RepeatVector(3), L.LSTM(4, return_sequences=True)])


@refused("has the shape (None, 4)", "keras.Input((None, features))", instead=lambda K, L: [L.Dense(8), L.LSTM(4)])
def vector(K, L):
    return K.Sequential([K.Input((4,)), L.Dense(8), L.RepeatVector(3), L.LSTM(4)])


@refused("has the shape (None, 5, 8, 8, 1)", "no vector of features", "a model of their own")
def frames(K, L):
    front = [L.TimeDistributed(L.Conv2D(2, 3), name="see"), L.TimeDistributed(L.Flatten(), name="flat")]
    return K.Sequential([K.Input((5, 8, 8, 1)), *front, L.LSTM(4), L.Dense(1)])


@remedy(frames)
def stream_behind_the_frames(model):
    import keras

    front = keras.Model(model.inputs, model.get_layer("flat").output)
    behind = keras.Sequential([keras.Input((None, 72)), *model.layers[2:]])
    x = np.random.default_rng(4).standard_normal((1, 5, 8, 8, 1)).astype(np.float32)
    streams(behind, np.asarray(front(x))[0], np.asarray(model(x))[0])


@refused("(ConvLSTM1D)", "images or volumes", "LSTM, GRU or SimpleRNN", instead=last)
def images(K, L):
    return K.Sequential([K.Input((5, 8, 1)), L.ConvLSTM1D(2, 3), L.Flatten(), L.Dense(1)])
