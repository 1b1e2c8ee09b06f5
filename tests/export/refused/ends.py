"""Several inputs and outputs, and inputs of another kind."""

from __future__ import annotations

import numpy as np

from tests.export.interpreters import snr_db
from tests.export.refused.cases import inputs, last, outputs_of_keras, refused, remedy, sequence, streams

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
