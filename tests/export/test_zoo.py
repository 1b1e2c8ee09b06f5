"""Every model of the zoo × format × precision, streamed and compared with Keras at every timestep."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import Model, ParityError
from edgelstm.runtime.backends import BACKENDS
from edgelstm.runtime.bundle import Bundle
from edgelstm.runtime.manifest import Artifact
from edgelstm.runtime.model import load_artifact
from edgelstm.runtime.parity import TOLERANCES

from tests.export.interpreters import litert_sequence, litert_steps, snr_db
from tests.zoo import DISCONTINUOUS, ZOO, zoo_inputs, zoo_model
from tests.zoo_bundles import zoo_bundle

STEPS = 320
pytestmark = pytest.mark.slow


@cache
def network(name: str):
    return read_keras(zoo_model(name))


@cache
def expected(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that no export has seen, and Keras's outputs for every prefix of them."""
    xs = zoo_inputs(name, STEPS, seed)
    return xs, network(name).reference(xs)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return cache(lambda name: zoo_bundle(tmp_path_factory, name))


def models(bundle: Bundle) -> list[tuple[str, float, Model]]:
    return [
        (f"{a.label} on {backend}", TOLERANCES[a.precision], load_artifact(bundle, a, backend))
        for a in bundle.manifest.artifacts
        for backend, (format_, _) in BACKENDS.items()
        if a.graph == "step" and format_ == a.format
    ]


def content(bundle: Bundle, format_: str, graph: str, precision: str = "float32") -> bytes | None:
    for artifact in bundle.manifest.artifacts:
        if (artifact.format, artifact.graph, artifact.precision) == (format_, graph, precision):
            return bundle.read(artifact)
    return None


@pytest.mark.parametrize("name", ZOO)
def test_streams_follow_keras(bundles, name):
    """At every t, from two resets, step by step and in chunks, and on from a snapshot."""
    bundle = bundles(name)
    made = {a.label for a in bundle.manifest.artifacts}
    assert len(made) == (4 if name in DISCONTINUOUS else 16)
    for label, least, model in models(bundle):
        stream = model.stream()
        for seed in (1, 2):
            xs, want = expected(name, seed)
            stream.reset()
            ys = np.array([stream.step(x) for x in xs])
            assert ys.shape == want.shape
            assert snr_db(ys, want) >= least, label
            for size in (7,) if seed == 1 else (1, 64):
                stream.reset()
                chunks = np.concatenate([stream.run(xs[i : i + size]) for i in range(0, STEPS, size)])
                if "onnx" in label:
                    # One call for a chunk sums in another order than a call for each step.
                    assert snr_db(chunks, ys) >= 100, f"{label} in chunks of {size}"
                else:
                    np.testing.assert_array_equal(chunks, ys, f"{label} in chunks of {size}")
        xs, want = expected(name, 1)
        stream.reset()
        stream.run(xs[:100])
        other = model.stream()
        other.run(xs[200:230])
        other.restore(stream.snapshot())
        assert snr_db(other.run(xs[100:]), want[100:]) >= least, f"{label} from a snapshot"


@pytest.mark.parametrize("name", ZOO)
def test_the_first_timesteps_follow_keras(bundles, name):
    """An error in the zero state would drown in a long stream."""
    xs, want = expected(name, 1)
    for label, _, model in models(bundles(name)):
        if "float32" in label:
            np.testing.assert_allclose(model.stream().run(xs[:3]), want[:3], rtol=1e-4, atol=1e-5, err_msg=label)


@pytest.mark.parametrize("name", ZOO)
def test_the_interpreters_own_calls_agree(bundles, name):
    """What an application sees that knows nothing of this package's runtime."""
    bundle = bundles(name)
    xs, want = expected(name, 1)
    for precision in TOLERANCES:
        step = content(bundle, "tflite", "step", precision)
        if step is not None:
            assert snr_db(litert_steps(step, xs), want) >= TOLERANCES[precision], precision
    rows = want if network(name).return_sequences else want[-1:]
    for precision in TOLERANCES:
        sequence = content(bundle, "tflite", "sequence", precision)
        if sequence is not None:
            assert snr_db(litert_sequence(sequence, xs).reshape(rows.shape), rows) >= TOLERANCES[precision], precision


@pytest.mark.parametrize("name", ["wide", "wide_cells", "wide_masking"])
def test_all_that_goes_in_and_comes_out_is_float32(bundles, name):
    """States too: who feeds them back has nothing to convert, in any precision. Read by the runtimes themselves."""
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    states = {spec.name for spec in network(name).states}
    for artifact in bundles(name).manifest.artifacts:
        file = bundles(name).read(artifact)
        if artifact.format == "tflite":
            runner = Interpreter(model_content=file).get_signature_runner(artifact.graph)
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
            types = {tensor["dtype"] for tensor in (*inputs.values(), *outputs.values())}
            assert types == {np.float32}, artifact.label
        elif artifact.format == "onnx":
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            inputs = {tensor.name: tensor.type for tensor in session.get_inputs()}
            outputs = {tensor.name: tensor.type for tensor in session.get_outputs()}
            assert {*inputs.values(), *outputs.values()} == {"tensor(float)"}, artifact.label
        else:
            continue
        if artifact.graph == "step":
            assert inputs.keys() == {"x", *states}, artifact.label
            assert outputs.keys() == {"y", *(f"{state}_next" for state in states)}, artifact.label


def test_there_are_enough_models():
    assert len(ZOO) >= 25


@pytest.mark.parametrize("name", ["wide_cells", "wide_masking"])
def test_no_drift_in_30_000_steps(bundles, name):
    """Integer products. The data repeat, so that the tenths differ by nothing but what has accumulated."""
    xs = np.tile(zoo_inputs(name, 3000, 5), (10, 1))
    want = network(name).reference(xs)
    for precision in ("dynamic", "int8", "int16x8"):
        step = content(bundles(name), "tflite", "step", precision)
        assert step is not None
        squares = np.square(litert_steps(step, xs) - want).reshape(10, -1).mean(1)
        assert squares[-1] <= 1.05 * squares[0], precision


@pytest.mark.parametrize("name", ["tutorial_stacked", "gru", "masking", "wide_cells"])
def test_exporting_twice_gives_the_same_bytes(bundles, tmp_path, name):
    first = bundles(name)
    calibration = np.stack([zoo_inputs(name, 400, 100 + i) for i in range(8)])
    again = export(
        read_keras(zoo_model(name)),
        tmp_path / f"{name}.edge",
        precisions=list(TOLERANCES),
        graphs=["step", "sequence"],
        calibration=calibration,
        carry=True,
    )
    for a, b in zip(first.manifest.artifacts, again.manifest.artifacts, strict=True):
        assert isinstance(a, Artifact)
        assert a.sha256 == b.sha256, a.label
    assert first.path.read_bytes() == again.path.read_bytes()


def test_beyond_tolerance_nothing_is_written(tmp_path):
    path = tmp_path / "x.edge"
    with pytest.raises(ParityError, match="no bundle is written") as raised:
        export(network("tutorial_stacked"), path, ["onnx", "tflite"], ["float32", "dynamic"], min_snr=90)
    assert not list(tmp_path.iterdir())
    assert {str(r.target): r.passed for r in raised.value.results}["onnx float32"]
    bundle = export(network("tutorial_deep"), path, ["tflite"], ["float32", "dynamic"], min_snr=90, keep_going=True)
    assert [a.label for a in bundle.manifest.artifacts] == ["tflite float32", "native float32"]
    assert Bundle.open(path).manifest == bundle.manifest
