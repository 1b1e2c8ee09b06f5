"""Reading a CSV: what is taken, filled, cut and refused, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.runtime import InputError
from edgelstm.toolkit.forecast import _last_known, windows
from edgelstm.toolkit.series import read_sequences_by_label, read_series


def csv(tmp_path, text: str):
    path = tmp_path / "data.csv"
    path.write_text(text)
    return path


def test_columns_that_say_nothing_are_left_out_by_name(tmp_path):
    path = csv(tmp_path, "No,when,a,flat,word\n1,2020-01-01,5,7,x\n2,2020-01-02,3,7,y\n3,2020-01-03,4,7,x\n")
    series = read_series(path, "a")
    assert series.features == ("a",)
    assert series.sampling == {"column": "when", "seconds": 86400.0}
    said = " ".join(series.notes)
    assert "'No' left out: counts the rows" in said
    assert "'flat' left out: always the same" in said
    assert "'word' left out: text" in said


def test_short_gaps_are_filled_and_long_ones_cut(tmp_path):
    values = ["1", "2", "", "4", "", "", "", "8", "9", ""]
    path = csv(tmp_path, "a,b\n" + "".join(f"{v},{i * i}\n" for i, v in enumerate(values)))
    series = read_series(path, "a", fill_limit=2)
    # Row 2 is filled; of rows 4 to 6 two are filled and the third breaks the series; row 9 is filled.
    assert series.segments == ((0, 6), (7, 10))
    np.testing.assert_array_equal(series.values[:6, 0], [1, 2, 2, 4, 4, 4])
    np.testing.assert_array_equal(np.isnan(series.target), [v == "" for v in values])
    assert "5 rows with missing values: 4 filled with the last value, 1 left out" in series.notes[0]
    assert read_series(path, "a", missing="drop").segments == ((0, 2), (3, 4), (7, 9))
    with pytest.raises(InputError, match="line 4: column 'a' is empty"):
        read_series(path, "a", missing="refuse")


def test_windows_stay_in_their_segment_and_never_score_a_filled_value(tmp_path):
    values = [*"0123", "", *"56", "", "", "", "", *"bcdefghij"]
    numbers = [str(ord(v) - 87) if v.isalpha() else v for v in values]
    path = csv(tmp_path, "a,b\n" + "".join(f"{v},{i % 7}\n" for i, v in enumerate(numbers)))
    series = read_series(path, "a", fill_limit=3)
    for rng in (None, np.random.default_rng(0)):
        for _ in range(20):
            x, y, weights = windows(series, list(series.segments), 3, 2, rng)
            for row, goal, weight in zip(x[..., 0], y[..., 0], weights, strict=True):
                for t in np.flatnonzero(weight):
                    # A row's value is its number, and filled rows repeat the last; the target is two rows on.
                    assert goal[t] in (row[t] + 2, row[t] + 3)
                    assert goal[t] not in (4, 7, 8, 9, 10)
    rng = np.random.default_rng(1)
    first = {float(windows(series, [(11, 20)], 3, 2, rng)[0][0, 0, 0]) for _ in range(40)}
    assert first == {11.0, 12.0, 13.0}


def test_persistence_repeats_the_last_value_that_was_measured():
    np.testing.assert_array_equal(_last_known(np.array([3, np.nan, np.nan, 5, np.nan])), [3, 3, 3, 5, 5])


@pytest.mark.parametrize(
    ("text", "target", "features", "words"),
    [
        ("", "a", None, "cannot be read as CSV"),
        ("a,b\n", "a", None, "holds no rows"),
        ("a,b\n1,2\n3,4,5\n", "a", None, "cannot be read as CSV"),
        ("temp,b\n1,2\n3,4\n", "tmep", None, "no column 'tmep'; did you mean 'temp'"),
        ("a,b\n1,2\n3,4\n", "a", ["a", "c"], "no column 'c'; there are a, b"),
        ("a,b\n1,2\n3,4\n", "a", ["a", "a"], "twice"),
        ("a,w\n1,NW\n3,SE\n", "a", ["a", "w"], "line 2: column 'w' holds 'NW', not a number"),
        ("a,w\n1,1\n3,x\n", "a", ["a", "w"], "line 3: column 'w' holds 'x', not a number"),
        ("w,v\nNW,1\nSE,2.5\n", "w", None, "line 2: column 'w' holds 'NW', not a number"),
        ("w,v\n1,1\n1,2.5\n", "w", None, "the target 'w' has one value only"),
        ("a,b,a\n1,2,3\n4,5,6\n", "a", None, "names the column 'a' twice"),
        ("a,b\n1e30,2\n-1e30,5\n", "a", None, "column 'a' has a standard deviation of 1e+30"),
        ("a,b\n1,2e-9\n3,5e-9\n", "a", None, "column 'b' has a standard deviation of"),
        ("a,b\n1,\n3,\n", "a", ["a", "b"], "no row has a value in each"),
        ("t,a\n2020-01-02,1\n2020-01-01,3\n", "a", None, "line 3: 't' goes back in time"),
        ("a,b\n1,inf\n3,4\n", "a", None, "infinite"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, target, features, words):
    with pytest.raises(InputError, match=r"data\.csv") as raised:
        read_series(csv(tmp_path, text), target, features)
    assert words in str(raised.value)


def test_the_column_of_times_is_no_feature_and_no_text(tmp_path):
    series = read_series(csv(tmp_path, "t,a\n2020-01-01,1\n2020-01-02,3\n2020-01-03,2\n"), "a")
    assert series.features == ("a",)
    assert series.sampling == {"column": "t", "seconds": 86400.0}
    assert series.notes == ()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_series(tmp_path / "absent.csv", "a")


def test_sequences_and_their_labels(tmp_path):
    path = csv(tmp_path, "s,a,k\n7,1,yes\n7,2,yes\n3,5,no\n3,,no\n3,6,no\n")
    data = read_sequences_by_label(path, "s", "k")
    assert data.classes == ("no", "yes")
    assert data.labels.tolist() == [1, 0]
    assert [s[:, 0].tolist() for s in data.sequences] == [[1, 2], [5, 5, 6]]
    with pytest.raises(InputError, match="'b' has the labels y, n"):
        read_sequences_by_label(csv(tmp_path, "s,a,k\nb,1,y\nb,5,n\n"), "s", "k")
    with pytest.raises(InputError, match="1 label"):
        read_sequences_by_label(csv(tmp_path, "s,a,k\nb,1,y\nc,5,y\n"), "s", "k")
