"""A stream against the textbook's formulas: every backend, chunks, resets, snapshots, bad input."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from edgelstm.runtime import InputError, load

from .conftest import FEATURES, OUTPUTS, textbook_lstm

BACKENDS = ["tflite", "numpy"]


@pytest.fixture(params=BACKENDS)
def model(request, bundle):
    return load(bundle, backend=request.param)


def test_steps_equal_the_textbook(model, xs, expected):
    stream = model.stream()
    ys = np.array([stream.step(x) for x in xs])
    np.testing.assert_allclose(ys, expected, atol=2e-6)


@pytest.mark.parametrize("chunk", [1, 7, 64, 300])
def test_chunks_equal_steps_bit_for_bit(model, xs, chunk):
    stream = model.stream()
    steps = np.array([stream.step(x) for x in xs])
    stream.reset()
    chunks = np.concatenate([stream.run(xs[i : i + chunk]) for i in range(0, len(xs), chunk)])
    np.testing.assert_array_equal(chunks, steps)


def test_reset_starts_a_new_sequence(model, xs, expected):
    stream = model.stream()
    stream.run(xs[:50])
    stream.reset()
    assert stream.steps == 0
    np.testing.assert_allclose(stream.run(xs), expected, atol=2e-6)


def test_a_snapshot_continues_elsewhere(model, xs, expected):
    first = model.stream()
    first.run(xs[:120])
    saved = first.snapshot()
    first.run(xs[:30])
    second = model.stream()
    second.restore(saved)
    assert second.steps == 120
    np.testing.assert_allclose(second.run(xs[120:]), expected[120:], atol=2e-6)
    first.restore(saved)
    np.testing.assert_allclose(first.run(xs[120:]), expected[120:], atol=2e-6)


def test_snapshots_that_do_not_fit_leave_the_state(bundle, xs, expected):
    tflite, other = load(bundle, "tflite").stream(), load(bundle, "numpy").stream()
    other.run(xs[:10])
    tflite.run(xs[:10])
    good = tflite.snapshot()
    bad = {
        "another model": other.snapshot(),
        "damaged": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
        "not a stream": b"hello",
        "on the last 3 inputs": load(bundle, "tflite").stream(window=3).snapshot(),
    }
    for words, snapshot in bad.items():
        with pytest.raises(InputError, match=words):
            tflite.restore(snapshot)
    np.testing.assert_allclose(tflite.run(xs[10:]), expected[10:], atol=2e-6)


def test_streams_of_one_model_are_apart(model, xs, weights):
    a, b = model.stream(), model.stream()
    ya, yb = [], []
    for x in xs[:50]:
        ya.append(a.step(x))
        yb.append(b.step(-x))
    np.testing.assert_allclose(ya, textbook_lstm(weights, xs[:50]), atol=2e-6)
    np.testing.assert_allclose(yb, textbook_lstm(weights, -xs[:50]), atol=2e-6)


def test_streams_in_threads(model, xs, weights):
    results: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        stream = model.stream()
        results[k] = np.array([stream.step(x * k) for x in xs])

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, ys in results.items():
        np.testing.assert_allclose(ys, textbook_lstm(weights, xs * np.float32(k)), atol=2e-6)


def test_out_is_written_in_place(model, xs, expected):
    stream, buffer = model.stream(), np.empty(OUTPUTS, np.float32)
    for x, want in zip(xs[:20], expected, strict=False):
        assert stream.step(x, out=buffer) is buffer
        np.testing.assert_allclose(buffer, want, atol=2e-6)


def test_the_answer_is_the_callers_own(model, xs):
    stream = model.stream()
    first = stream.step(xs[0])
    copy = first.copy()
    stream.step(xs[1])
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(FEATURES + 1, np.float32), "3 features"),
        (np.zeros((1, FEATURES), np.float32), "3 features"),
        (np.float32(1), "3 features"),
        ([1, 2], "3 features"),
        (["a", "b", "c"], "not numbers"),
        ([[1], [2, 3]], "not an array"),
        (np.zeros(FEATURES, complex), "not numbers"),
        ([1, None, 3], "not numbers"),
        ([True, False, True], "not numbers"),
        ([1, np.nan, 3], "feature 1 is nan"),
        (np.array([1, 2, np.inf], np.float32), "feature 2 is inf"),
        (np.array([-np.inf, 2, 3], np.float32), "feature 0 is -inf"),
        ([1e39, 0, 0], "feature 0 is inf"),
        (np.array([np.inf, -np.inf, 0], np.float32), "feature 0 is inf"),
    ],
)
def test_bad_input_raises_and_leaves_the_state(model, xs, expected, x, words):
    stream = model.stream()
    stream.run(xs[:10])
    with pytest.raises(InputError, match=words):
        stream.step(x)
    assert stream.steps == 10
    np.testing.assert_allclose(stream.step(xs[10]), expected[10], atol=2e-6)


def test_numpy_set_to_raise_makes_no_difference(model):
    with np.errstate(all="raise"), pytest.raises(InputError, match="feature 1 is inf"):
        model.stream().step(np.array([0, np.inf, 0], np.float32))


@pytest.mark.filterwarnings("ignore:overflow")
def test_the_largest_finite_numbers_are_taken(model):
    largest = np.full(FEATURES, np.finfo(np.float32).max, np.float32)
    model.stream().step(largest * np.float32([1, -1, 1]))


def test_float64_lists_and_integers_are_taken(model, xs):
    stream, reference = model.stream(), model.stream()
    for x in ([1, 2, 3], (0.5, 1.5, -2.5), np.arange(3), xs[0].astype(np.float64), xs[:3].T[0]):
        want = reference.step(np.array(x, np.float32))
        np.testing.assert_array_equal(stream.step(x), want)


def test_a_bad_timestep_in_a_chunk_takes_none_of_it(model, xs, expected):
    stream = model.stream()
    stream.run(xs[:10])
    bad = xs[10:20].copy()
    bad[7, 2] = np.nan
    with pytest.raises(InputError, match="timestep 7 of the chunk: feature 2 is nan"):
        stream.run(bad)
    np.testing.assert_allclose(stream.run(xs[10:]), expected[10:], atol=2e-6)


@pytest.mark.parametrize("shape", [(4, FEATURES + 1), (FEATURES,), (2, 2, FEATURES)])
def test_chunks_of_the_wrong_shape(model, shape):
    with pytest.raises(InputError, match="chunk has shape"):
        model.stream().run(np.zeros(shape))


def test_an_empty_chunk_changes_nothing(model, xs, expected):
    stream = model.stream()
    stream.run(xs[:5])
    assert stream.run(np.empty((0, FEATURES))).shape == (0, OUTPUTS)
    np.testing.assert_allclose(stream.run(xs[5:]), expected[5:], atol=2e-6)


@pytest.mark.parametrize("out", [np.empty(OUTPUTS + 1, np.float32), np.empty(OUTPUTS), np.empty((4, OUTPUTS), "f4")])
def test_out_of_the_wrong_kind(model, xs, out):
    stream = model.stream()
    with pytest.raises(InputError, match="out must be"):
        stream.step(xs[0], out=out)
    assert stream.steps == 0
