"""`_native.Windows` as Python drives it: against Keras on each window, and what it does with what does not fit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime import InputError
from edgelstm.runtime.activations import Function
from edgelstm.runtime.network import LSTM, Activation, Network

from tests.engine.models import elm, inputs, network

_native = pytest.importorskip("edgelstm.runtime._native")
T, HOP, STEPS = 9, 4, 60
RANGE, TOO_SMALL, NOT_FINITE = 4, 3, 8  # edgelstm.h


@pytest.fixture(scope="module")
def model():
    return _native.Model(elm("masking", "float32"), None)


@pytest.fixture(scope="module")
def xs():
    rows = np.ascontiguousarray(inputs("masking", STEPS), np.float32)
    masked = (rows == network("masking").mask_value).all(1)
    assert 0 < masked.sum() < STEPS  # Or masks are not tried.
    return rows


@pytest.fixture(scope="module")
def want(xs):
    """Timestep → what Keras answers on its window."""
    ends = range(T, STEPS + 1, HOP)
    answers = network("masking").reference.windows(np.stack([xs[end - T : end] for end in ends]))
    return {end - 1: y for end, y in zip(ends, answers, strict=True)}


def steps(windows, model, rows):
    """Index → answer, of those that came due."""
    y, found = np.full(model.outputs, np.nan, np.float32), {}
    for i, x in enumerate(rows):
        y[:] = np.nan
        if windows.step(x, y):
            found[i] = y.copy()
        else:
            assert np.isnan(y).all()
    return found


def test_it_answers_when_and_what_keras_does(model, xs, want):
    windows = _native.Windows(model, T, HOP, False)
    got = steps(windows, model, xs)
    assert list(got) == list(want)
    np.testing.assert_allclose(list(got.values()), list(want.values()), atol=2e-6)
    assert windows.steps() == STEPS
    windows.reset()
    assert windows.steps() == 0
    assert windows.answers(STEPS) == len(want)
    ys = np.empty((len(want), model.outputs), np.float32)
    assert windows.run(xs, ys) == len(want)
    assert ys.tobytes() == np.array(list(got.values())).tobytes()


@pytest.mark.slow
def test_until_the_window_is_full_partial_answers_on_all_inputs(model, xs):
    got = steps(_native.Windows(model, T, HOP, True), model, xs[:T])
    assert list(got) == [0, 4, 8]
    reference = network("masking").reference
    np.testing.assert_allclose([got[0], got[4], got[8]], reference(xs[:T])[[0, 4, 8]], atol=2e-6)


def test_a_fleet_is_each_stream_in_its_own_windows(model, xs, want):
    fleet = _native.Windows(model, T, HOP, False, 3)
    starts = np.array([0, 5, 7])
    for t in range(STEPS):
        which = np.flatnonzero(starts <= t)[::-1].astype(np.uintp).copy()
        ys = np.full((len(which), model.outputs), np.nan, np.float32)
        due = np.zeros(len(which), np.uint8 if t % 2 else np.bool_)
        fleet.fleet_step(xs[t - starts[which]], ys, due, which)
        for row, stream in enumerate(which):
            at = t - starts[stream]
            assert bool(due[row]) == (at in want)
            if at in want:
                np.testing.assert_allclose(ys[row], want[at], atol=2e-6)
            else:
                assert np.isnan(ys[row]).all()
    assert [fleet.steps(i) for i in range(3)] == [60, 55, 53]
    assert fleet.state_bytes > _native.Windows(model, T, HOP, False).state_bytes


@pytest.mark.parametrize("after", [0, 3, 9, 30])
def test_a_seek_and_the_last_inputs_again_restore_it(model, xs, after):
    whole, again = (_native.Windows(model, T, HOP, False, 2) for _ in range(2))
    before = steps(whole, model, xs[:after])
    held = min(after, T)
    again.seek(after - held, 0)
    assert again.steps(0) == after - held
    steps(again, model, xs[after - held : after])
    rest = [steps(windows, model, xs[after:]) for windows in (whole, again)]
    assert len(before) + len(rest[0]) == len(range(T, STEPS + 1, HOP))
    assert list(rest[0]) == list(rest[1])
    assert all(rest[0][i].tobytes() == rest[1][i].tobytes() for i in rest[0])


def test_without_a_recurrent_layer_there_are_windows_all_the_same():
    content = native_step_file(Network("f", (Activation("f", Function("tanh")),), 3, True), "float32", {"name": "f"})
    model = _native.Model(content, None)
    xs = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    got = steps(_native.Windows(model, 5, 2, False), model, xs)
    assert list(got) == list(range(4, 20, 2))
    np.testing.assert_allclose(list(got.values()), np.tanh(xs[4::2]), atol=2e-7)


def test_what_does_not_fit_is_refused_and_changes_nothing(model, xs, want):
    windows = _native.Windows(model, T, HOP, False, 2)
    y, ys = np.zeros(model.outputs, np.float32), np.zeros((STEPS, model.outputs), np.float32)
    bad = xs.copy()
    bad[-1, 0] = np.nan
    calls = [
        (NOT_FINITE, lambda: windows.step(bad[-1], y)),
        (NOT_FINITE, lambda: windows.run(bad, ys)),
        (NOT_FINITE, lambda: windows.fleet_step(bad[-2:], ys[:2], np.zeros(2, np.bool_), None)),
        (TOO_SMALL, lambda: windows.run(xs, ys[: len(want) - 1])),
        (RANGE, lambda: windows.fleet_step(xs[:2], ys[:2], np.zeros(2, np.bool_), np.array([1, 1], np.uintp))),
        (RANGE, lambda: windows.reset(2)),
        (RANGE, lambda: windows.reset(-1)),
        (RANGE, lambda: windows.steps(2)),
        (RANGE, lambda: windows.answers(1, 2)),
        (RANGE, lambda: windows.answers(-1)),
        (RANGE, lambda: windows.seek(1, 2)),
        (RANGE, lambda: windows.seek(2**62 + 1)),
    ]
    for error, call in calls:
        with pytest.raises(_native.Error) as raised:
            call()
        assert raised.value.args[1] == error
    for call in (
        lambda: windows.step(xs[0]),
        lambda: windows.step(xs[0].astype(np.float64), y),
        lambda: windows.step(xs[0], np.zeros(model.outputs + 1, np.float32)),
        lambda: windows.run(xs, ys[:, :1]),
        lambda: windows.run(xs[::2], ys),
        lambda: windows.fleet_step(xs[:2], ys[:2], np.zeros(1, np.bool_), None),
        lambda: windows.fleet_step(xs[:2], ys[:2], np.zeros(2, np.int32), None),
        lambda: windows.fleet_step(xs[:2], ys[:2], np.zeros(2, np.bool_), np.array([0, 1], np.int32)),
        lambda: windows.seek("1"),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(OverflowError):
        windows.seek(-1)
    assert [windows.steps(0), windows.steps(1)] == [0, 0]
    got = steps(windows, model, xs)
    np.testing.assert_allclose(list(got.values()), list(want.values()), atol=2e-6)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1), (2**32, 1, 1), (2**31, 1, 2**40)])
def test_sizes_that_cannot_be(model, sizes):
    window, hop, streams = sizes
    with pytest.raises(_native.Error, match="out of range"):
        _native.Windows(model, window, hop, False, streams)


def test_two_threads_at_once_are_refused():
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.05, shape).astype(np.float32) for shape in ((4, 1024), (256, 1024), (1024,))]
    content = native_step_file(Network("large", (LSTM("lstm", *weights),), 4, True), "float32", {"name": "large"})
    model = _native.Model(content, None)
    windows = _native.Windows(model, 30, 1, False)
    xs, ys = np.zeros((2000, 4), np.float32), np.empty((2000, 256), np.float32)
    runner = threading.Thread(target=windows.run, args=(xs, ys))
    refused = False
    runner.start()
    while runner.is_alive() and not refused:
        try:
            windows.steps()
        except InputError as error:
            refused = "in use by another thread" in str(error)
    runner.join()
    assert refused
    assert windows.steps() == 2000
