"""DataFrames and Series: taken by their names, or refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from edgelstm.runtime import InputError, load


@pytest.fixture(params=["native", "tflite", "numpy"])
def make_stream(request, bundle):
    return load(bundle, request.param).stream


@pytest.fixture
def frame(xs):
    return pd.DataFrame(xs[:20], columns=["a", "b", "c"])


@pytest.fixture
def answers(expected):
    return expected[:20]


def test_columns_are_found_by_name(make_stream, frame, answers):
    for given in (frame, frame[["c", "a", "b"]], frame.assign(time="12:00")[["time", "b", "c", "a"]]):
        np.testing.assert_allclose(make_stream().run(given), answers, atol=2e-6)
        stream = make_stream()
        stepped = [stream.step(row[["b", "a", "c"]]) for _, row in frame.iterrows()]
        np.testing.assert_allclose(stepped, answers, atol=2e-6)


@pytest.mark.parametrize("columns", [["a", "b", "d"], ["p", "q", "r"], ["A", "B", "C"], ["a", "b"]])
def test_other_columns_are_refused(make_stream, frame, columns):
    stream = make_stream()
    other = pd.DataFrame(frame.to_numpy()[:, : len(columns)], columns=columns)
    for call, given in ((stream.run, other), (stream.step, other.iloc[0])):
        with pytest.raises(InputError, match=r"no column .*'c'.*; there are .*\.to_numpy\(\)") as caught:
            call(given)
        assert all(repr(column) in str(caught.value) for column in columns)
    assert stream.steps == 0


def test_the_remedy_works(make_stream, frame, answers):
    other = frame.set_axis(["p", "q", "r"], axis=1)
    np.testing.assert_allclose(make_stream().run(other.to_numpy()), answers, atol=2e-6)


def test_numbers_for_columns_are_no_names(make_stream, frame, answers):
    np.testing.assert_allclose(make_stream().run(pd.DataFrame(frame.to_numpy())), answers, atol=2e-6)
    np.testing.assert_allclose(make_stream().step(pd.Series(frame.to_numpy()[0])), answers[0], atol=2e-6)


def test_where_nobody_named_the_features_the_order_counts(edited, frame, answers):
    unnamed = load(edited(lambda raw: raw.update(features=["x0", "x1", "x2"])))
    assert json.dumps(unnamed.features) == '["x0", "x1", "x2"]'
    np.testing.assert_allclose(unnamed.stream().run(frame), answers, atol=2e-6)
    named = frame.set_axis(["x0", "x1", "x2"], axis=1)[["x2", "x0", "x1"]]
    np.testing.assert_allclose(unnamed.stream().run(named), answers, atol=2e-6)


def test_fleets(bundle, frame, expected):
    fleet = load(bundle).fleet(3)
    first = fleet.step(frame[["c", "b", "a"]].iloc[[0, 0, 0]])
    np.testing.assert_allclose(first, np.repeat(expected[:1], 3, 0), atol=2e-6)
    with pytest.raises(InputError, match="no column 'a'"):
        fleet.step(frame.rename(columns={"a": "z"}).iloc[[0, 0, 0]])
