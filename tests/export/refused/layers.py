"""Layers, activations and axes of other kinds, and masking."""

from __future__ import annotations

import functools
import warnings

import numpy as np

from tests.export.refused.cases import inputs, last, outputs_of_keras, refused, remedy, streams

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


def not_root_mean_square(K, L):
    return [L.LayerNormalization(), L.LSTM(4)]


@refused("(LayerNormalization)", "rms_scaling=True", "train without it", instead=not_root_mean_square)
def scaled_by_variance(K, L):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that it is deprecated.
        return [L.LayerNormalization(rms_scaling=True), L.LSTM(4)]


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
