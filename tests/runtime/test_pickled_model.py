"""A model in other processes: pickled, sent, and opened there once."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from edgelstm.runtime import Bundle, load
from edgelstm.runtime.backends.native import NativeArtifact


def answers_of(model, xs):
    return os.getpid(), model.stream().run(xs), model.verify().snr_db, model.backend


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "tflite", "numpy"])
def test_a_spawned_process_answers_the_same(bundle, xs, backend):
    model = load(bundle, backend)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        process, answers, snr_db, there = pool.apply(answers_of, (model, xs))
    assert process != os.getpid()
    assert there == backend
    assert np.array_equal(answers, model.stream().run(xs))
    assert snr_db >= 100


def test_it_is_opened_once(bundle, monkeypatch):
    opened = []

    class Counted(NativeArtifact):
        def __init__(self, content, source):
            opened.append(source)
            super().__init__(content, source)

    monkeypatch.setattr("edgelstm.runtime.backends.native.NativeArtifact", Counted)
    sent = pickle.dumps(load(bundle, "native"))
    opened.clear()
    for _ in range(3):  # Each time it is let go of, as a pool's worker does between two tasks.
        assert pickle.loads(sent).stream().step([0.1, 0.2, 0.3]).shape == (2,)
    assert len(opened) == 1


def test_snapshots_go_over_to_it(bundle, xs):
    model = load(bundle)
    stream = model.stream()
    stream.run(xs[:7])
    there = pickle.loads(pickle.dumps(model)).stream()
    there.restore(stream.snapshot())
    assert np.array_equal(there.run(xs[7:20]), stream.run(xs[7:20]))


def test_its_bundle_is_not_needed_any_more(bundle, tmp_path):
    moved = tmp_path / "moved.edge"
    moved.write_bytes(bundle.read_bytes())
    sent = pickle.dumps(load(moved))
    moved.unlink()
    assert pickle.loads(sent).verify().snr_db >= 100
    sizes = {artifact.file: artifact.size for artifact in Bundle.open(bundle).manifest.artifacts}
    assert len(sent) < 4096 + sizes["model.float32.elm"] + len(Bundle.open(bundle).golden().to_bytes())


def test_one_line_says_what_it_is(bundle):
    model = load(bundle, "native")
    assert repr(model) == "<Model small: native float32 on native, 3 features → 2 outputs, carries its state>"
    assert len({model, pickle.loads(pickle.dumps(model))}) == 2
