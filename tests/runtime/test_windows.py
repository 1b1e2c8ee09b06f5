"""Streams by window, on every backend, against the textbook's formulas on each window."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.runtime import Bundle, InputError, Streaming, Window, load
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime.golden import Golden

from tests.runtime.conftest import FEATURES, OUTPUTS, textbook_lstm

BACKENDS = ["native", "numpy", "tflite"]
T = 6


@pytest.fixture(params=BACKENDS)
def model(request, bundle):
    if request.param == "tflite":
        pytest.importorskip("ai_edge_litert")
    return load(bundle, request.param)


@pytest.fixture
def by_window(edited):
    """The same bundle, said to have been trained on windows with an answer every 2 timesteps."""
    return load(edited(lambda raw: raw.update(streaming={"mode": "window", "window": T, "hop": 2})))


def wanted(weights, xs: np.ndarray, window: int, hop: int = 1, partial: bool = False) -> dict[int, np.ndarray]:
    """Timestep → answer, by the definition: the model on the last inputs, every hop from the first full window."""
    return {
        t: textbook_lstm(weights, xs[max(0, t + 1 - window) : t + 1])[-1]
        for t in range(len(xs))
        if (partial or t + 1 >= window) and (t + 1 - window) % hop == 0
    }


@pytest.mark.parametrize(("window", "hop"), [(1, 1), (6, 1), (6, 2), (6, 6), (6, 4), (6, 9), (7, 3)])
@pytest.mark.parametrize("partial", [False, True])
def test_answers_are_the_models_on_the_last_inputs(model, xs, weights, window, hop, partial):
    stream = model.stream(window=window, hop=hop, partial=partial)
    want = wanted(weights, xs[:40], window, hop, partial)
    got = {t: y for t, x in enumerate(xs[:40]) if (y := stream.step(x)) is not None}
    assert list(got) == list(want)
    np.testing.assert_allclose(list(got.values()), list(want.values()), atol=2e-6)
    assert stream.steps == 40


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_chunks_give_the_answers_that_came_due(model, xs, weights, size):
    stream, steps = model.stream(window=T, hop=4), model.stream(window=T, hop=4)
    chunks = [stream.run(xs[i : min(i + size, 40)]) for i in range(0, 40, size)]
    ys = np.concatenate(chunks)
    np.testing.assert_array_equal(ys, [y for x in xs[:40] if (y := steps.step(x)) is not None])
    np.testing.assert_allclose(ys, list(wanted(weights, xs[:40], T, 4).values()), atol=2e-6)
    assert stream.run(xs[:0]).shape == (0, OUTPUTS)


def test_windows_in_flight_equal_a_replay_to_the_bit(bundle, xs):
    model = load(bundle, "native")
    ys, replay = model.stream(window=T).run(xs), model.stream(carry=True)
    for t, y in enumerate(ys):
        replay.reset()
        np.testing.assert_array_equal(replay.run(xs[t : t + T])[-1], y)


def test_a_reset_in_the_middle_of_a_window(model, xs, weights):
    stream = model.stream(window=T, hop=2)
    stream.run(xs[:9])
    stream.reset()
    assert stream.steps == 0
    np.testing.assert_allclose(stream.run(xs[20:40]), list(wanted(weights, xs[20:40], T, 2).values()), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 5, 6, 7, 23])
@pytest.mark.parametrize(("hop", "partial"), [(1, False), (4, False), (4, True), (9, False)])
def test_snapshots_go_on_to_the_bit(model, xs, at, hop, partial):
    stream, unbroken = (model.stream(window=T, hop=hop, partial=partial) for _ in range(2))
    unbroken_answers = unbroken.run(xs[:50])
    first = stream.run(xs[:at])
    other = model.stream(window=T, hop=hop, partial=partial)
    other.run(xs[60:71])
    other.restore(stream.snapshot())
    assert other.steps == at
    np.testing.assert_array_equal(np.concatenate([first, other.run(xs[at:50])]), unbroken_answers)


def test_snapshots_of_other_windows_are_refused(model, xs):
    stream = model.stream(window=T, hop=2)
    stream.run(xs[:9])
    before = stream.snapshot()
    for other, words in (
        (model.stream(carry=True), "carries its state on"),
        (model.stream(window=T), "on the last 6 inputs every timestep"),
        (model.stream(window=T + 1, hop=2), "on the last 7 inputs every 2 timesteps"),
    ):
        with pytest.raises(InputError, match=words):
            stream.restore(other.snapshot())
    assert stream.snapshot() == before


def test_bad_input_leaves_the_window(model, xs, weights):
    stream = model.stream(window=T)
    stream.run(xs[:10])
    with pytest.raises(InputError, match="timestep 10: feature 1 is nan"):
        stream.step([1, np.nan, 3])
    bad = xs[10:20].copy()
    bad[7, 2] = np.inf
    with pytest.raises(InputError, match="timestep 7 of the chunk"):
        stream.run(bad)
    with pytest.raises(InputError, match="out must be"):
        stream.step(xs[10], out=np.empty(OUTPUTS))
    assert stream.steps == 10
    np.testing.assert_allclose(stream.run(xs[10:20]), list(wanted(weights, xs[:20], T).values())[5:], atol=2e-6)


def test_out_is_written_where_an_answer_is_due_and_left_alone_elsewhere(model, xs, weights):
    stream, out = model.stream(window=T), np.full(OUTPUTS, 7, np.float32)
    for x in xs[: T - 1]:
        assert stream.step(x, out=out) is None
    np.testing.assert_array_equal(out, 7)
    assert stream.step(xs[T - 1], out=out) is out
    np.testing.assert_allclose(out, wanted(weights, xs[:T], T)[T - 1], atol=2e-6)


def test_streams_in_a_fleet_are_where_they_are(model, xs, weights):
    """Each with a phase of its own: one starts later, one is reset, one rests."""
    fleet = model.fleet(3, window=T, hop=2)
    taken: list[list[np.ndarray]] = [[], [], []]
    rng = np.random.default_rng(4)
    for t in range(40):
        which = [0, 1] if t < 3 else sorted(rng.permutation(3)[:2].tolist())
        if t == 17:
            fleet.reset([1])
            taken[1] = []
        ys = fleet.step(np.stack([xs[t] * (i + 1) for i in which]), which)
        for row, i in enumerate(which):
            taken[i].append(xs[t] * np.float32(i + 1))
            want = wanted(weights, np.array(taken[i]), T, 2).get(len(taken[i]) - 1)
            assert fleet.due[row] == (want is not None)
            if want is None:
                assert np.isnan(ys[row]).all()
            else:
                np.testing.assert_allclose(ys[row], want, atol=2e-6)
    assert [fleet.steps(i) for i in range(3)] == [len(each) for each in taken]


def test_snapshots_go_between_fleets_and_streams(model, xs):
    fleet, stream = model.fleet(4, window=T, hop=4), model.stream(window=T, hop=4)
    stream.run(xs[:9])
    fleet.restore(2, stream.snapshot())
    assert fleet.snapshot(2) == stream.snapshot()
    for x in xs[9:30]:
        y, want = fleet.step(x[None], [2])[0], stream.step(x)
        assert np.isnan(y).all() if want is None else np.allclose(y, want, rtol=0, atol=1e-6)
    assert fleet.steps(2) == 30
    assert fleet.steps(0) == 0


def test_the_manifest_says_how_a_stream_answers_unless_one_asks(by_window, xs):
    model = by_window
    assert model.streaming == Streaming("window", T, 2)
    assert model.stream().window == model.fleet(2).window == Window(T, 2)
    assert model.stream(carry=True).window is None
    assert model.fleet(2, carry=True).window is None
    assert model.stream(hop=1).window == Window(T, 1)
    assert model.stream(partial=True).window == Window(T, 2, partial=True)
    assert model.stream(window=4).window == Window(4, 1)
    assert model.stream(window=T).window == Window(T, 2)
    assert [model.stream().step(x) is None for x in xs[:5]] == [True] * 5


def test_golden_vectors_of_windows_are_replayed_by_window(parts, weights, xs, tmp_path):
    from dataclasses import replace

    from edgelstm.runtime.manifest import File

    manifest, files = parts
    want = np.array(list(wanted(weights, xs[:50], T, 2).values()) + list(wanted(weights, xs[50:70], T, 2).values()))
    golden = Golden(xs[:70], want.astype(np.float32), (0, 50), Window(T, 2)).to_bytes()
    manifest = replace(manifest, golden=File.of("golden.npz", golden), streaming=Streaming("window", T, 2))
    path = write_bundle(tmp_path / "windows.edge", manifest, {**files, "golden.npz": golden}).path
    assert Bundle.open(path).golden().window == Window(T, 2)
    assert load(path).verify().steps == 23 + 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": 0}, "at least 1"),
        ({"window": -3}, "at least 1"),
        ({"window": 2**40}, "at most"),
        ({"window": 1.5}, "whole number"),
        ({"window": "6"}, "whole number"),
        ({"window": T, "hop": 0}, "at least 1"),
        ({"window": T, "hop": 0.5}, "whole number"),
        ({"hop": 2}, "give a window"),
        ({"partial": True}, "give a window"),
        ({"window": T, "carry": True}, "carry goes with neither"),
        ({"hop": 2, "carry": True}, "carry goes with neither"),
    ],
)
def test_wishes_that_cannot_be(model, arguments, words):
    for make in (model.stream, lambda **a: model.fleet(2, **a)):
        with pytest.raises(InputError, match=words):
            make(**arguments)


@pytest.mark.parametrize("streams", [0, -1, 2**62, 1.5])
def test_fleets_that_cannot_be(model, streams):
    with pytest.raises(InputError, match=r"at least 1|whole number"):
        model.fleet(streams, window=T)


def test_more_windows_than_there_is_memory(bundle):
    with pytest.raises(InputError, match="do not fit into memory"):
        load(bundle, "native").fleet(2**31 - 1, window=2**31 - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": np.zeros((3, OUTPUTS), np.float32)},
        {"starts": (1,)},
        {"starts": (0, 30)},
        {"starts": ()},
        {"inputs": np.zeros((20, FEATURES, 1), np.float32)},
        {"inputs": np.full((20, FEATURES), np.nan, np.float32)},
    ],
)
def test_golden_vectors_that_contradict_themselves(change):
    good = {
        "inputs": np.zeros((20, FEATURES), np.float32),
        "outputs": np.zeros((15, OUTPUTS), np.float32),
        "starts": (0,),
    }
    Golden(**good, window=Window(T))
    with pytest.raises(ValueError, match=r"answers|start|resets|shapes|finite"):
        Golden(**{**good, **change}, window=Window(T))
