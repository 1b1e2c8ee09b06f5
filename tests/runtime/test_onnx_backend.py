"""The `onnx` backend against formulas in float64, onnxruntime's own calls, and what can go wrong."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgelstm.export.to_onnx.graph import onnx_step_graph
from edgelstm.runtime.backends import onnx as backend
from edgelstm.runtime.backends.onnx import OnnxArtifact
from edgelstm.runtime.errors import BackendUnavailableError, BundleError
from edgelstm.runtime.network import LSTM, Dense, Network
from edgelstm.runtime.onnx_metadata import CHECKSUM_KEY, seal


@pytest.fixture(scope="module")
def content(network) -> bytes:
    return onnx_step_graph(network, "float32", {"edgelstm": '{"name": "small"}'})


@pytest.fixture(scope="module")
def artifact(content) -> OnnxArtifact:
    return OnnxArtifact(content, "small.onnx")


@pytest.fixture(scope="module")
def wide_content() -> bytes:
    """A network that quantises its activations."""
    rng = np.random.default_rng(4)

    def w(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    layer = LSTM("wide", w(8, 512, scale=0.7), w(128, 512, scale=0.06), w(512))
    layers = (Dense("first", w(3, 8), w(8)), layer, Dense("head", w(128, 2, scale=0.1), w(2)))
    content = onnx_step_graph(Network("wide", layers, 3, True), "dynamic", {})
    assert b"DynamicQuantizeLSTM" in content
    return content


@pytest.fixture(scope="module")
def wide(wide_content) -> OnnxArtifact:
    return OnnxArtifact(wide_content, "wide.onnx")


def step_through(session, xs: np.ndarray) -> np.ndarray:
    ys = []
    for x in xs:
        session.x[...] = x
        session.advance()
        ys.append(session.y.copy())
    return np.array(ys)


def run(session, xs: np.ndarray) -> np.ndarray:
    ys = np.empty((len(xs), session.y.size), np.float32)
    session.run(xs, ys)
    return ys


def test_what_a_file_says_of_itself(artifact):
    assert (artifact.features, artifact.outputs) == (3, 2)
    assert artifact.state_names == ("lstm_h", "lstm_c")
    assert artifact.state_bytes == 2 * 5 * 4
    assert artifact.metadata == {"edgelstm": '{"name": "small"}'}


def test_steps_and_chunks_follow_the_formulas(artifact, xs, expected):
    session = artifact.session()
    np.testing.assert_allclose(step_through(session, xs), expected, atol=2e-6)
    for size in (1, 7, 64, 300):
        session.reset()
        ys = np.concatenate([run(session, xs[i : i + size]) for i in range(0, 300, size)])
        np.testing.assert_allclose(ys, expected, atol=2e-6)


def test_sequences_longer_than_one_call(artifact, xs):
    long = np.tile(xs, (5, 1))
    np.testing.assert_allclose(run(artifact.session(), long), step_through(artifact.session(), long), atol=1e-6)


def test_the_same_as_onnxruntime_s_documented_call(content, artifact, xs):
    import onnxruntime

    plain = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    h = c = np.zeros((1, 1, 5), np.float32)
    ys = []
    for x in xs:
        y, h, c = plain.run(["y", "lstm_h_next", "lstm_c_next"], {"x": x[None, None], "lstm_h": h, "lstm_c": c})
        ys.append(y[0, 0])
    session = artifact.session()
    np.testing.assert_array_equal(step_through(session, xs), ys)
    np.testing.assert_array_equal(session.states()[0], h[0, 0])
    np.testing.assert_array_equal(session.states()[1], c[0, 0])


def test_quantised_activations_give_the_same_in_chunks_bit_for_bit(wide, xs):
    session = wide.session()
    stepped = step_through(session, xs)
    for size in (7, 300):
        session.reset()
        chunks = np.concatenate([run(session, xs[i : i + size]) for i in range(0, 300, size)])
        np.testing.assert_array_equal(chunks, stepped)


def test_no_timesteps_change_nothing(artifact, xs):
    session = artifact.session()
    step_through(session, xs[:5])
    before = session.states()
    assert run(session, xs[:0]).shape == (0, 2)
    for a, b in zip(before, session.states(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_strided_arrays(artifact, xs, expected):
    ys = np.zeros((300, 4), np.float32)
    artifact.session().run(np.repeat(xs, 2, axis=1)[:, ::2], ys[:, ::2])
    np.testing.assert_allclose(ys[:, ::2], expected, atol=2e-6)
    assert not ys[:, 1::2].any()


def test_states_are_copies_and_come_back(artifact, xs, expected):
    session = artifact.session()
    step_through(session, xs[:101])  # An odd number: the other of the two sets of states.
    saved = session.states()
    step_through(session, xs[101:150])
    other = artifact.session()
    step_through(other, xs[200:203])
    other.restore(saved)
    for state in saved:
        state[...] = 9
    np.testing.assert_allclose(step_through(other, xs[101:]), expected[101:], atol=2e-6)
    other.reset()
    np.testing.assert_allclose(step_through(other, xs), expected, atol=2e-6)


def test_streams_do_not_share_states(artifact, xs, expected):
    first, second = artifact.session(), artifact.session()
    for t in range(100):
        for session, at in ((first, t), (second, t // 2)):
            if session is first or t % 2 == 0:
                session.x[...] = xs[at]
                session.advance()
                np.testing.assert_allclose(session.y, expected[at], atol=2e-6)


def test_a_failing_step_leaves_the_state(artifact, xs, expected):
    session = artifact.session()
    step_through(session, xs[:10])

    def fail(*_):
        raise RuntimeError("no\nmemory")

    call, session._call = session._call, fail
    with pytest.raises(BundleError, match=re.escape("small.onnx: onnxruntime failed (no memory)")):
        session.advance()
    session._call = call
    np.testing.assert_allclose(step_through(session, xs[10:]), expected[10:], atol=2e-6)


def test_a_chunk_that_fails_late_leaves_the_state(artifact, xs, expected, monkeypatch):
    monkeypatch.setattr(backend, "_CHUNK", 50)
    session = artifact.session()
    step_through(session, xs[:10])
    call, calls = session._call, []

    def fail_at_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        call(*arguments)

    session._call = fail_at_third
    with pytest.raises(KeyboardInterrupt):
        run(session, xs[10:])
    session._call = call
    np.testing.assert_allclose(run(session, xs[10:]), expected[10:], atol=2e-6)


def test_threads_share_one_artifact(artifact, wide, xs):
    long = np.tile(xs, (10, 1))
    for shared in (artifact, wide):
        want = step_through(shared.session(), long)
        answers: dict[int, np.ndarray] = {}

        def work(number: int, shared=shared, answers=answers) -> None:
            answers[number] = step_through(shared.session(), long)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(4):
            np.testing.assert_array_equal(answers[number], want)


def test_a_session_outlives_its_artifact(content, xs, expected):
    session = OnnxArtifact(content, "small.onnx").session()
    bare = OnnxArtifact(content, "small.onnx").session().bare_call()
    gc.collect()
    filler = [np.full(1000, 7, np.float32) for _ in range(100)]  # Takes any memory let go of by mistake.
    bare()
    np.testing.assert_allclose(step_through(session, xs), expected, atol=2e-6)
    assert len(filler) == 100


def test_benchmarks_do_not_disturb_a_stream(artifact, xs, expected):
    session = artifact.session()
    bare = session.bare_call()
    ys = []
    for x in xs[:50]:
        session.x[...] = x
        bare()
        session.advance()
        bare()
        ys.append(session.y.copy())
    np.testing.assert_allclose(ys, expected[:50], atol=2e-6)


GROWTH = """
import gc, sys
from pathlib import Path
import numpy as np
from edgelstm.runtime.backends.onnx import OnnxArtifact

artifact = OnnxArtifact(Path(sys.argv[1]).read_bytes(), "a file")
session = artifact.session()
lengths = np.random.default_rng(0).integers(1, 1200, 200)
xs, ys = np.ones((1200, 3), np.float32), np.empty((1200, 2), np.float32)

def work(steps):
    for _ in range(steps):
        session.advance()
    for length in lengths:
        session.run(xs[:length], ys[:length])
    for _ in range(500):
        artifact.session().advance()
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

before = work(1000)
print(work(200_000) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("which", ["content", "wide_content"])
def test_memory_does_not_grow(request, tmp_path, which):
    """In a process of its own, where nothing else allocates."""
    path = tmp_path / "model.onnx"
    path.write_bytes(request.getfixturevalue(which))
    done = subprocess.run([sys.executable, "-c", GROWTH, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1 << 20


def test_every_flipped_bit_is_noticed(content):
    for at in np.random.default_rng(1).integers(0, len(content), 200):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(at % 8)
        with pytest.raises(BundleError, match=r"small\.onnx"):
            OnnxArtifact(bytes(damaged), "small.onnx")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_files_are_refused(content, keep):
    with pytest.raises(BundleError, match=r"small\.onnx: .*damaged"):
        OnnxArtifact(content[:keep], "small.onnx")


def resealed(content: bytes, change) -> bytes:
    """A whole file, checksum and all, of another graph."""
    model = onnx.load_from_string(content)
    change(model)
    for entry in model.metadata_props:
        if entry.key == CHECKSUM_KEY:
            entry.value = "-" * 8
    return seal(model.SerializeToString())


def rename_output(model) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "answer"


def lose_a_state(model) -> None:
    del model.graph.output[2]


def ask_for_more(model) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, (1, "batch", 2)))


@pytest.mark.parametrize("change", [rename_output, lose_a_state, ask_for_more])
def test_other_interfaces_are_refused(content, change):
    with pytest.raises(BundleError, match="not a step graph of EdgeLSTM"):
        OnnxArtifact(resealed(content, change), "small.onnx")


def test_files_that_this_onnxruntime_cannot_load(content):
    def from_the_future(model) -> None:
        model.opset_import[0].version = 999

    with pytest.raises(BundleError, match=r"this onnxruntime \(.*\) cannot load it"):
        OnnxArtifact(resealed(content, from_the_future), "small.onnx")


def test_files_of_others_are_refused(content):
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    with pytest.raises(BundleError, match="was not written by EdgeLSTM"):
        OnnxArtifact(model.SerializeToString(), "small.onnx")


def test_without_onnxruntime(content, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=re.escape('pip install "edgelstm[onnx]"')):
        OnnxArtifact(content, "small.onnx")
