"""The native backend as Python drives it: in place, beside other threads, or not there at all."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from edgelstm.runtime import BackendUnavailableError, BundleError, InputError, load
from edgelstm.runtime.network import LSTM, Network

from tests.wheel import build_wheel, own_wheel

pytest.importorskip("edgelstm.runtime._native")


@pytest.fixture
def model(bundle):
    return load(bundle, "native")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model whose steps take long enough to meet other threads."""
    from edgelstm.export.to_native import native_step_file

    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.05, shape).astype(np.float32) for shape in ((4, 1024), (256, 1024), (1024,))]
    network = Network("large", (LSTM("lstm", *weights),), 4, True)
    names = {"features": list("abcd"), "outputs": [f"y{i}" for i in range(256)]}
    path = tmp_path_factory.mktemp("large") / "large.elm"
    description = {"name": "large", "streaming": {}, "precision": "float32", **names}
    path.write_bytes(native_step_file(network, "float32", description))
    return load(path)


def test_it_is_the_first_choice(bundle):
    assert load(bundle).backend == "native"


def test_a_step_takes_what_numpy_takes_and_writes_in_place(model, xs, expected):
    stream, out = model.stream(), np.empty(2, np.float32)
    taken = [
        lambda x: stream.step(x),
        lambda x: stream.step(x.astype(np.float64)),
        lambda x: stream.step(x.tolist()),
        lambda x: stream.step(np.repeat(x, 2)[::2]),
        lambda x: stream.step(x, out),
        lambda x: stream.step(x, out=out),
        lambda x: stream.step(x.tolist(), out=out),
        lambda x: stream.step(x, out=None),
    ]
    for t, x in enumerate(xs):
        y = taken[t % len(taken)](x)
        np.testing.assert_allclose(y, expected[t], atol=2e-6)
        assert (y is out) == (t % len(taken) in (4, 5, 6))
    assert stream.steps == len(xs)


@pytest.mark.parametrize(
    ("x", "out", "words"),
    [
        ([1, 2], None, "a timestep has 3 features"),
        ([1, 2, np.nan], None, "feature 2 is nan"),
        ([1, 1e39, 3], None, "feature 1 is inf"),
        (["a", "b", "c"], None, "not numbers"),
        ([1, 2, 3], np.empty(3, np.float32), "out must be a float32 array of shape"),
        ([1, 2, 3], np.empty(2, np.float64), "out must be a float32 array of shape"),
        (np.ones(3, np.float32), np.broadcast_to(np.float32(0), (2,)), "read-only"),
    ],
)
def test_what_does_not_fit_leaves_the_state_as_it_was(model, xs, x, out, words):
    stream = model.stream()
    stream.run(xs[:50])
    before, steps = stream.snapshot(), stream.steps
    with pytest.raises(InputError, match=words):
        stream.step(x, out)
    if out is None:
        with pytest.raises(InputError):
            stream.run([[1, 2, 3], x])
    assert (stream.snapshot(), stream.steps) == (before, steps)
    with pytest.raises(TypeError):
        stream.step(xs[0], nowhere=out)


def test_an_out_that_is_not_contiguous_is_written_all_the_same(model, xs, expected):
    wide = np.zeros((2, 4), np.float32)
    assert model.stream().step(xs[0], out=wide[:, 1]).base is wide
    np.testing.assert_allclose(wide[:, 1], expected[0], atol=1e-6)
    assert not wide[:, [0, 2, 3]].any()


def test_chunks_give_the_same_bits_as_steps(model, xs):
    stream = model.stream()
    ys = np.array([stream.step(x) for x in xs])
    for size in (1, 2, 7, 299):
        stream.reset()
        chunks = [stream.run(xs[i : i + size]) for i in range(0, len(xs), size)]
        assert np.concatenate(chunks).tobytes() == ys.tobytes()
    assert stream.run(np.empty((0, 3), np.float32)).shape == (0, 2)


def test_streams_of_one_model_run_in_parallel_threads(large):
    xs = np.random.default_rng(1).standard_normal((4, 3000, 4)).astype(np.float32)
    want = [large.stream().run(x) for x in xs]
    got: list[np.ndarray] = [np.empty(0)] * 4

    def work(i: int) -> None:
        stream = large.stream()
        got[i] = np.concatenate([stream.run(chunk) for chunk in np.split(xs[i], 30)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(got, want, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kind", ["run", "fleet"])
def test_others_work_meanwhile_and_a_state_is_one_thread_s(large, kind):
    """With the interpreter's lock held, nothing below would run before the thread is done."""
    stream, fleet = large.stream(), large.fleet(3000)
    xs = np.zeros((20000, 4), np.float32)
    done = threading.Event()
    work = (lambda: stream.run(xs)) if kind == "run" else (lambda: [fleet.step(xs[:3000]) for _ in range(5)])
    thread = threading.Thread(target=lambda: (work(), done.set()))
    thread.start()
    counted, refused = 0, 0
    while not done.is_set():
        counted += 1
        try:
            stream.step(xs[0]) if kind == "run" else fleet.reset([0])
        except InputError as error:
            refused += "in use by another thread" in str(error)
            done.wait(0.001)
    thread.join()
    assert counted > 10
    assert refused > 5
    stream.step(xs[0])
    fleet.step(xs[:3000])


def test_a_kernel_can_be_forced(bundle, monkeypatch, xs, expected):
    monkeypatch.setenv("EDGELSTM_KERNEL", "portable")
    np.testing.assert_allclose(load(bundle, "native").stream().run(xs), expected, atol=2e-6)
    monkeypatch.setenv("EDGELSTM_KERNEL", "abacus")
    with pytest.raises(BackendUnavailableError, match="EDGELSTM_KERNEL=abacus"):
        load(bundle, "native")


def test_a_damaged_file_is_named(tmp_path, parts):
    content = parts[1]["model.float32.elm"]
    for i, words in ((0, "not an .elm"), (100, "damaged")):
        path = tmp_path / "pump.elm"
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        with pytest.raises(BundleError, match=rf"pump\.elm: .*{words}"):
            load(path, "native")
        with pytest.raises(BundleError, match=r"pump\.elm: .*"):
            load(path, "numpy")


def test_without_the_extension_others_take_over_with_one_warning(bundle):
    """As where no compiler was there at install."""
    code = (
        "import sys, warnings; sys.modules['edgelstm.runtime._native'] = None\n"
        "import edgelstm.runtime as e\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    models = [e.load(sys.argv[1]) for _ in range(3)]\n"
        "    try: e.load(sys.argv[1], 'native')\n"
        "    except e.BackendUnavailableError as error: print('refused:', error)\n"
        "print(len(caught), caught[0].category.__name__, caught[0].message)\n"
        "print(models[0].backend, models[0].stream().step([0.1, 0.2, 0.3]).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True)
    refused, warned, answer = done.stdout.splitlines()
    assert "install a C compiler and reinstall edgelstm" in refused
    assert warned.startswith("1 RuntimeWarning the native engine was not built")
    assert answer.split()[0] in ("tflite", "numpy")
    want = load(bundle, "native").stream().step([0.1, 0.2, 0.3])
    np.testing.assert_allclose(eval(answer.split(maxsplit=1)[1]), want, atol=1e-6)


@pytest.mark.slow
def test_one_wheel_serves_every_python_and_is_small(tmp_path, tmp_path_factory):
    """abi3; and without a compiler it is made all the same, without the engine."""
    for compiler in ("cc", "false"):
        wheel = own_wheel(tmp_path_factory) if compiler == "cc" else build_wheel(tmp_path / compiler, compiler)
        names = _names_and_sizes(wheel)
        runtime = {name: size for name, size in names.items() if name.startswith("edgelstm/runtime/")}
        assert ("edgelstm/runtime/_native.abi3.so" in runtime) == (compiler == "cc")
        assert "edgelstm/runtime/engine/edgelstm.h" in runtime
        assert not [name for name in names if "/native_" in name or name.startswith("tests")]
        if compiler == "cc":
            assert "-cp311-abi3-" in wheel.name
            mqtt = sum(size for name, size in runtime.items() if name.startswith("edgelstm/runtime/mqtt/"))
            assert sum(runtime.values()) - mqtt <= 800_000
            assert mqtt <= 130_000


def _names_and_sizes(wheel):
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}
