"""Fleets on every backend: each row is a stream of its own."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.runtime import InputError, load

BACKENDS = ["native", "numpy", "tflite"]
STREAMS = 100  # More than two of the engine's tiles.


@pytest.fixture(params=BACKENDS)
def model(request, bundle):
    if request.param == "tflite":
        pytest.importorskip("ai_edge_litert")
    return load(bundle, request.param)


def rows(steps: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((steps, STREAMS, 3)).astype(np.float32)


def test_every_row_is_a_stream(model):
    fleet, streams = model.fleet(STREAMS), [model.stream() for _ in range(STREAMS)]
    assert len(fleet) == STREAMS
    for xs in rows(12):
        want = np.array([stream.step(x) for stream, x in zip(streams, xs, strict=True)])
        np.testing.assert_allclose(fleet.step(xs), want, rtol=0, atol=1e-6)
    assert fleet.steps(0) == 12


def test_some_of_them_in_any_order(model):
    fleet, streams = model.fleet(STREAMS), [model.stream() for _ in range(STREAMS)]
    rng = np.random.default_rng(5)
    for xs in rows(12):
        which = rng.permutation(STREAMS)[: rng.integers(1, STREAMS)]
        want = np.array([streams[i].step(x) for i, x in zip(which, xs, strict=False)])
        out = np.empty((len(which), 2), np.float32)
        assert fleet.step(xs[: len(which)], which.tolist(), out=out) is out
        np.testing.assert_allclose(out, want, rtol=0, atol=1e-6)
    assert [fleet.steps(i) for i in range(STREAMS)] == [stream.steps for stream in streams]
    assert fleet.step(np.empty((0, 3)), []).shape == (0, 2)


def test_resetting_some_leaves_the_others(model):
    fleet, whole = model.fleet(STREAMS), rows(8)
    for xs in whole[:4]:
        fleet.step(xs)
    fleet.reset([3, 97])
    fresh, old = model.stream(), model.stream()
    old.run(whole[:4, 50])
    for xs in whole[4:]:
        ys = fleet.step(xs)
        np.testing.assert_allclose(ys[97], fresh.step(xs[97]), rtol=0, atol=1e-6)
        np.testing.assert_allclose(ys[50], old.step(xs[50]), rtol=0, atol=1e-6)
    assert (fleet.steps(3), fleet.steps(50)) == (4, 8)
    fleet.reset()
    assert {fleet.steps(i) for i in range(STREAMS)} == {0}
    np.testing.assert_allclose(fleet.step(whole[0])[7], model.stream().step(whole[0, 7]), rtol=0, atol=1e-6)


def test_a_state_moves_between_fleets_and_streams(model):
    fleet, stream, whole = model.fleet(STREAMS), model.stream(), rows(10)
    stream.run(whole[:5, 0])
    fleet.restore(42, stream.snapshot())
    assert fleet.steps(42) == 5
    for xs in whole[5:]:
        np.testing.assert_allclose(fleet.step(xs[:1], [42])[0], stream.step(xs[0]), rtol=0, atol=1e-6)
    other = model.stream()
    other.restore(fleet.snapshot(42))
    assert other.snapshot() == stream.snapshot()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda fleet, xs: fleet.step(xs[:3]), "100 streams take an array of shape"),
        (lambda fleet, xs: fleet.step(xs[:2], [5, 5]), "named twice"),
        (lambda fleet, xs: fleet.step(xs[:2], [5, 100]), "streams 0 to 99"),
        (lambda fleet, xs: fleet.step(xs[:2], [-1, 5]), "streams 0 to 99"),
        (lambda fleet, xs: fleet.step(xs[:2], [0.0, 1.0]), "whole numbers"),
        (
            lambda fleet, xs: fleet.step(np.where(np.arange(300).reshape(100, 3) == 298, np.nan, xs)),
            "row 99: feature 1",
        ),
        (lambda fleet, xs: fleet.step(xs, out=np.empty((100, 3), np.float32)), "out must be"),
        (lambda fleet, xs: fleet.step(xs, out=np.empty((2, 100), np.float32).T), "out must be"),
        (lambda fleet, xs: fleet.reset([100]), "streams 0 to 99"),
        (lambda fleet, xs: fleet.restore(0, b"nothing"), "not a stream's snapshot"),
        (lambda fleet, xs: fleet.restore(100, b"nothing"), "streams 0 to 99"),
    ],
)
def test_what_does_not_fit_steps_no_stream(model, call, words):
    fleet, (first, xs) = model.fleet(STREAMS), rows(2)
    fleet.step(first)
    before = [fleet.snapshot(i) for i in range(STREAMS)]
    with pytest.raises(InputError, match=words):
        call(fleet, xs)
    assert [fleet.snapshot(i) for i in range(STREAMS)] == before


def test_no_streams_are_no_fleet(model):
    with pytest.raises(InputError, match="at least 1 stream"):
        model.fleet(0)
