"""Ways to build a model, and states that it hands on by itself."""

from __future__ import annotations

import numpy as np

from tests.export.refused.cases import inputs, last, outputs_of_keras, refused, remedy, sequence, streams

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


@refused("no recurrent layer", "no state to carry", "LSTM, GRU or SimpleRNN", instead=last)
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


@refused("output number 2, a state", "--window T")
def goes_on_from_c(K, L):
    x = K.Input((12, 4))
    return K.Model(x, L.Dense(1)(L.LSTM(4, return_state=True)(x)[2]))


@refused("initial_state by the model", "--window T")
def decoder_after_encoder(K, L):
    x = K.Input((12, 4))
    _, *states = L.LSTM(4, return_state=True)(x)
    return K.Model(x, L.LSTM(4)(x, initial_state=states))
