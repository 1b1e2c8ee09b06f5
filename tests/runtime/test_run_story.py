"""The state, the input and the output of `run` are one story, whatever ends a run and wherever the next one begins."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime import cli, load

from tests.runtime import run_kills
from tests.runtime.command_line import COMMAND, call, refused, start
from tests.runtime.test_run_command import csv, numbers
from tests.waiting import until


@pytest.fixture
def at(tmp_path):
    """Paths in a folder of the test's own."""
    (tmp_path / "at").mkdir()
    return lambda name: tmp_path / "at" / name


@pytest.fixture
def run(bundle, at):
    """Run from `in.csv` to `out.csv` with the state `s`."""

    def go(*options: object, source: object = None) -> subprocess.CompletedProcess[str]:
        read = at("in.csv") if source is None else source
        return call(bundle, read, "--state", at("s"), "--output", at("out.csv"), *options)

    return go


def answers(path: Path) -> np.ndarray:
    return numbers("\n".join(line for line in path.read_text().splitlines() if line != "u,v"))


def test_a_log_that_grows_is_read_on(run, at, xs, expected):
    text = csv(xs, "time,c,a,b").splitlines(keepends=True)
    rows = [text[0], *(f"12:00,{c},{a},{b}\n" for a, b, c in xs.tolist())]
    for end in (1, 40, 41, 301):
        at("in.csv").write_text("".join(rows[:end]))
        if end == 1:
            continue
        done = run()
        assert done.returncode == 0, done.stderr
        assert ("goes on behind line" in done.stderr) == (end > 40)
        np.testing.assert_allclose(answers(at("out.csv")), expected[: end - 1], atol=2e-6)
    assert at("out.csv").read_text().count("u,v") == 1
    assert "goes on behind line 41, with timestep 41" in done.stderr
    before = at("out.csv").read_bytes()
    done = run()
    assert (done.returncode, at("out.csv").read_bytes()) == (0, before)
    assert "holds nothing new behind line 301; to take it again, behind that, pipe it in" in done.stderr


def test_again_by_a_pipe(run, bundle, at, xs, weights):
    from tests.runtime.conftest import textbook_lstm

    at("in.csv").write_text(csv(xs[:20]))
    assert run().returncode == 0
    done = call(bundle, "--state", at("s"), "--output", at("out.csv"), stdin=at("in.csv").read_text())
    assert done.returncode == 0
    assert f"{at('s')}: holds 20 timesteps, so standard input has to go on with timestep 21" in done.stderr
    twice = textbook_lstm(weights, np.tile(xs[:20], (2, 1)))
    np.testing.assert_allclose(answers(at("out.csv")), twice, atol=2e-6)


def test_a_last_line_without_an_end_may_go_on(run, at, xs, expected):
    rows = csv(xs[:20])
    cut = len(rows) - 5
    at("in.csv").write_text(rows[:cut])
    assert run().returncode == 0
    assert len(answers(at("out.csv"))) == 20  # It is answered as it stands, …
    at("in.csv").write_text(rows)
    assert run().returncode == 0
    np.testing.assert_allclose(answers(at("out.csv")), expected[:20], atol=2e-6)  # … and anew when there is more.


def test_a_last_line_without_an_end_counts_where_another_input_follows(run, at, xs, expected):
    at("in.csv").write_text(csv(xs[:20]).rstrip("\n"))
    at("other.csv").write_text(csv(xs[20:30]))
    assert run().returncode == 0
    done = run(source=at("other.csv"))
    assert "holds 20 timesteps; " in done.stderr
    assert "other.csv is read from its beginning, behind these" in done.stderr
    np.testing.assert_allclose(answers(at("out.csv")), expected[:30], atol=2e-6)


def test_another_file_of_the_same_name_is_read_from_its_beginning(run, at, xs, expected):
    for first in (0, 10):
        at("in.csv").write_text(csv(xs[first : first + 10]))
        assert run().returncode == 0
        at("in.csv").rename(at(f"in.csv.{first}"))  # As logs are rotated.
    np.testing.assert_allclose(answers(at("out.csv")), expected[:20], atol=2e-6)
    assert run(source=at("in.csv.10")).returncode == 0  # Renamed, it is still the one that was read.
    assert len(answers(at("out.csv"))) == 20


@pytest.mark.slow
def test_standard_input_from_a_file_is_read_on_too(bundle, at, xs, expected):
    for end in (10, 20):
        at("in.csv").write_text(csv(xs[:end]))
        with at("in.csv").open() as source:
            command = [*COMMAND, str(bundle), "--state", str(at("s")), "--output", str(at("o"))]
            done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert "standard input: goes on behind line 10, with timestep 11" in done.stderr
    np.testing.assert_allclose(answers(at("o")), expected[:20], atol=2e-6)
    with at("in.csv").open() as source:  # Whoever has read from it knows where it is.
        os.lseek(source.fileno(), len(csv(xs[:10])), os.SEEK_SET)
        done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=60)
    assert "standard input has to go on with timestep 21" in done.stderr
    assert len(answers(at("o"))) == 30


@pytest.mark.slow
def test_of_many_at_once_one_gets_the_state(bundle, at, xs):
    for first in (True, False):  # Where there is no state yet, and where there is one.
        source, feed = os.pipe()

        def run(feed: int = feed) -> int:
            os.close(feed)
            return cli.main(["run", str(bundle), "--state", str(at("s")), "--output", str(at("o"))])

        children = [run_kills.forked(run, source, at(f"said-{i}")) for i in range(8)]
        ended = dict(os.waitpid(-1, 0) for _ in range(7))
        assert [os.waitstatus_to_exitcode(status) for status in ended.values()] == [2] * 7
        os.write(feed, csv(xs[:5]).encode())
        os.close(feed)
        (winner,) = set(children) - set(ended)
        assert os.waitpid(winner, 0)[1] == 0
        os.close(source)
        said = [at(f"said-{i}").read_text() for i in range(8)]
        assert sum("in use by another process" in each for each in said) == 7
        assert len(answers(at("o"))) == (5 if first else 10)


@pytest.mark.slow
def test_a_reader_that_leaves_loses_what_it_did_not_read_and_no_more(bundle, at, xs):
    rows = csv(np.tile(xs, (20, 1))).rstrip("\n")
    at("in.csv").write_text(rows)
    command = f"{' '.join(COMMAND)} {bundle} {at('in.csv')} --state {at('s')} | head -n 3"
    assert subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60).returncode == 0
    stream = load(bundle).stream()
    stream.restore(at("s").read_bytes())
    done = call(bundle, at("in.csv"), "--state", at("s"))
    assert len(done.stdout.splitlines()) == 6000 - stream.steps


def test_an_input_that_was_changed_is_refused(run, bundle, at, xs):
    at("in.csv").write_text(csv(xs))
    assert run().returncode == 0
    rows = at("in.csv").read_text().splitlines(keepends=True)
    rows[290] = "9,9,9\n"
    at("in.csv").write_text("".join(rows))
    before = at("out.csv").read_bytes(), at("s").read_bytes()
    done = run()
    assert done.returncode == 2
    assert "in.csv: was changed in what the state has taken of it" in done.stderr
    assert (at("out.csv").read_bytes(), at("s").read_bytes()) == before
    # What the message says helps.
    assert call(bundle, "--state", at("s"), "--output", at("out.csv"), stdin="".join(rows)).returncode == 0
    assert call(bundle, at("in.csv"), "--state", at("s2")).returncode == 0


def broken_off(run, at, bundle, xs) -> None:
    """Have an output that is ahead of its state, as a kill leaves it."""
    at("in.csv").write_text(csv(xs[:30]))
    assert run().returncode == 0
    shutil.copy(at("out.csv"), at("then"))
    with at("out.csv").open("a") as file:
        file.write("1,2\n3,4\n5,")


def test_an_output_is_cut_back_to_its_state(run, bundle, at, xs, expected):
    broken_off(run, at, bundle, xs)
    with at("in.csv").open("a") as file:
        file.write(csv(xs[30:40]))
    assert run().returncode == 0
    np.testing.assert_allclose(answers(at("out.csv")), expected[:40], atol=2e-6)


def test_an_output_that_was_changed_is_refused(run, at, xs, expected):
    at("in.csv").write_text(csv(xs[:30]))
    assert run().returncode == 0
    whole = at("out.csv").read_text()
    at("in.csv").write_text(csv(xs[:40]))
    for changed in (whole[:-4], "1" + whole[1:]):
        at("out.csv").write_text(changed)
        before = at("s").read_bytes()
        done = run()
        assert done.returncode == 2
        assert "out.csv: is not what the state goes on from" in done.stderr
        assert (at("out.csv").read_text(), at("s").read_bytes()) == (changed, before)
    # What the message says helps.
    at("out.csv").write_text(whole)
    assert run().returncode == 0
    np.testing.assert_allclose(answers(at("out.csv")), expected[:40], atol=2e-6)


def test_an_output_that_is_gone_begins_anew(run, at, xs, expected):
    for first in (0, 10):
        at("in.csv").write_text(csv(xs[first : first + 10], "a,b,c"))
        done = run()
        assert done.returncode == 0
        at("out.csv").rename(at(f"out.{first}"))
    assert "out.csv: is gone, or empty; it begins anew" in done.stderr
    assert at("out.10").read_text().startswith("u,v\n")
    np.testing.assert_allclose(answers(at("out.10")), expected[10:20], atol=2e-6)


def test_where_the_output_is_no_file_it_says_what_may_come_again(bundle, at, xs):
    done = call(bundle, "--state", at("s"), stdin=csv(xs[:10]))
    assert (done.returncode, done.stderr.count("broken off")) == (0, 0)
    process = start(bundle, "--state", at("s"), "--save-every", 0)
    process.stdin.write(csv(xs[10:12]).encode())
    process.stdin.flush()
    saved = load(bundle).stream()
    until(lambda: saved.restore(at("s").read_bytes()) or saved.steps == 12, "it is saved")
    process.kill()
    process.wait()
    done = call(bundle, "--state", at("s"), stdin=csv(xs[12:14]))
    assert "broken off: answers to timesteps after 12 may come again (--output FILE is cut back" in done.stderr


def test_a_storm_of_signals_ends_it_as_one_does(bundle, at, xs):
    process = start(bundle, "--state", at("s"), "--output", at("o"))
    process.stdin.write(csv(xs[:50]).encode())
    process.stdin.flush()
    until(lambda: at("o").exists() and at("o").stat().st_size, "it answers")
    signals = 0
    while process.poll() is None:
        process.send_signal((signal.SIGTERM, signal.SIGINT)[signals % 2])
        signals += 1
    said = process.stderr.read()
    assert (process.returncode, b"Traceback" in said, b"Exception" in said) == (0, False, False), said
    stream = load(bundle).stream()
    stream.restore(at("s").read_bytes())
    assert len(answers(at("o"))) == stream.steps > 0


def test_one_process_at_a_time(bundle, at, xs):
    process = start(bundle, "--state", at("s"))
    until(at("s").exists, "it has its state")
    try:
        for name in ("s", "link"):
            if name == "link":
                at("link").symlink_to("s")
            assert f"{at(name)}: in use by another process; each needs a --state of its own" in refused(
                bundle, "--state", at(name)
            )
    finally:
        process.kill()
        process.wait()
    assert call(bundle, "--state", at("s"), stdin=csv(xs[:1])).returncode == 0  # The kernel has let go.


def test_a_state_that_is_a_link_stays_one(bundle, at, xs, expected):
    at("card").mkdir()
    at("s").symlink_to("card/state")
    for part, want in ((xs[:5], expected[:5]), (xs[5:9], expected[5:9])):
        done = call(bundle, "--state", at("s"), stdin=csv(part))
        np.testing.assert_allclose(numbers(done.stdout), want, atol=2e-6)
    assert at("s").is_symlink()
    assert sorted(os.listdir(at("card"))) == ["state"]


def test_what_a_kill_has_left_is_tidied_up(bundle, at, xs):
    for junk in (b"half a state", b""):
        at(".s.new").write_bytes(junk)
        assert call(bundle, "--state", at("s"), stdin=csv(xs[:2])).returncode == 0
        assert sorted(os.listdir(at("s").parent)) == ["s"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "-inf"])
def test_save_every_is_a_time(bundle, at, value):
    assert "--save-every is a number of seconds, 0 or more" in refused(
        bundle, "--state", at("s"), f"--save-every={value}"
    )
    assert not at("s").exists()


@pytest.mark.slow
def test_every_byte_of_a_state_counts(bundle, at, xs):
    at("in.csv").write_text(csv(xs[:5], "a,b,c"))
    assert call(bundle, at("in.csv"), "--state", at("s"), "--output", at("o")).returncode == 0
    content = at("s").read_bytes()
    stream = load(bundle).stream()
    stream.restore(content)  # For Python it is a snapshot as any other.
    assert stream.steps == 5
    for i in range(0, len(content), 7):
        at("s").write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        said = refused(bundle, at("in.csv"), "--state", at("s"), "--output", at("o"))
        assert str(at("s")) in said
    for size in (0, 10, len(content) - 1):
        at("s").write_bytes(content[:size])
        assert str(at("s")) in refused(bundle, at("in.csv"), "--state", at("s"), "--output", at("o"))


def test_a_full_disk_leaves_no_half_line(bundle, at, xs, monkeypatch):
    """The disk takes half a line and then no more."""
    real, room = os.write, [200]
    at("in.csv").write_text(csv(xs[:50]))

    def write(file: int, data: bytes) -> int:
        if os.path.realpath(f"/proc/self/fd/{file}") != str(at("out.csv")):
            return real(file, data)
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(file, bytes(data)[: room[0]])
        room[0] -= written
        return written

    command = (bundle, at("in.csv"), "--state", at("s"), "--output", at("out.csv"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        assert "No space left on device" in refused(*command)
    assert at("out.csv").read_bytes().endswith(b"\n")
    done = call(*command)
    assert done.returncode == 0, done.stderr
    assert call(bundle, at("in.csv"), "--output", at("want")).returncode == 0
    assert at("out.csv").read_bytes() == at("want").read_bytes()


def test_json_lines_go_on_as_such(run, at, xs, expected):
    text = "".join(json.dumps({"a": float(a), "b": float(b), "c": float(c)}) + "\n" for a, b, c in xs[:20])
    for end in (10, 20):
        at("in.csv").write_text("".join(text.splitlines(keepends=True)[:end]))
        assert run().returncode == 0
    got = [json.loads(line) for line in at("out.csv").read_text().splitlines()]
    np.testing.assert_allclose([[each["u"], each["v"]] for each in got], expected[:20], atol=2e-6)


@pytest.mark.parametrize("header_again", [False, True])
@pytest.mark.parametrize("more", ["", ",time"])
def test_a_pipe_goes_on_behind_its_header(bundle, at, xs, expected, header_again, more):
    rows = [f"c,a,b{more}", *(f"{c},{a},{b}{more and ',12:00'}" for a, b, c in xs[:20].tolist())]
    for part in (rows[:11], [*rows[: int(header_again)], *rows[11:]]):
        assert call(bundle, "--state", at("s"), "--output", at("o"), stdin="\n".join(part)).returncode == 0
    np.testing.assert_allclose(answers(at("o")), expected[:20], atol=2e-6)


@pytest.mark.slow
def test_killed_at_random_moments(bundle, tmp_path):
    count = run_kills.run(bundle, tmp_path / "few", 4, seed=1)
    assert sum(count.values()) >= 4


@pytest.mark.slow
def test_killed_at_random_moments_often(bundle, tmp_path):
    assert sum(run_kills.run(bundle, tmp_path / "many", 60, seed=2).values()) >= 60
