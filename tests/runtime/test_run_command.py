"""`edgelstm-run` on lines of numbers: in a pipe, as it stands behind a sensor, and from file to file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from edgelstm.runtime import load

from tests.runtime.command_line import COMMAND, call, call_process, start
from tests.waiting import until


def csv(xs, header: str | None = None) -> str:
    lines = [] if header is None else [header]
    return "\n".join([*lines, *(",".join(map(str, x)) for x in xs)]) + "\n"


def numbers(text: str) -> np.ndarray:
    return np.array([[float(cell) for cell in line.split(",")] for line in text.splitlines()])


def test_csv_without_a_header(bundle, xs, expected):
    done = call_process(bundle, stdin=csv(xs))
    assert done.returncode == 0
    np.testing.assert_allclose(numbers(done.stdout), expected, atol=2e-6)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_finds_the_columns_by_name(bundle, xs, expected, separator):
    rows = [f"ignored{separator}{c}{separator}{a}{separator}{b}" for a, b, c in xs[:20]]
    text = "\ufeff" + "\r\n".join([separator.join(["time", "c", "a", "b"]), *rows, ""])
    done = call("run", bundle, stdin=text)
    head, *rest = done.stdout.splitlines()
    assert head == "u,v"
    np.testing.assert_allclose(numbers("\n".join(rest)), expected[:20], atol=2e-6)


def test_json_lines(bundle, xs, expected):
    objects = [json.dumps({"b": float(b), "a": float(a), "c": float(c), "extra": "x"}) for a, b, c in xs[:20]]
    arrays = [json.dumps([float(v) for v in x]) for x in xs[:20]]
    for lines in (objects, arrays):
        done = call(bundle, stdin="\n".join(lines))
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        np.testing.assert_allclose([[a["u"], a["v"]] for a in answers], expected[:20], atol=2e-6)


def test_files_in_and_out(bundle, xs, expected, tmp_path):
    (tmp_path / "in.csv").write_text(csv(xs, "a,b,c"))
    done = call(bundle, tmp_path / "in.csv", "--output", tmp_path / "out.csv")
    assert (done.returncode, done.stdout) == (0, "")
    head, *rest = (tmp_path / "out.csv").read_text().splitlines()
    assert head == "u,v"
    np.testing.assert_allclose(numbers("\n".join(rest)), expected, atol=2e-6)


def test_each_prediction_is_flushed_before_the_next_line_is_read(bundle, xs, expected):
    process = start(bundle)
    for x, want in zip(xs[:5], expected, strict=False):
        process.stdin.write(csv([x]).encode())
        process.stdin.flush()
        np.testing.assert_allclose(numbers(process.stdout.readline().decode())[0], want, atol=2e-6)
    process.stdin.close()
    assert process.wait(10) == 0


def test_the_state_survives_a_restart(bundle, xs, expected, tmp_path):
    state, parts = tmp_path / "state", []
    for chunk in np.split(xs, [37, 38, 200]):
        done = call(bundle, "--state", state, stdin=csv(chunk))
        assert done.returncode == 0
        parts.append(numbers(done.stdout))
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=2e-6)
    assert sorted(os.listdir(tmp_path)) == ["small.edge", "state"]


def test_what_goes_on_from_a_state_writes_behind_what_is_there(bundle, xs, expected, tmp_path):
    state, out = tmp_path / "state", tmp_path / "out.csv"
    for chunk in np.split(xs, [37, 200]):
        assert call(bundle, "--state", state, "--output", out, stdin=csv(chunk, "a,b,c")).returncode == 0
    head, *rest = out.read_text().splitlines()
    assert head == "u,v"
    np.testing.assert_allclose(numbers("\n".join(rest)), expected, atol=2e-6)
    out.write_text("u,v\n1,2\n1")  # Half a line, as a power cut leaves it, runs into no other.
    state.unlink()
    call(bundle, "--state", state, stdin=csv(xs[:5]))
    assert call(bundle, "--state", state, "--output", out, stdin=csv(xs[5:6])).returncode == 0
    *before, last = out.read_text().splitlines()
    assert before == ["u,v", "1,2", "1"]
    np.testing.assert_allclose(numbers(last)[0], expected[5], atol=2e-6)
    assert call(bundle, "--output", out, stdin=csv(xs[:1])).returncode == 0
    assert len(out.read_text().splitlines()) == 1  # From zero state, it starts anew.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_cleanly_and_keeps_the_state(bundle, xs, expected, tmp_path, number):
    state = tmp_path / "state"
    process = start(bundle, "--state", state)
    for x in xs[:30]:
        process.stdin.write(csv([x]).encode())
        process.stdin.flush()
        process.stdout.readline()
    process.send_signal(number)
    assert process.wait(10) == 0
    assert b"Traceback" not in process.stderr.read()
    done = call(bundle, "--state", state, stdin=csv(xs[30:]))
    np.testing.assert_allclose(numbers(done.stdout), expected[30:], atol=2e-6)


def test_an_interruption_ends_the_wait_for_a_writer(bundle, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = start(bundle, tmp_path / "fifo", "--report", tmp_path / "report")
    until((tmp_path / "report").exists, "it is ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_it_is_ready_before_anybody_writes_to_its_pipe(bundle, xs, expected, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = start(bundle, tmp_path / "fifo", "--report", tmp_path / "report")
    until((tmp_path / "report").exists, "it is ready")
    (tmp_path / "fifo").write_text(csv(xs))
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    np.testing.assert_allclose(numbers(said.decode()), expected, atol=2e-6)


def test_a_power_cut_loses_no_more_than_the_time_between_saves(bundle, xs, expected, tmp_path):
    state = tmp_path / "state"
    process = start(bundle, "--state", state, "--save-every", 0)
    for x in xs[:30]:
        process.stdin.write(csv([x]).encode())
        process.stdin.flush()
        process.stdout.readline()
    saved = load(bundle).stream()
    until(lambda: saved.restore(state.read_bytes()) or saved.steps == 30, "the last timestep is saved")
    process.kill()
    process.wait()
    done = call(bundle, "--state", state, stdin=csv(xs[30:]))
    np.testing.assert_allclose(numbers(done.stdout), expected[30:], atol=2e-6)


def test_a_closed_pipe_ends_cleanly(bundle, xs, tmp_path):
    (tmp_path / "in.csv").write_text(csv(np.tile(xs, (50, 1))))
    command = f"{' '.join(COMMAND)} {bundle} {tmp_path / 'in.csv'} | head -n 3"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60)
    assert done.stdout.count(b"\n") == 3
    assert (done.returncode, b"Traceback" in done.stderr, b"Broken" in done.stderr) == (0, False, False)


def test_carrying_state_past_the_training_window_is_said_once(bundle, xs):
    done = call(bundle, stdin=csv(xs))
    assert done.stderr.count("trained on windows of 4") == 1
    assert "windows of" not in call(bundle, "--window", 4, stdin=csv(xs)).stderr
    assert "windows of" not in call(bundle, stdin=csv(xs[:4])).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no timesteps"),
        ("\n\n", "no timesteps"),
        ("a,b,c\n", "no timesteps"),
        ("a,b,d\n1,2,3\n", "line 1: no column 'c'; the header has 'a', 'b', 'd'"),
        ("1,2,3\n1,2\n", "line 2: 2 values where 3 belong"),
        ("1,2,3\n1,2,3,4\n", "line 2: 4 values where 3 belong"),
        ("a,b,c\n1,2,3\n1,2,3,4\n", "line 3: 4 values where 3 belong"),
        ("1,2,3\n1,two,3\n", "line 2: b is 'two', not a number"),
        ("1,2,3\n1,,3\n", "line 2: b is '', not a number"),
        ("1,2,3\n1,nan,3\n", "feature 1 is nan"),
        ("1,2,3\n1,2,inf\n", "feature 2 is inf"),
        ("1,2,3\n1,2,1e99\n", "feature 2 is inf"),
        ('{"a": 1, "b": 2}\n', "line 1: no 'c'"),
        ('{"a": 1, "b": 2, "c": "x"}\n', "c is 'x', not a number"),
        ('{"a": 1, "b": 2, "c": true}\n', "c is True, not a number"),
        ("[1, 2]\n", "2 values where 3 belong"),
        ("[1, 2, 3]\n[1, 2\n", "line 2: not JSON"),
        (b"1,2,3\n\xff\xfe,1,2\n", "line 2: not UTF-8"),
        ("1,2,3\n1,2\r3,4\n", "line 2: not a line of CSV"),
        ("[1, 2, 3]\n" + "[" * 50_000 + "\n", "line 2: not JSON"),
    ],
)
def test_bad_lines_stop_with_one_message(bundle, text, words):
    done = call(bundle, stdin=text)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("error") == 1


def test_an_error_is_one_message_and_a_status(bundle):
    done = call_process(bundle, stdin="1,2,3\n1,2\n")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr == "edgelstm: error: standard input: line 2: 2 values where 3 belong (a, b, c)\n"


def test_bad_lines_can_be_skipped(bundle, xs, expected):
    lines = csv(xs[:10]).splitlines()
    lines[5:5] = ["1,nan,3", "1,2", "x,y,z"]
    done = call(bundle, "--skip-bad", stdin="\n".join(lines))
    assert done.returncode == 0
    assert done.stderr.count("skipped") == 3
    np.testing.assert_allclose(numbers(done.stdout), expected[:10], atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.edge"], "no such file"),
        (["{bundle}", "absent.csv"], "absent.csv: cannot be opened"),
        (["{bundle}", "--output", "/absent/out.csv"], "/absent/out.csv: cannot be opened"),
        (["{bundle}", "--state", "/absent/state"], "/absent/state: the state cannot be written"),
        (["{bundle}", "--state", "{bundle}"], "is the same file as the model"),
        (["{bundle}", "--backend", "tpu"], "no backend 'tpu'"),
        (["{bundle}", "--precision", "int8"], "holds nothing for"),
        (["{bundle}", "--window", "0"], "at least 1"),
    ],
)
def test_bad_arguments(bundle, xs, arguments, words):
    done = call(*(argument.format(bundle=bundle) for argument in arguments), stdin=csv(xs))
    assert done.returncode == 2
    assert words in done.stderr


def test_a_state_file_of_another_model_is_left_alone(bundle, xs, tmp_path):
    state = tmp_path / "state"
    call(bundle, "--state", state, "--backend", "numpy", stdin=csv(xs[:3]))
    before = state.read_bytes()
    done = call(bundle, "--state", state, "--backend", "tflite", stdin=csv(xs[:3]))
    assert done.returncode == 2
    assert "another model" in done.stderr
    assert state.read_bytes() == before


def test_verify_and_inspect(bundle):
    done = call("verify", bundle)
    assert done.returncode == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()[2:]] == ["ok", "ok", "ok"]
    checks = json.loads(call("verify", bundle, "--json").stdout)["checks"]
    assert [(c["backend"], c["passed"]) for c in checks] == [
        ("tflite", True),
        ("native", True),
        ("numpy", True),
    ]
    assert "LSTM 3 → 5" in call("inspect", bundle).stdout
    shown = json.loads(call("inspect", bundle, "--json").stdout)
    assert shown["states"] == ["lstm_h", "lstm_c"]
    assert shown["state_bytes"] == 2 * 5 * 4


def test_verify_fails_with_status_1(bundle, parts, tmp_path):
    from dataclasses import replace

    from edgelstm.runtime.bundle import Bundle, File, write_bundle

    manifest, files = parts
    golden = Bundle.open(bundle).golden()
    wrong = replace(golden, outputs=golden.outputs * np.float32(1.001)).to_bytes()
    manifest = replace(manifest, golden=File.of("golden.npz", wrong))
    path = write_bundle(tmp_path / "wrong.edge", manifest, {**files, "golden.npz": wrong}).path
    done = call("verify", path)
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_the_runtime_imports_numpy_and_nothing_else():
    code = (
        "import sys, edgelstm.runtime; names = {m.split('.')[0] for m in sys.modules}; "
        "print(sorted(names - set(sys.stdlib_module_names) - {'__main__', 'edgelstm', 'numpy', 'numpy_'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = [name for name in json.loads(done.stdout.replace("'", '"')) if "editable" not in name]
    assert not [name for name in foreign if name not in ("sitecustomize", "usercustomize", "_distutils_hack")]
