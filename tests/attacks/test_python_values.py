"""Values that Python code hands to a stream or a fleet: an error of ours or the right answer, and the state kept."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading

import numpy as np
import pytest
from edgelstm.runtime import InputError, load
from edgelstm.runtime.network import LSTM, Dense, Network

BACKENDS = ["native", "numpy", "tflite"]
MODES = [{}, {"window": 4}]


@pytest.fixture(params=BACKENDS)
def model(request, bundle):
    if request.param == "tflite":
        pytest.importorskip("ai_edge_litert")
    return load(bundle, request.param)


class RaisingArray:
    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("the file is gone")


class Assigning(np.ndarray):
    def __setitem__(self, *_: object) -> None:
        raise MemoryError


def masked(shape, **how):
    return np.ma.masked_array(np.ones(shape, np.float32), **how)


INPUTS = {
    "a masked value": (
        masked(3, mask=[True, False, False]),
        r"is a masked array, and no value may be missing; fill it",
    ),
    "masked float64": (masked(3).astype(float), "is a masked array"),
    "nothing masked": (masked(3), "is a masked array"),
    "a list of masked values": ([np.ma.masked, 1.0, 1.0], "is a masked array"),
    "no array": (RaisingArray(), r"is not an array of numbers \(the file is gone\)"),
    "ragged": ([[1], [1, 2]], "is not an array of numbers"),
    "nothing": (None, "holds object values, not numbers"),
    "a huge integer": ([10**400, 1, 1], "holds object values"),
    "truth": (np.ones(3, bool), "holds bool values"),
    "dates": (np.zeros(3, "M8[s]"), "holds datetime64"),
    "too large for float32": ([1e39, 0, 0], "feature 0 is inf"),
}
OUTS = {
    "a list": ([0.0, 0.0], "not a list"),
    "bytes": (bytearray(8), "not a bytearray"),
    "a masked array": (np.ma.zeros(2, np.float32), "not a MaskedArray"),
    "one that fails when it is written": (np.zeros(2, np.float32).view(Assigning), "not a Assigning"),
    "read-only": (np.frombuffer(bytes(8), np.float32), "read-only"),
    "big-endian": (np.zeros(2, ">f4"), "not >f4 of shape"),
}


@pytest.mark.parametrize("mode", MODES, ids=["carry", "window"])
@pytest.mark.parametrize("what", INPUTS)
def test_inputs(model, xs, what, mode):
    stream, (x, words) = model.stream(**mode), INPUTS[what]
    stream.run(xs[:10])
    before = stream.snapshot()
    for attempt in (lambda: stream.step(x), lambda: stream.run([x] if what.startswith("too") else x)):
        with pytest.raises(InputError, match=words):
            attempt()
    assert stream.snapshot() == before
    fleet = model.fleet(1, **mode)
    with pytest.raises(InputError, match=words):
        fleet.step([x] if what.startswith("too") else x)
    assert fleet.steps(0) == 0


@pytest.mark.parametrize("mode", MODES, ids=["carry", "window"])
@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize("what", OUTS)
def test_where_answers_go(model, xs, what, as_array, mode):
    stream, (out, words) = model.stream(**mode), OUTS[what]
    stream.run(xs[:10])
    before = stream.snapshot()
    with pytest.raises(InputError, match=f"out must be a float32 array of shape .2,., .*{words}"):
        stream.step(xs[10] if as_array else xs[10].tolist(), out=out)
    assert stream.snapshot() == before
    fleet = model.fleet(1, **mode)
    shaped = out.reshape(1, 2) if isinstance(out, np.ndarray) else out
    with pytest.raises(InputError, match=f"out must be a C-contiguous float32 array of shape .1, 2., .*{words}"):
        fleet.step(xs[:1], out=shaped)
    assert fleet.steps(0) == 0


def test_a_masked_array_that_is_filled_is_taken(model, xs):
    given = np.ma.masked_array(xs[0], mask=[True, False, False])
    want = model.stream().step(np.array([0.5, *xs[0, 1:]], np.float32))
    np.testing.assert_array_equal(model.stream().step(given.filled(0.5)), want)


def test_subclasses_that_write_as_arrays_do_are_written(model, xs, tmp_path):
    out = np.memmap(tmp_path / "answers", np.float32, "w+", shape=(2,))
    want = model.stream().step(xs[0])
    np.testing.assert_array_equal(model.stream().step(np.asarray(xs[0]).view(np.memmap), out=out), want)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "answers", np.float32), want)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 0)])
def test_chunks_of_nothing(model, xs, shape):
    stream = model.stream()
    with pytest.raises(InputError, match="a chunk has shape"):
        stream.run(np.zeros(shape, np.float32))
    assert stream.run([]).shape == (0, 2)
    assert stream.steps == 0


@pytest.mark.parametrize("value", [0, -1, 2**31, 2**40, 2**63, 10**400])
@pytest.mark.parametrize("argument", ["window", "hop", "streams"])
def test_numbers_out_of_range(model, argument, value):
    words = r"at least 1 (timestep|stream), and 2,147,483,647 at most"
    with pytest.raises(InputError, match=words):
        model.fleet(value) if argument == "streams" else model.stream(**{"window": 4, argument: value})


@pytest.mark.parametrize("value", [1.5, "3", True, [4], np.float32(4), np.bool_(True)])
@pytest.mark.parametrize("argument", ["window", "hop", "streams"])
def test_numbers_that_are_none(model, argument, value):
    with pytest.raises(InputError, match="is a whole number, not "):
        model.fleet(value) if argument == "streams" else model.stream(**{"window": 4, argument: value})


def test_more_than_fits_into_memory(model):
    with pytest.raises(InputError, match=r"do(es)? not fit into memory"):
        model.stream().run(np.broadcast_to(np.ones(3), (2**45, 3)))
    with pytest.raises(InputError, match="do not fit into memory"):
        model.fleet(2**31 - 1, window=2**31 - 1)


@pytest.mark.parametrize("snapshot", [None, "EDGESTRM", 7, b"", b"EDGESTRM", [1]])
def test_snapshots_that_are_none(model, xs, snapshot):
    stream, fleet = model.stream(), model.fleet(2)
    stream.run(xs[:5])
    before = stream.snapshot()
    for restore in (stream.restore, lambda given: fleet.restore(1, given)):
        with pytest.raises(InputError, match=r"a snapshot is bytes, not|not a stream's snapshot"):
            restore(snapshot)
    assert (stream.snapshot(), fleet.steps(1)) == (before, 0)
    stream.restore(memoryview(before))


@pytest.mark.parametrize("mode", MODES, ids=["carry", "window"])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_has_a_state_of_its_own(model, xs, copied, mode):
    stream, fleet = model.stream(**mode), model.fleet(3, **mode)
    stream.run(xs[:10])
    for x in xs[:10]:
        fleet.step([x, x, x])
    fleet.reset([1])
    other, others = copied(stream), copied(fleet)
    before = stream.snapshot(), [fleet.snapshot(i) for i in range(3)]
    got, got_all = other.run(xs[10:20]), [others.step([x, x, x]) for x in xs[10:20]]
    assert (other.steps, others.steps(0), others.steps(1)) == (20, 20, 10)
    assert (stream.snapshot(), [fleet.snapshot(i) for i in range(3)]) == before
    np.testing.assert_array_equal(got, stream.run(xs[10:20]))
    np.testing.assert_array_equal(got_all, [fleet.step([x, x, x]) for x in xs[10:20]])


def test_what_is_pickled_is_the_model_and_a_snapshot(model, xs):
    stream, fleet = model.stream(), model.fleet(2)
    stream.run(xs[:10])
    for one in (stream, fleet):
        with pytest.raises(InputError, match="does not pickle; pickle its model and its"):
            pickle.dumps(one)
    there, snapshot = pickle.loads(pickle.dumps((model, stream.snapshot())))
    other = there.stream()
    other.restore(snapshot)
    np.testing.assert_array_equal(other.run(xs[10:20]), stream.run(xs[10:20]))


@pytest.mark.parametrize("model", ["numpy", "tflite"], indirect=True)  # The engine allocates nothing.
@pytest.mark.parametrize("mode", MODES, ids=["carry", "window"])
def test_a_step_that_runs_out_of_memory_leaves_every_stream_as_it_was(model, xs, mode, monkeypatch):
    """The second session to be stepped fails, as its library's allocation would."""
    fleet, stream = model.fleet(3, **mode), model.stream(**mode)
    for x in xs[:10]:
        fleet.step([x, x, x])
        stream.step(x)
    before = [fleet.snapshot(i) for i in range(3)], stream.snapshot()
    session = type(model._opened.session())
    calls = []
    with monkeypatch.context() as patch:
        for method, real in (("run", session.run), ("advance", session.advance)):

            def failing(self, *arguments, real=real):
                calls.append(self)
                if len(calls) == 2:
                    raise MemoryError
                return real(self, *arguments)

            patch.setattr(session, method, failing)
        with pytest.raises(MemoryError):
            fleet.step(xs[10:13])
        calls[:] = [None]
        with pytest.raises(MemoryError):
            stream.run(xs[10:11])
    assert ([fleet.snapshot(i) for i in range(3)], stream.snapshot()) == before
    assert [fleet.steps(i) for i in range(3)] == [10, 10, 10]


@pytest.mark.slow
def test_a_child_of_a_process_whose_thread_was_stepping(tmp_path):
    """The child has the model for streams of its own; the stream that another thread was stepping is refused."""
    from edgelstm.export.to_native import native_step_file

    rng = np.random.default_rng(11)
    lstm = LSTM(
        "lstm",
        *(rng.standard_normal(shape).astype(np.float32) for shape in ((4, 1024), (256, 1024), (1024,))),
    )
    dense = Dense("dense", rng.standard_normal((256, 2)).astype(np.float32), np.zeros(2, np.float32))
    description = {"name": "large", "features": list("abcd"), "outputs": ["u", "v"], "graph": "step"}
    description |= {"streaming": {"mode": "carry"}, "precision": "float32"}
    path = tmp_path / "large.elm"
    path.write_bytes(native_step_file(Network("large", (lstm, dense), 4, True), "float32", description))
    model = load(path)
    xs = rng.standard_normal((200_000, 4)).astype(np.float32)
    want, stepping = model.stream().run(xs[:100]), model.stream()
    started, running = threading.Event(), True

    def step() -> None:
        started.set()
        while running:
            stepping.run(xs)

    thread = threading.Thread(target=step)
    thread.start()
    started.wait()
    reads, writes = os.pipe()
    said = b"not once was the stream in use"
    try:
        for _ in range(50):  # Between two chunks nobody steps it.
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # A deadlock ends.
                same = np.array_equal(model.stream().run(xs[:100]), want)
                try:
                    stepping.step(xs[0])
                    os.write(writes, b"free")
                except InputError as error:
                    os.write(writes, f"{same} {error}".encode())
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0
            said = os.read(reads, 1000)
            if said != b"free":
                break
    finally:
        running = False
        thread.join()
        os.close(reads)
        os.close(writes)
    assert said.startswith(b"True the stream or fleet is in use by another thread, or was when this process was forked")
