"""Models that stream by window alone, in a graph made by hand, against a formula: streams, fleets, lines, messages."""

from __future__ import annotations

import json
import threading

import numpy as np
import onnx
import pytest
from edgelstm.runtime import BundleError, Golden, InputError, Manifest, Streaming, load
from edgelstm.runtime.backends.onnx import open_onnx
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime.fleet import Fleet
from edgelstm.runtime.manifest import Artifact, File
from edgelstm.runtime.mqtt.payload import PayloadReader
from edgelstm.runtime.onnx_metadata import CHECKSUM_KEY, CHECKSUM_PLACEHOLDER, seal
from edgelstm.runtime.parity import Parity
from edgelstm.runtime.stream import Stream
from edgelstm.runtime.streaming import Whole, Window
from onnx import TensorProto, helper, numpy_helper

from tests.engine.toolchain import require
from tests.runtime.command_line import call, refused
from tests.runtime.mosquitto import Mosquitto, Peer
from tests.runtime.served import Served

T, FEATURES, OUTPUTS = 6, 3, 2
BECAUSE = 'layer "both" (Bidirectional): half of it begins at the end of the sequence'
WEIGHTS = np.random.default_rng(1).standard_normal((FEATURES, OUTPUTS)).astype(np.float32)
# Which timestep of a window counts how much, so that none can stand in another's place.
PLACES = np.array([[1.0], [-2.0], [3.0], [0.5], [7.0], [-0.25]], np.float32)


def formula(window: np.ndarray, rows: bool) -> np.ndarray:
    every = (window * PLACES).astype(np.float64) @ WEIGHTS
    return np.cumsum(every, 0) if rows else every.sum(0)


def graph(rows: bool, whole: Whole, window: int = T, says: str = "window") -> bytes:
    """An ONNX file of what `formula` computes."""
    nodes = [
        helper.make_node("Mul", ["x", "places"], ["z"]),
        helper.make_node("MatMul", ["z", "weights"], ["each"]),
        helper.make_node("CumSum", ["each", "axis"], ["y"])
        if rows
        else helper.make_node("ReduceSum", ["each", "axes"], ["y"], keepdims=0),
    ]
    constants = {"places": PLACES, "weights": WEIGHTS, "axis": np.array(1), "axes": np.array([1])}
    shape = ["batch", T, OUTPUTS] if rows else ["batch", OUTPUTS]
    made = helper.make_graph(
        nodes,
        "window",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", T, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    description = {
        "name": "whole",
        "features": ["a", "b", "c"],
        "outputs": ["u", "v"],
        "streaming": {"mode": "window", "window": window, "whole": vars(whole)},
        "layers": ["both: Bidirectional"],
        "parameters": WEIGHTS.size,
        "precision": "float32",
        "graph": says,
    }
    for key, value in (("edgelstm", json.dumps(description)), (CHECKSUM_KEY, CHECKSUM_PLACEHOLDER)):
        model.metadata_props.add(key=key, value=value)
    return seal(model.SerializeToString())


def bundle_of(path, rows: bool = False, ids: int | None = None, hop: int = 1, change=lambda artifact: artifact):
    whole = Whole(BECAUSE, T if rows else None, ids)
    content = graph(rows, whole)
    xs = inputs(30, ids)
    window = Window(T, hop)
    answers = np.array([formula(xs[t + 1 - T : t + 1], rows) for t in window.due(0, len(xs))], np.float32)
    golden = Golden(xs, answers, (0,), window).to_bytes()
    artifact = Artifact(
        **vars(File.of("model.float32.onnx", content)),
        format="onnx",
        graph="window",
        precision="float32",
        parity=Parity(0.0, 0.0, 200.0, len(answers)),
        min_snr_db=100.0,
        min_output_snr_db=80.0,
    )
    manifest = Manifest(
        "whole",
        ("a", "b", "c"),
        ("u", "v"),
        Streaming("window", T, hop, whole=whole),
        ("both: Bidirectional",),
        WEIGHTS.size,
        (change(artifact),),
        File.of("golden.npz", golden),
    )
    return write_bundle(path, manifest, {"model.float32.onnx": content, "golden.npz": golden}).path


def inputs(steps: int, ids: int | None = None, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(ids, size=(steps, FEATURES)) if ids else rng.standard_normal((steps, FEATURES))).astype("f4")


@pytest.fixture(params=[False, True], ids=["last", "rows"])
def rows(request):
    return request.param


@pytest.fixture
def model(tmp_path, rows):
    return load(bundle_of(tmp_path / "x.edge", rows))


@pytest.mark.parametrize("hop", [1, 2, 6, 7])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_window(model, rows, hop, size):
    xs, stream, steps = inputs(80), model.stream(hop=hop), model.stream(hop=hop)
    want = [formula(xs[t - T : t], rows) for t in range(T, 81, hop)]
    found = np.concatenate([stream.run(xs[i : i + size]) for i in range(0, 80, size)])
    np.testing.assert_allclose(found, want, atol=2e-5)
    due = {t: y for t, x in enumerate(xs, 1) if (y := steps.step(x)) is not None}
    assert list(due) == list(range(T, 81, hop))
    np.testing.assert_array_equal(list(due.values()), found)
    assert found.shape[1:] == ((T, OUTPUTS) if rows else (OUTPUTS,))
    assert stream.outputs == OUTPUTS


@pytest.mark.parametrize("at", [0, 3, 5, 6, 20])
def test_snapshots_and_resets(model, rows, at):
    xs = inputs(60)
    unbroken, stream, other = (model.stream(hop=2) for _ in range(3))
    want = unbroken.run(xs[:40])
    first = stream.run(xs[:at])
    other.run(xs[40:53])
    other.restore(stream.snapshot())
    assert other.steps == at
    np.testing.assert_array_equal(np.concatenate([first, other.run(xs[at:40])]), want)
    other.reset()
    np.testing.assert_array_equal(other.run(xs[:40]), want)
    out = np.full(want.shape[1:], 7, np.float32)
    other.reset()
    assert other.step(xs[0], out=out) is None
    assert (out == 7).all()
    for x in xs[1:T]:
        answer = other.step(x, out=out)
    assert answer is out
    np.testing.assert_array_equal(out, want[0])


def test_a_fleet_whose_streams_are_where_they_are(model, rows):
    fleet, taken = model.fleet(3, hop=2), [[], [], []]
    rng = np.random.default_rng(4)
    for t, x in enumerate(inputs(40)):
        which = sorted(rng.permutation(3)[:2].tolist())
        if t == 17:
            fleet.reset([1])
            taken[1] = []
        ys = fleet.step(np.stack([x * (i + 1) for i in which]), which)
        for place, i in enumerate(which):
            taken[i].append(x * np.float32(i + 1))
            steps = len(taken[i])
            if steps >= T and (steps - T) % 2 == 0:
                assert fleet.due[place]
                np.testing.assert_allclose(ys[place], formula(np.array(taken[i][-T:]), rows), atol=2e-5)
            else:
                assert np.isnan(ys[place]).all()
    stream = model.stream(hop=2)
    stream.restore(fleet.snapshot(0))
    assert stream.steps == len(taken[0])


def test_streams_side_by_side(model, rows):
    xs, found = inputs(200), [np.empty(0)] * 4

    def run(i: int) -> None:
        found[i] = model.stream().run(xs * np.float32(i + 1))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = np.array([formula(xs[t - T : t], rows) for t in range(T, 201)])
    for i, ys in enumerate(found):
        np.testing.assert_allclose(ys, want * (i + 1), atol=1e-4)


@pytest.mark.parametrize("wish", [{"carry": True}, {"window": 5}, {"partial": True}, {"window": 5, "hop": 2}])
def test_it_streams_in_no_other_way(model, wish):
    for made in (model.stream, lambda **asked: model.fleet(2, **asked)):
        with pytest.raises(InputError, match=r"on its last 6 inputs at once, because of layer \"both\""):
            made(**wish)
    assert model.stream(window=T, hop=3).window == Window(T, 3)


def test_what_it_says_of_itself(model, rows, tmp_path):
    assert model.verify().snr_db > 100
    assert (model.rows, model.ids, model.state_names, model.state_bytes) == (T if rows else None, None, (), 0)
    assert (f"{T} × 2 outputs" if rows else "3 features → 2 outputs") in repr(model)
    shown = call("inspect", tmp_path / "x.edge").stdout
    assert "on the last 6" in shown
    assert BECAUSE in shown
    assert ("sequences of 6 rows" in shown) == rows
    assert "onnx float32 (window)" in shown
    done = call("verify", tmp_path / "x.edge")
    assert (done.returncode, "ok" in done.stdout) == (0, True)


def test_a_single_file(tmp_path, rows):
    path = tmp_path / "one.onnx"
    path.write_bytes(graph(rows, Whole(BECAUSE, T if rows else None)))
    model, xs = load(path), inputs(20)
    np.testing.assert_allclose(model.stream().run(xs)[-1], formula(xs[-T:], rows), atol=2e-5)
    assert BECAUSE in call("inspect", path).stdout


def test_ids(tmp_path):
    model, xs = load(bundle_of(tmp_path / "x.edge", ids=40)), inputs(20, 40)
    assert model.ids == 40
    stream, fleet = model.stream(), model.fleet(2)
    stream.run(xs[:10])
    before = stream.snapshot()
    for bad, shown in ((40, "40"), (-1, "-1"), (2.5, "2.5")):
        row = [1, bad, 3]
        words = f"feature 1 is {shown}, and the model knows the ids 0 to 39"
        with pytest.raises(InputError, match=f"timestep 10: {words}"):
            stream.step(row)
        with pytest.raises(InputError, match=f"timestep 1 of the chunk: {words}"):
            stream.run([[1, 2, 3], row])
        with pytest.raises(InputError, match=f"row 1: {words}.*no stream was stepped"):
            fleet.step([[1, 2, 3], row])
    assert stream.snapshot() == before
    done = call("run", tmp_path / "x.edge", stdin="a,b,c\n1,2,3\n1,44,3\n")
    assert done.returncode == 2
    assert "line 3: whole: timestep 1: feature 1 is 44, and the model knows the ids 0 to 39" in done.stderr
    assert "ids: the whole numbers 0 to 39" in call("inspect", tmp_path / "x.edge").stdout
    odd = Stream(open_onnx(graph(False, Whole(BECAUSE)), "m"), model._fingerprint, "m", Window(T))
    odd.run(np.full((3, FEATURES), 0.5, np.float32))
    with pytest.raises(InputError, match="no ids of the model"):
        stream.restore(odd.snapshot())


# ---- What is damaged or hostile ----


@pytest.mark.parametrize("change", [{"window": 7}, {"says": "step"}, {"rows": True}])
def test_a_file_that_is_not_what_it_says(change):
    whole = Whole(BECAUSE, 4 if "rows" in change else None)
    content = graph(False, whole, change.get("window", T), change.get("says", "window"))
    with pytest.raises(BundleError, match=r"export it again|not a step graph|of shape"):
        Stream(open_onnx(content, "m"), b"", "m", Window(change.get("window", T))).run(inputs(10))


@pytest.mark.parametrize("streaming", [{"window": 4}, {"whole": None}, {"whole": {"because": "other"}}])
def test_a_bundle_that_is_not_what_its_file_says(tmp_path, streaming):
    path = bundle_of(tmp_path / "x")
    raw = json.loads((path / "manifest.json").read_text())
    raw["streaming"] |= streaming
    (path / "manifest.json").write_text(json.dumps(raw))
    (path / "manifest.json.sha256").unlink()
    with pytest.raises(BundleError, match="not the graph, or not of the window"):
        load(path)


def test_without_a_window_a_window_graph_is_no_stream(rows):
    opened = open_onnx(graph(rows, Whole(BECAUSE, T if rows else None)), "m")
    with pytest.raises(InputError, match="carries no state"):
        Stream(opened, b"", "m")
    with pytest.raises(InputError, match="carries no state"):
        Fleet(opened, 2, b"", "m")


# ---- Lines and messages ----


def lines(xs: np.ndarray) -> str:
    return "".join(",".join(map(str, x)) + "\n" for x in xs)


def test_lines_of_csv(tmp_path, rows):
    path, xs = bundle_of(tmp_path / "x.edge", rows, hop=2), inputs(20)
    want = np.array([formula(xs[t - T : t], rows) for t in range(T, 21, 2)])
    last = want[:, -1] if rows else want
    done = call("run", path, stdin="a,b,c\n" + lines(xs))
    header, *found = done.stdout.splitlines()
    assert header == "u,v"
    np.testing.assert_allclose([[float(cell) for cell in line.split(",")] for line in found], last, atol=2e-5)
    if not rows:
        assert "each answer of this model is a single row" in refused("run", path, "--rows", "all")
        return
    done = call("run", path, "--rows", "all", stdin="a,b,c\n" + lines(xs))
    header, *found = done.stdout.splitlines()
    assert header == "row,u,v"
    table = np.array([[float(cell) for cell in line.split(",")] for line in found]).reshape(-1, T, 3)
    np.testing.assert_array_equal(table[..., 0], np.tile(np.arange(1, T + 1), (len(want), 1)))
    np.testing.assert_allclose(table[..., 1:], want, atol=2e-5)


def test_lines_of_json(tmp_path):
    path, xs = bundle_of(tmp_path / "x.edge", rows=True), inputs(9)
    given = "".join(json.dumps(x.tolist()) + "\n" for x in xs)
    found = [json.loads(line) for line in call("run", path, "--rows", "all", stdin=given).stdout.splitlines()]
    assert [each["row"] for each in found] == [1, 2, 3, 4, 5, 6] * 4
    want = np.concatenate([formula(xs[t - T : t], True) for t in range(T, 10)])
    np.testing.assert_allclose([[each["u"], each["v"]] for each in found], want, atol=2e-5)
    found = [json.loads(line) for line in call("run", path, stdin=given).stdout.splitlines()]
    assert [list(each) for each in found] == [["u", "v"]] * 4


def test_a_run_that_is_broken_off_goes_on_as_if_it_were_not(tmp_path, rows):
    """Between the save and the end it has written answers, the last of them half."""
    path, xs = bundle_of(tmp_path / "x.edge", rows), inputs(30)
    every = ("--rows", "all") if rows else ()
    (tmp_path / "whole.csv").write_text(lines(xs))
    assert call("run", path, tmp_path / "whole.csv", *every, "--output", tmp_path / "want").returncode == 0
    log, out, state = tmp_path / "log.csv", tmp_path / "out", tmp_path / "state"
    for end in (4, 13, 30):
        log.write_text(lines(xs[:end]))
        done = call("run", path, log, *every, "--output", out, "--state", state)
        assert done.returncode == 0, done.stderr
        if end < 30:
            with out.open("a") as file:
                file.write("1,0.25,0.5\n2,0.2")
    assert out.read_bytes() == (tmp_path / "want").read_bytes()


def test_answers_of_messages(rows):
    y = np.array([[1, 2], [3, 4.5]], np.float32) if rows else np.array([3, 4.5], np.float32)
    last = PayloadReader(("a",), ("u", "v"), "auto", "seq")
    assert last.answer(last.read(b'{"a": 1, "seq": 7}'), y) == b'{"seq": 7, "u": 3.0, "v": 4.5}'
    assert last.answer(last.read(b"\0\0\0\0"), y) == np.array([3, 4.5], "<f4").tobytes()
    if rows:
        every = PayloadReader(("a",), ("u", "v"), "auto", "seq", all_rows=True)
        assert every.answer(every.read(b'{"a": 1, "seq": 7}'), y) == b'{"seq": 7, "u": [1.0, 3.0], "v": [2.0, 4.5]}'
        assert every.answer(every.read(b"\0\0\0\0"), y) == y.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("all_rows", [False, True])
def test_as_a_service(tmp_path, all_rows):
    require("mosquitto")
    path, xs = bundle_of(tmp_path / "x.edge", rows=True), inputs(14)
    broker = Mosquitto(tmp_path / "broker").start()
    peer = Peer(broker, "#")
    options = ("--state", tmp_path / "states", *(("--rows", "all") if all_rows else ()))
    try:
        for part in (slice(0, 9), slice(9, 14)):  # It goes on in the middle of its windows.
            with Served(path, broker.url, *options) as served:
                for t in range(*part.indices(14)):
                    peer.publish(
                        "plant/one/in", json.dumps({"seq": t, **dict(zip("abc", xs[t].tolist(), strict=True))})
                    )
                answers = peer.wait("plant/one/out", part.stop - T + 1)
                served.end()
    finally:
        peer.close()
        broker.stop()
    found = [json.loads(answer) for answer in answers]
    assert [each["seq"] for each in found] == list(range(T - 1, 14))
    want = np.array([formula(xs[t - T : t], True) for t in range(T, 15)])
    numbers = np.array([np.transpose([each["u"], each["v"]]) for each in found])
    np.testing.assert_allclose(numbers, want if all_rows else want[:, -1], atol=2e-5)


def test_onnx_itself_gives_the_same(rows):
    """The formula is the graph's, by another reader of the file."""
    from onnx.reference import ReferenceEvaluator

    xs = inputs(T)
    model = onnx.load_from_string(graph(rows, Whole(BECAUSE, T if rows else None)))
    (y,) = ReferenceEvaluator(model).run(None, {"x": xs[None]})
    np.testing.assert_allclose(y[0], formula(xs, rows), atol=2e-5)
