"""Parity: figures by hand, and no offset or neighbour that hides an output that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime.parity import PERFECT_SNR, TOLERANCES, Parity, compare, least_of_an_output

RNG = np.random.default_rng(0)
_FIRST = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def numbers_from_the_first_on():
    """Whatever ran before: a test alone and a test among all have the same numbers."""
    RNG.bit_generator.state = _FIRST


def test_figures_by_hand():
    parity = compare([[1.0, -2.0], [3.0, 4.5]], [[1.0, -2.0], [3.0, 4.0]])
    assert parity.max_abs_error == 0.5
    assert parity.rmse == pytest.approx(0.25)
    assert parity.snr_db == pytest.approx(10 * np.log10(30 / 0.25))
    # Output 1: variance 9, mean squared difference 0.125; output 0 has no difference.
    assert parity.worst_output_snr_db == pytest.approx(10 * np.log10(9 / 0.125))
    assert (parity.worst_output, parity.steps) == (1, 2)


def test_no_difference_and_no_number():
    y = RNG.standard_normal((50, 2))
    assert compare(y, y) == Parity(0, 0, PERFECT_SNR, 50, PERFECT_SNR, 0)
    broken = np.where(np.arange(50)[:, None] == 3, np.nan, y)
    parity = compare(broken, y)
    assert not parity.within(-1000)
    assert json.loads(json.dumps(parity.to_json(), allow_nan=False))["snr_db"] is None


def test_a_constant_beside_a_large_mean_is_no_barometer():
    pressure = 101325 + 300 * RNG.standard_normal((1000, 1))
    constant = np.full_like(pressure, 101325)
    parity = compare(constant, pressure)
    assert parity.snr_db > TOLERANCES["float16"]
    assert parity.worst_output_snr_db == pytest.approx(0, abs=0.1)
    assert not parity.within(TOLERANCES["int8"])
    assert "'pressure'" in parity.shortfall(TOLERANCES["int8"], ["pressure"])


def test_a_small_output_does_not_hide_behind_a_large_one():
    y = RNG.standard_normal((1000, 2)) * [1000, 0.1]
    wrong = y * [1, 0]
    assert compare(wrong, y).snr_db > 60
    parity = compare(wrong, y)
    assert parity.worst_output == 1
    assert not parity.within(TOLERANCES["dynamic"])


def test_what_float32_cannot_tell_apart_is_no_difference():
    y = (101325 + RNG.standard_normal((1000, 1))).astype(np.float32)
    neighbours = np.nextafter(y, np.float32(np.inf) * RNG.choice([-1, 1], y.shape).astype(np.float32))
    assert compare(neighbours, y).within(TOLERANCES["float32"])


def test_probabilities_share_a_unit():
    """A class that never comes need not be followed in its seventh digit."""
    y = np.concatenate([RNG.uniform(0, 1, (1000, 1)), 1e-7 * RNG.uniform(0, 1, (1000, 1))], axis=1)
    assert compare(y + np.array([0, 1e-5]), y).within(TOLERANCES["float16"])


def test_outputs_that_do_not_vary_do_not_count():
    y = np.stack([RNG.standard_normal(100), np.full(100, 5.0)], axis=1)
    assert compare(y + np.array([0, 0.01]), y).worst_output_snr_db == PERFECT_SNR
    assert compare(y[:1] + 0.01, y[:1]).worst_output_snr_db == PERFECT_SNR


def test_the_allowance():
    assert [least_of_an_output(least) for least in (100, 50, 35, 30, 12, 3, -10)] == [80, 40, 25, 20, 6, 3, -10]


def test_an_export_that_flattens_an_output_is_refused_by_name(tmp_path):
    """A bias of 101,325 in the last layer: beside it, what int8 weights make of its variation would not be seen."""
    import keras
    from edgelstm.export import export
    from edgelstm.runtime import ParityError

    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, 2)), layers.LSTM(24, return_sequences=True), layers.Dense(2)])
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * [1, 30], bias + np.array([0, 101325])])
    calibration = RNG.standard_normal((4, 100, 2))
    path: Path = tmp_path / "x.edge"
    with pytest.raises(ParityError, match="variation of output 'pressure'"):
        export(model, path, ["tflite"], ["int8"], calibration=calibration, outputs=["t", "pressure"], min_snr=80)
    assert not path.exists()
