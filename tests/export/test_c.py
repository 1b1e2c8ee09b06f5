"""`--format c`: the folder compiles anywhere without a word, holds the model's very bits, and its self-test tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from edgelstm.export import export_c
from edgelstm.export.to_c import compiler as measured
from edgelstm.export.to_c.source import array
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime import BundleError, InputError, ParityError, UnsupportedModelError, Window
from edgelstm.runtime.memory import state_bytes, windows_bytes

from tests.engine.models import NAMES, elm, inputs, network, precisions
from tests.engine.toolchain import STRICT, compile_engine, language, link, require, run
from tests.export.refused import REFUSED

pytestmark = pytest.mark.engine
# Models, precisions, and the window and hop by which they answer.
CASES = [
    ("LSTM 17 24 25 9", "float32", None, None),
    ("GRU 9 33 16 20", "int8", None, None),
    ("activations_of_lstms", "float16", None, None),
    ("masking", "float32", 11, 3),
]
# What compiles these, by precision and whether they answer by window: all of them takes minutes.
COMPILERS = {
    ("float32", False): ("gcc", "clang"),
    ("int8", False): ("clang", "g++"),
    ("float16", False): ("clang",),
    ("float32", True): ("clang", "g++"),
}


@pytest.fixture(scope="module", autouse=True)
def sizes_of_other_processors_once():
    """Compiling for each of them takes longer than all else; the first case has them."""
    everywhere = list(measured.ELSEWHERE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "ELSEWHERE", ())
        yield everywhere


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {case[1]}".replace(" ", "-"))
def project(request, tmp_path_factory, sizes_of_other_processors_once):
    require("cc", "size")
    name, precision, window, hop = request.param
    folder = tmp_path_factory.mktemp("c") / "pump"
    with pytest.MonkeyPatch.context() as patch:
        if request.param is CASES[0]:
            patch.setattr(measured, "ELSEWHERE", sizes_of_other_processors_once)
        return export_c(network(name), folder, precision, window=window, hop=hop, carry=window is None), network(name)


def build(made, compiler, *flags, main=None):
    """The program of everything in the folder, or of another `main`."""
    files = [main or made.path / "main.c", made.path / "pump.c"]
    given = [*flags, *(f"-D{definition}" for definition in made.definitions), f"-I{made.path}"]
    with tempfile.TemporaryDirectory() as scratch:
        objects = compile_engine(Path(scratch), compiler, *given, sources=sorted((made.path / "engine").glob("*.c")))
        program = made.path.parent / f"check-{compiler}"
        command = [compiler, *language(compiler), *given, *files, "-x", "none", *objects, "-o", program, "-lm"]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def test_it_compiles_without_a_word_and_passes_its_own_test(project):
    made, _ = project
    for compiler in COMPILERS[made.precision, made.window is not None]:
        require(compiler)
        printed = run(build(made, compiler, *STRICT, "-O1"))
        assert "dB against Keras, at least" in printed, compiler


def test_the_model_in_it_is_the_native_file(project, tmp_path):
    made, of = project
    dump = tmp_path / "dump.c"
    body = "int main(void) { return fwrite(pump_file, 1, pump_file_size, stdout) == 0; }"
    dump.write_text(f'#include <stdio.h>\n#include "pump.h"\n{body}\n')
    program = build(made, "gcc", "-O1", "-DEDGELSTM_PORTABLE", main=dump)
    content = subprocess.run([str(program)], capture_output=True, check=True).stdout
    assert content == native_step_file(of, made.precision, None)


def test_what_the_readme_says_of_memory_is_so(project, tmp_path):
    made, _ = project
    text = (made.path / "README.md").read_text()
    here = next(size for size in made.sizes if size.target == "this machine")
    for size in made.sizes:
        assert f"| {size.weights:,} | {size.code:,} | {size.ram:,} |" in text
        assert abs(size.weights - here.weights) < 256
    assert here.weights >= made.weights
    # A stream is its memory, the opened model and a pointer, on a border of 64 bytes.
    assert made.state < here.ram <= made.state + 192


def test_only_what_answers_by_window_has_windows(project):
    made, _ = project
    sources = {file.name for file in (made.path / "engine").glob("*.c")}
    assert ("window.c" in sources) == (made.window is not None)
    assert ("window.c" in (made.path / "CMakeLists.txt").read_text()) == (made.window is not None)
    assert ("int *due" in (made.path / "pump.h").read_text()) == (made.window is not None)
    readme = (made.path / "README.md").read_text()
    assert ("**By window.**" in readme) == (made.window is not None)
    if made.window is not None:
        assert f"| {made.window.hop} (this folder) | {made.window.in_flight} | {made.state:,} |" in readme


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """Windows of a model that Keras itself says the answers for."""
    require("cc")
    return export_c(network("tutorial_stacked"), tmp_path_factory.mktemp("w") / "pump", window=9, hop=4)


def test_by_window_it_answers_when_and_what_keras_does(windowed, tmp_path):
    of = network("tutorial_stacked")
    xs = inputs("tutorial_stacked", 40)
    program = tmp_path / "steps.c"
    program.write_text(
        '#include <stdio.h>\n#include "pump.h"\nstatic pump stream;\n'
        f"static const float xs[40 * PUMP_FEATURES] = {array(xs)};\n"
        "int main(void) {\n    float y[PUMP_OUTPUTS];\n    int due;\n    if (pump_init(&stream)) return 1;\n"
        "    for (int t = 0; t < 40; t++) {\n"
        "        if (pump_step(&stream, xs + t * PUMP_FEATURES, y, &due)) return 2;\n"
        '        if (due) printf("%d", t);\n'
        '        for (int i = 0; due && i < PUMP_OUTPUTS; i++) printf(" %.9g", (double)y[i]);\n'
        '        if (due) puts("");\n    }\n    return 0;\n}\n'
    )
    printed = run(build(windowed, "gcc", *STRICT, "-O1", "-DEDGELSTM_PORTABLE", main=program))
    answers = {int(line.split()[0]): [float(value) for value in line.split()[1:]] for line in printed.splitlines()}
    assert list(answers) == [8, 12, 16, 20, 24, 28, 32, 36]
    want = of.reference.windows(np.stack([xs[t - 8 : t + 1] for t in answers]))
    np.testing.assert_allclose(list(answers.values()), want, atol=3e-6)


def test_an_answer_at_the_wrong_time_fails_the_self_test(windowed, tmp_path):
    main = tmp_path / "main.c"
    text = (windowed.path / "main.c").read_text()
    main.write_text(re.sub(r"(due_at\[ANSWERS\] = {\s*)(\d+)", r"\g<1>1 + \2", text))
    assert main.read_text() != text
    program = build(windowed, "gcc", "-O1", "-DEDGELSTM_PORTABLE", main=main)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "answer 0 came too early or too late" in done.stdout


def test_a_model_that_computes_something_else_fails_its_test(windowed, tmp_path):
    main = tmp_path / "main.c"
    text = (windowed.path / "main.c").read_text()
    start = text.index("expected[")
    sign = text.index("    ", start)  # The first expected value, and with it the ratio, becomes enormous.
    main.write_text(text[: sign + 8] + "1e9f + " + text[sign + 8 :].lstrip())
    program = build(windowed, "gcc", "-O1", "-DEDGELSTM_PORTABLE", main=main)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "LESS THAN" in done.stdout


@pytest.mark.devices
@pytest.mark.parametrize(
    ("compiler", "emulator"),
    [
        ("aarch64-linux-gnu-gcc", ("qemu-aarch64-static", "-cpu", "cortex-a76")),
        ("arm-linux-gnueabihf-gcc", ("qemu-arm-static", "-cpu", "cortex-a15")),
        ("riscv64-linux-gnu-gcc", ("qemu-riscv64-static",)),
    ],
)
def test_it_passes_on_other_processors(project, compiler, emulator):
    require(compiler, emulator[0])
    made, _ = project
    program = build(made, compiler, "-O1", "-static")
    assert "at least" in run(*emulator, program)


def test_cmake_builds_and_tests_it(tmp_path, monkeypatch):
    require("cmake", "cc")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)  # It is compiled below.
        made = export_c(network("tutorial_stacked"), tmp_path / "Pump Station 3", "float32")
    assert made.name == "pump_station_3"
    run("cmake", "-S", made.path, "-B", tmp_path / "build", "-DCMAKE_C_FLAGS=-Werror")
    run("cmake", "--build", tmp_path / "build", "--parallel", 2)
    assert "100% tests passed" in run("ctest", "--test-dir", tmp_path / "build")


@pytest.mark.parametrize(("compiler", "pointer"), [("gcc", 8), ("arm-linux-gnueabihf-gcc", 4)])
def test_memory_is_worked_out_as_the_engine_does(compiler, pointer, tmp_path):
    require(compiler)
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include <stdio.h>\n#include "edgelstm.h"\n'
        "static EDGELSTM_ALIGNED unsigned char file[1 << 21];\n"
        "int main(int count, char **names) {\n"
        "    for (int i = 1; i < count; i++) {\n"
        "        edgelstm_model model;\n"
        '        FILE *opened = fopen(names[i], "rb");\n'
        "        if (edgelstm_open(&model, file, fread(file, 1, sizeof file, opened))) return 1;\n"
        '        printf("%zu %zu", edgelstm_state_size(&model, 1), edgelstm_state_size(&model, 1000));\n'
        '        printf(" %zu", edgelstm_windows_size(&model, 1, 30, 7));\n'
        '        printf(" %zu\\n", edgelstm_windows_size(&model, 3, 30, 1));\n'
        "        fclose(opened);\n    }\n    return 0;\n}\n"
    )
    engine = compile_engine(tmp_path, compiler, "-O1", "-DEDGELSTM_PORTABLE")
    program = link(tmp_path / "sizes", compiler, source, engine, "-O1", "-static")
    contents = [elm(name, precision) for name in NAMES for precision in precisions(name)]
    files = []
    for i, content in enumerate(contents):
        files.append(tmp_path / f"{i}.elm")
        files[-1].write_bytes(content)
    emulator = () if pointer == 8 else ("qemu-arm-static",)
    require(*emulator)
    printed = run(*emulator, program, *files).splitlines()
    assert printed == [
        f"{state_bytes(c, 1, pointer)} {state_bytes(c, 1000, pointer)} "
        f"{windows_bytes(c, Window(30, 7), 1, pointer)} {windows_bytes(c, Window(30), 3, pointer)}"
        for c in contents
    ]


def test_literals_are_exact():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values[np.isfinite(values)], np.array([0.0, -0.0, 1.0, 1e-45, 3.4028235e38], np.float32)])
    texts = array(values).strip("{}\n").replace("\n", "").split(",")
    read = np.array([float(text.strip().removesuffix("f")) for text in texts]).astype(np.float32)
    assert read.tobytes() == values.tobytes()
    assert all("." in text or "e" in text for text in texts)


@pytest.mark.parametrize("name", ["3pumps", "int", "ß", "edgelstm"])
def test_names_that_c_cannot_have(name, tmp_path):
    with pytest.raises(InputError, match="choose a name"):
        export_c(network("tutorial_last"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused_and_nothing_is_lost(tmp_path):
    model = network("tutorial_last")
    with pytest.raises(InputError, match="no precision 'dynamic'"):
        export_c(model, tmp_path / "pump", "dynamic")
    with pytest.raises(ParityError, match="nothing is written"):
        export_c(model, tmp_path / "pump", "float16", min_snr=150)
    case = next(iter(REFUSED.values()))
    with pytest.raises(UnsupportedModelError, match=re.escape(case.words[0])):
        export_c(case.build(), tmp_path / "pump")
    assert not list(tmp_path.iterdir())
    mine = tmp_path / "pump"
    mine.mkdir()
    (mine / "precious.txt").write_text("mine")
    with pytest.raises(BundleError, match="choose another output"):
        export_c(model, mine)
    assert [file.name for file in mine.iterdir()] == ["precious.txt"]


def test_without_a_compiler_it_is_written_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    made = export_c(network("tutorial_last"), tmp_path / "pump")
    assert not made.ran
    assert made.sizes == ()
    assert "no compiler was there" in (made.path / "README.md").read_text()
