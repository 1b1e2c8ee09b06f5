"""No test draws weights or data that are others each time."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from tests.seeding import TESTS, UnseededError


def model():
    import keras

    return keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3), keras.layers.Dense(1)])


def seeded_model(seed: int):
    import keras

    keras.utils.set_random_seed(seed)
    return model()


def test_a_model_without_a_seed_fails_the_test():
    with pytest.raises(UnseededError, match=r"tests/rooms/test_seeding\.py:\d+ makes a layer with random weights"):
        model()


def test_a_seed_gives_the_same_weights():
    first, again, other = (seeded_model(seed).get_weights() for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_a_seed_that_another_function_has_used_up_is_none():
    """Where that one keeps its model, whether it has drawn anything depends on who has called it before."""
    import keras

    keras.utils.set_random_seed(0)
    model()
    seeded_model(1)
    with pytest.raises(UnseededError):
        model()


def test_a_seed_of_the_initialiser_s_own_is_one():
    import keras

    keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=1))


def test_what_is_loaded_needs_none(tmp_path):
    import keras

    from tests.zoo import zoo_model

    zoo_model("regularised").save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], zoo_model("regularised").get_weights()[0])


def test_every_generator_of_numpy_has_a_seed():
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("default_rng", "RandomState")):
                assert node.args, f"{path}:{node.lineno}"
