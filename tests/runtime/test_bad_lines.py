"""`--skip-bad`: every kind of malformed line is reported and left out, wherever the lines come from."""

from __future__ import annotations

import json
import os
import subprocess
import threading

import numpy as np
import pytest

from tests.runtime.command_line import COMMAND, call, start
from tests.runtime.test_run_command import csv, numbers
from tests.runtime.test_serial import Port

# What is wrong with each, as bytes, and words of what is said of it.
BAD = [
    (b"1,2", "2 values where 3 belong"),
    (b"1,2,3,4", "4 values where 3 belong"),
    (b"1,x,3", "b is 'x', not a number"),
    (b"1,,3", "b is '', not a number"),
    (b"1,1_0,3", "b is '1_0', not a number"),
    (b"1,nan,3", "feature 1 is nan"),
    (b"1,2,-inf", "feature 2 is -inf"),
    (b"1,1e999,3", "feature 1 is inf"),
    (b"a,b,c", "a is 'a', not a number"),
    (b"1,\xff,3", "not UTF-8 text"),
    (b"\x80\x81\x82", "not UTF-8 text"),
    (b"1,\0,3", "line "),
    (b'1,"2,3', "2 values where 3 belong"),
    (b"1,2\r3,4", "not a line of CSV"),
    (b'{"a": 1, "b": 2, "c": 3}', "line "),
    (b"9" * 70_000 + b",2,3", "65536 bytes without a line's end"),
]
BAD_JSON = [
    (b'{"a": 1, "b": 2', "not JSON"),
    (b'{"a": 1, "b": 2}', "no 'c'"),
    (b'{"a": 1, "b": null, "c": 3}', "b is None, not a number"),
    (b'{"a": 1, "b": NaN, "c": 3}', "feature 1 is nan"),
    (b'{"a": 1, "b": 2, "c": 1e400}', "feature 2 is inf"),
    (b"[1, 2]", "2 values where 3 belong"),
    (b"[" * 50_000, "not JSON"),
    (b'{"a": 1, "b": 2, "c": "\xff"}', "not UTF-8 text"),
    (b"1,2,3", "not JSON"),
    (b"null", "1 values where 3 belong"),
    (b"\0", "not JSON"),
]


def rows_with(bad, rows):
    """A row, a bad line, a row, a bad line, …"""
    assert len(rows) > len(bad)
    lines = [line for pair in zip(rows, bad, strict=False) for line in pair]
    return b"\n".join([*lines, *rows[len(bad) :], b""])


@pytest.fixture(params=["file", "standard input", "pipe", "named pipe"])
def read(request, bundle, tmp_path):
    """Run over bytes that come from a file, a pipe …; gives the status and what it printed and said."""

    def call_with(content: bytes, *options: str) -> subprocess.CompletedProcess[str]:
        if request.param == "standard input":
            return call(bundle, *options, stdin=content)
        if request.param == "file":
            (tmp_path / "in.csv").write_bytes(content)
            return call(bundle, tmp_path / "in.csv", *options)
        if request.param == "pipe":
            done = subprocess.run([*COMMAND, str(bundle), *options], input=content, capture_output=True, timeout=60)
            out, err = done.stdout.decode(), done.stderr.decode()
            return subprocess.CompletedProcess(done.args, done.returncode, out, err)
        os.mkfifo(tmp_path / "fifo")
        writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(content,))
        writer.start()
        try:
            return call(bundle, tmp_path / "fifo", *options)
        finally:
            writer.join(10)

    return call_with


@pytest.mark.parametrize("bad", [BAD, BAD_JSON], ids=["csv", "json"])
def test_every_kind_is_reported_and_left_out(read, xs, expected, bad):
    rows = csv(xs[:30]).encode().splitlines()
    if bad is BAD_JSON:
        rows = [b"[" + row + b"]" for row in rows]
    done = read(rows_with([line for line, _ in bad], rows), "--skip-bad")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "skipped" in line]
    assert len(said) == len(bad)
    for i, ((line, words), found) in enumerate(zip(bad, said, strict=True)):
        assert f"line {2 * i + 2}" in found, line
        assert words in found, line
    answers = done.stdout
    if bad is BAD_JSON:
        found = [json.loads(line) for line in answers.splitlines()]
        answers = csv(np.array([[answer["u"], answer["v"]] for answer in found]))
    np.testing.assert_allclose(numbers(answers), expected[:30], atol=2e-6)


# Those of them that are good lines, or good headers, where they are the first.
GOOD_AT_FIRST = (b"a,b,c", b'{"a": 1, "b": 2, "c": 3}', b"1,2,3")


@pytest.mark.parametrize(
    "line",
    [line for line, words in (*BAD, *BAD_JSON) if "feature" not in words and line not in GOOD_AT_FIRST],
)
def test_at_the_very_beginning_too(bundle, xs, expected, line):
    done = call(bundle, "--skip-bad", stdin=line + b"\n" + csv(xs[:5]).encode())
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("skipped") == 1
    np.testing.assert_allclose(numbers(done.stdout), expected[:5], atol=2e-6)
    # And in front of a header, whose columns are found by their names.
    table = "\n".join(["c,a,b", *(f"{c},{a},{b}" for a, b, c in xs[:5].tolist())]).encode()
    done = call(bundle, "--skip-bad", stdin=line + b"\n" + table)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(numbers("\n".join(done.stdout.splitlines()[1:])), expected[:5], atol=2e-6)


def test_a_header_of_other_columns_is_not_skipped(read, xs):
    done = read(b"a,b,d\n" + csv(xs[:5]).encode(), "--skip-bad")
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 1: no column 'c'; the header has 'a', 'b', 'd'" in done.stderr


@pytest.mark.parametrize(("line", "words"), [(b"1,\xff,3", "line 2: not UTF-8 text"), (b"1,2", "line 2: 2 values")])
def test_without_it_the_first_stops(read, xs, line, words):
    done = read(csv(xs[:1]).encode() + line + b"\n" + csv(xs[1:3]).encode())
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_line_without_an_end_does_not_fill_the_memory(read, xs, expected):
    endless = b"7" * (17 * 2**20)
    rows = csv(xs[:4]).encode().splitlines()
    done = read(b"\n".join([*rows[:2], endless, *rows[2:]]), "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "line 3: the line has no end" in done.stderr
    np.testing.assert_allclose(numbers(done.stdout), expected[:4], atol=2e-6)


def test_at_a_port(bundle, xs, expected, tmp_path):
    port, report = Port(), tmp_path / "report"
    options = ("--input", port.name, "--baud", 115200, "--report", report, "--skip-bad")
    process = start(bundle, *options)
    try:
        port.opened_by(process, report)
        bad = [line for line, _ in BAD]
        port.write(rows_with(bad, csv(xs[:30]).encode().splitlines()))
        answers = [process.stdout.readline().decode() for _ in range(30)]
        np.testing.assert_allclose(numbers("".join(answers)), expected[:30], atol=2e-6)
        process.terminate()
        said = process.stderr.read().decode()
        assert process.wait(10) == 0, said
        assert said.count("skipped") == len(bad)
        assert "65536 bytes without a line's end; is --baud right?" in said
        for _, words in BAD:
            assert words in said
    finally:
        process.kill()
        port.vanish()
