"""Text that is nearly a table: refused or reported, never swallowed, and never repeated at length."""

from __future__ import annotations

import json
import os
import tracemalloc

import numpy as np
import pytest
from edgelstm.runtime import InputError, load
from edgelstm.runtime.lines import lines_of, longest_line
from edgelstm.runtime.mqtt.payload import PayloadReader
from edgelstm.runtime.rows import RowReader, read_table

from tests.runtime.command_line import call, refused, start
from tests.runtime.test_run_command import csv, numbers
from tests.runtime.test_serial import Port

# What Python takes for numbers, and nobody else does.
PYTHONS = ["1_000", "\u0661\u0662", "\uff11\uff12", "\u00a01", "1\u2007", "1\u3000", "1\x1c", "\x0b1", "1_0.5", "1e1_0"]
OTHERS = ["0x10", "1,5", "1d5", "1f", "--1", "1 2", "one", "True", "\u00bd", "\u2167", "\u22121"]
GOOD = ["1", " 1", "1 ", "+1", "-1", "1.", ".5", "1e-3", "1E5", "007", "-0"]


@pytest.mark.parametrize("cell", [*PYTHONS, *OTHERS])
@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_no_number_to_others_is_none(cell, as_json):
    line = json.dumps([1, cell, 3]) if as_json else f'1,"{cell}",3'
    for before in ([], ["[1, 2, 3]" if as_json else "1,2,3"]):
        reader = RowReader(("a", "b", "c"), "in.csv")
        for each in before:
            reader.parse(each, 1)
        with pytest.raises(InputError, match=f"line {len(before) + 1}: ") as caught:
            reader.parse(line, len(before) + 1)
        assert repr(cell) in str(caught.value) or not before
        assert reader.parse("[4, 5, 6]" if as_json else "4,5,6", 9) == [4, 5, 6]


@pytest.mark.parametrize("cell", GOOD)
def test_what_is_a_number_is_one(cell):
    for line in (f"{cell},2,{cell}", json.dumps([cell, 2, cell])):
        assert RowReader(("a", "b", "c"), "in.csv").parse(line, 1) == [float(cell), 2, float(cell)]


@pytest.fixture
def unnamed(edited):
    return edited(lambda raw: raw.update(features=["x0", "x1", "x2"]))


@pytest.mark.parametrize(
    "line",
    [
        *(f"{cell},{cell},{cell}" for cell in PYTHONS),
        *("0x10,0x20,0x30", "ERR,0.1,0.2", "a,,c", "a,a,c", "1st,2nd,3rd", "a,b", "a,b,c,d", "a,\x07b,c", '"a,b,c'),
    ],
)
def test_a_bad_first_line_is_no_header(unnamed, xs, line):
    text = f"{line}\n{csv(xs[:3])}"
    done = call(unnamed, stdin=text)
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 1: " in done.stderr
    skipped = call(unnamed, "--skip-bad", stdin=text)
    assert skipped.stderr.count("skipped: standard input: line 1: ") == 1
    assert len(skipped.stdout.splitlines()) == 3


def test_a_first_line_that_could_be_a_header_is_said_to_be_taken_for_one(unnamed, bundle, xs, expected):
    done = call(unnamed, stdin=f"boot,ok,ready\n{csv(xs[:3])}")
    assert done.returncode == 0
    assert "line 1 ('boot', 'ok', 'ready') is taken for a header, and its columns in their order" in done.stderr
    np.testing.assert_allclose(numbers("\n".join(done.stdout.splitlines()[1:])), expected[:3], atol=2e-6)
    assert "taken for a header" not in call(bundle, stdin=csv(xs[:3], "a,b,c")).stderr
    # Where the features have names, it is none.
    assert "no column 'a', 'b', 'c'; the header has 'boot', 'ok', 'ready'" in refused_text(
        bundle, "boot,ok,ready\n1,2,3\n"
    )


def refused_text(bundle, text: str, *options: str) -> str:
    done = call(bundle, *options, stdin=text)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    return done.stderr


@pytest.mark.parametrize("options", [(), ("--skip-bad",)])
def test_a_header_has_each_feature_once(bundle, options):
    said = refused_text(bundle, "a,b,b,c\n1,2,3,4\n", *options)
    assert "line 1: the header has 'b' more than once" in said


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "c": 3, "b": 4}', '{"a": 1, "b": 2, "c": {"d": 1, "d": 1}}'])
def test_a_json_object_has_each_name_once(bundle, text):
    twice = "'b'" if '"b": 4' in text else "'d'"
    assert f"line 1: {twice} is there more than once" in refused_text(bundle, text)
    reader = PayloadReader(("a", "b", "c"), ("u",), "auto", "seq")
    with pytest.raises(InputError, match=f"^{twice} is there more than once$"):
        reader.read(text.encode())
    with pytest.raises(InputError, match=r"^'seq' is there more than once$"):
        reader.read(b'{"a": 1, "b": 2, "c": 3, "seq": 1, "seq": 2}')


# ---- at length ----

LIMIT = 65_536


def line_of(length: int) -> str:
    """A good line of so many bytes."""
    return "1,2," + "3".rjust(length - 4)


@pytest.mark.parametrize("source", ["file", "standard input", "named pipe", "port", "table"])
def test_the_limit_is_one_for_all(bundle, source, tmp_path):
    text = f"1,2,3\n{line_of(LIMIT)}\n{line_of(LIMIT + 1)}\n4,5,6\n".encode()
    if source == "port":
        port, report = Port(), tmp_path / "report"
        options = ("--input", port.name, "--baud", 115200, "--report", report, "--skip-bad")
        process = start(bundle, *options)
        try:
            port.opened_by(process, report)
            port.write(text)
            answers = [process.stdout.readline() for _ in range(3)]
            process.terminate()
            said = process.stderr.read().decode()
        finally:
            process.kill()
            process.wait()
            port.vanish()
    elif source == "named pipe":
        os.mkfifo(tmp_path / "fifo")
        process = start(bundle, tmp_path / "fifo", "--skip-bad")
        with (tmp_path / "fifo").open("wb") as pipe:
            pipe.write(text)
        answers, said = (part.decode() for part in process.communicate(timeout=60))
        answers = answers.splitlines()
    elif source == "table":
        (tmp_path / "x.csv").write_bytes(text)
        with pytest.raises(InputError, match=f"line 3: the line has no end: {LIMIT} bytes"):
            read_table(tmp_path / "x.csv", ("a", "b", "c"))
        return
    else:
        (tmp_path / "x.csv").write_bytes(text)
        arguments = (bundle, tmp_path / "x.csv") if source == "file" else (bundle,)
        done = call(*arguments, "--skip-bad", stdin=text)
        answers, said = done.stdout.splitlines(), done.stderr
    assert len(answers) == 3
    assert said.count("skipped") == 1
    assert f"line 3: the line has no end: {LIMIT} bytes without a line's end" in said


def test_a_wide_model_has_longer_lines():
    names = tuple(f"sensor-{i}" for i in range(4000))
    as_csv = ",".join(["-1.7976931348623157e-308"] * len(names))
    as_json = json.dumps(dict.fromkeys(names, -1.7976931348623157e-308))
    assert LIMIT < len(as_csv) < len(as_json) < longest_line(names)
    assert longest_line(("a", "b")) == LIMIT


def test_a_line_of_25_million_cells_takes_no_memory():
    left = [50_000_000]

    def read() -> bytes:
        left[0] -= LIMIT
        return b"1," * (LIMIT // 2) if left[0] > 0 else b"" if left[0] < -LIMIT else b"\n1,2\n"

    tracemalloc.start()
    try:
        found = list(lines_of(-1, "in.csv", LIMIT, read=read))
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()
    assert [line.number for line in found] == [1, 2]
    assert isinstance(found[0].text, InputError)
    assert (found[1].text, found[1].whole) == ("1,2", True)


@pytest.mark.parametrize(
    "line",
    [
        "1,2," + "x" * 60_000,
        "x" * 60_000,
        ",".join(f"column {i}" for i in range(5000)),
        "1," * 30_000,
        "\u0661" * 30_000,
        json.dumps({"a": 1, "b": 2, "c": "y" * 60_000}),
        json.dumps({"a": 1, "b": 2, "c": [[[1] * 10_000]]}),
        '{"a": 1, "b": 2, "c": ' + "9" * 60_000 + "}",
        '{"a": 1, "b": 2, "c": ' + "9" * 4000 + "}",
        "{" + ", ".join(f'"k{i % 3000}": 1' for i in range(6000)) + "}",
        "[" * 60_000,
        '{"a' + "z" * 60_000,
        '{"' + "z" * 60_000 + '": 1}',
    ],
    ids=range(13),
)
def test_no_message_repeats_what_it_is_about(bundle, xs, line):
    rows = csv(xs[:2])
    rows = "".join(f"[{row}]\n" for row in rows.splitlines()) if line[0] in "[{" else rows
    for text in (f"{line}\n{rows}", f"{rows}{line}\n"):
        for options in ((), ("--skip-bad",), ("--json",)):
            done = call(bundle, *options, stdin=text)
            assert len(done.stderr) + len(done.stdout) < 2500, done.stderr[:300]
            assert "line 1: " in done.stderr or "line 3: " in done.stderr
    with pytest.raises(InputError) as caught:
        PayloadReader(("a", "b", "c"), ("u",), "json", "seq").read(line.encode())
    assert len(str(caught.value)) < 2500


def test_names_of_a_frame_are_not_all_listed(bundle):
    import pandas as pd

    frame = pd.DataFrame(np.zeros((1, 5000)), columns=[f"column {i}" for i in range(5000)])
    with pytest.raises(InputError, match=r"… \(5,000 in all\)") as caught:
        load(bundle).stream().run(frame)
    assert len(str(caught.value)) < 1000


def test_an_argument_is_not_repeated_at_length(bundle):
    assert len(refused(bundle, "x" * 100_000)) < 5000
