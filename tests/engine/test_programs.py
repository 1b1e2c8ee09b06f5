"""The engine as C programs use it: answers, errors, allocations, and that nothing of it is foreign."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.engine.models import NAMES, precisions, write
from tests.engine.toolchain import ENGINE, HERE, STRICT, compile_engine, language, link, require, run

STEPS = 200  # Of which a fleet's last stream, that starts a hundred late, sees half.
WINDOW_STEPS = 60  # Two windows of thirty.
# Every kind of cell, masked timesteps, layers before, between and behind the cells.
WINDOWED = ["tutorial_last", "masking", "gru", "gru_reset_before", "simple_rnn", "activation_layers", "LSTM 2 7 8 3"]
pytestmark = pytest.mark.engine
BUILDS = {
    # A constant's pointers are constant without PIE, so that what can change is seen.
    "gcc": ("gcc", "-O3", "-fno-pie", "-no-pie"),
    "clang": ("clang", "-O2"),
    "gcc-small": ("gcc", "-Os", "-DEDGELSTM_PORTABLE"),
    # Apart, because both together take minutes to compile.
    "clang-address": ("clang", "-O2", "-g1", "-fsanitize=address"),
    "gcc-undefined": ("gcc", "-O1", "-g1", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-DEDGELSTM_PORTABLE"),
}


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """A compiler with its flags, and the engine compiled by it, which has nothing to say."""

    @cache
    def build(name: str) -> tuple[Path, str, list[str], list[Path]]:
        compiler, *flags = BUILDS[name]
        require(compiler)
        folder = tmp_path_factory.mktemp(name)
        # Sanitizers make GCC see dangers that there are not.
        strict = () if "undefined" in name else STRICT
        return folder, compiler, flags, compile_engine(folder / "engine", compiler, *flags, *strict)

    return build


@pytest.fixture(params=BUILDS)
def build(request, builds):
    return builds(request.param)


def test_every_model_on_every_kernel(build, tmp_path):
    folder, compiler, flags, objects = build
    program = link(folder / "check_model", compiler, HERE / "check_model.c", objects, *flags)
    for name in NAMES:
        for precision in precisions(name):
            printed = run(program, *write(tmp_path, name, precision, STEPS))
            assert printed.splitlines()[-1].startswith("portable ")


def test_windows_in_flight_are_replays_to_the_bit(build, tmp_path):
    folder, compiler, flags, objects = build
    program = link(folder / "check_windows", compiler, HERE / "check_windows.c", objects, *flags)
    sanitized = any("sanitize" in flag for flag in flags)
    for name in WINDOWED:
        for precision in precisions(name)[-1 if sanitized else 0 :]:  # They are slow, and a place is a place in any.
            model, inputs, _ = write(tmp_path, name, precision, WINDOW_STEPS)
            assert run(program, model, inputs).splitlines()[-1] == "portable"


def test_whatever_is_wrong_has_its_error(build, tmp_path):
    folder, compiler, flags, objects = build
    program = link(folder / "check_errors", compiler, HERE / "check_errors.c", objects, *flags)
    other = write(tmp_path, "tutorial_last", "float32", 10)[0]
    for name, precision in (("tutorial_stacked", "float32"), ("gru", "int8"), ("masking", "float16")):
        assert run(program, write(tmp_path, name, precision, 10)[0], other) == "0 failures\n"


def test_a_million_steps_allocate_nothing(builds, tmp_path):
    _, compiler, flags, objects = builds("gcc")
    program = link(tmp_path / "check", compiler, HERE / "check_allocations.c", objects, *flags)
    models = [("LSTM 8 32 32 4", "float32"), ("LSTM 8 32 32 4", "int8"), ("gru_reset_before", "float16")]
    run(program, *(write(tmp_path, name, precision, 10)[0] for name, precision in models))


def test_the_engine_calls_mathematics_and_memory_only(builds):
    """Nothing that allocates, reads, writes, locks or waits is so much as linked to, and nothing is kept."""
    require("nm")
    objects = builds("gcc")[-1]
    listed = subprocess.run(["nm", *map(str, objects)], capture_output=True, text=True, check=True).stdout
    symbols = re.findall(r"^\s*[0-9a-f]* ([A-Za-z]) (\S+)$", listed, re.M)
    defined = {name for kind, name in symbols if kind != "U"}
    allowed = {"memcpy", "memmove", "memset", "memcmp", "strcmp", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    allowed |= {"__cpu_model", "__cpu_features2", "__cpu_indicator_init"}  # GCC's own, for __builtin_cpu_supports.
    mathematics = {"expf", "expm1f", "log1pf", "tanhf", "sqrtf", "erff", "fabsf", "logf", "fminf", "fmaxf"}
    foreign = {name for kind, name in symbols if kind == "U"} - defined - allowed - mathematics
    assert not foreign
    # Variables that can change: initialised, uninitialised, common.
    assert not {name for kind, name in symbols if kind in "DdBbCc"}


def test_the_header_is_c_and_cpp_on_its_own(tmp_path):
    source = tmp_path / "use.c"
    source.write_text('#include "edgelstm.h"\nint main(void) { return edgelstm_features(NULL) != 0; }\n')
    for compiler in ("gcc", "g++"):
        require(compiler)
        run(compiler, *language(compiler), *STRICT, "-fsyntax-only", f"-I{ENGINE}", source)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_as_cpp_no_compiler_has_anything_to_say_either(compiler, tmp_path):
    require(compiler)
    compile_engine(tmp_path, compiler, *STRICT, "-fsyntax-only")


def test_fast_mathematics_are_refused(tmp_path):
    """They would let a compiler take every check for NaN away."""
    require("gcc")
    for flag in ("-ffast-math", "-ffinite-math-only"):
        with pytest.raises(AssertionError, match="NaN"):
            compile_engine(tmp_path, "gcc", flag)
