"""Layers that look at other timesteps."""

from __future__ import annotations

import numpy as np

from tests.export.refused.cases import inputs, last, outputs_of_keras, refused, remedy, sequence, streams


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
