"""The library for ARMv6, for which there is no userland here: its instructions are read, and its engine is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from edgelstm.devices.userland import FOLDER
from edgelstm.devices.wheels import TARGETS, compile_objects, link

from tests.engine.models import precisions, write
from tests.engine.test_cross import MODELS, STEPS
from tests.engine.toolchain import ENGINE, HERE, compile_engine, require, run
from tests.engine.toolchain import link as link_program

pytestmark = pytest.mark.devices
TRIPLET = "arm-linux-gnueabihf"
# NEON, and of VFPv3 and later: more registers, constants in instructions, fused and half-width operations.
BEYOND_VFPV2 = re.compile(
    r"\b(q\d+|d(1[6-9]|2\d|3[01]))\b|\tv(fma|fms|fnma|fnms|cvt[bt]|ld[1-4]|st[1-4]|dup|shl|add\.i)|\tvmov\S*\t.*#"
)
ARM1176 = ("qemu-arm-static", "-cpu", "arm1176")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The wheel's objects by their stems, and the library."""
    require(TARGETS["armv6l"].compiler, "mmdebstrap")
    folder = tmp_path_factory.mktemp("armv6")
    objects = compile_objects(TARGETS["armv6l"], folder)
    link(TARGETS["armv6l"], objects, folder / "library.so")
    return {path.stem: path for path in [*objects, folder / "library.so"]}


def instructions(path: Path, processor: str, *sections: str) -> list[str]:
    """As the disassembler reads them for a processor, without addresses, which may read like registers."""
    options = ["--disassemble", "--no-show-raw-insn", *(f"--section={name}" for name in sections)]
    listing = run(f"{TRIPLET}-objdump", f"--architecture={processor}", *options, path)
    return [re.sub("[0-9a-f]+ <.*>", "", line) for line in re.findall(r"^ +[0-9a-f]+:(\t.*)$", listing, re.MULTILINE)]


def beyond(path: Path, *sections: str) -> list[str]:
    """Instructions that an ARM1176 does not have.

    The disassembler does not refuse what came after ARMv6, but reads it as something else.
    """
    for_all, for_armv6 = (instructions(path, processor, *sections) for processor in ("arm", "armv6"))
    pairs = zip(for_all, for_armv6, strict=True)
    return [line for line, other in pairs if line != other or BEYOND_VFPV2.search(line)]


def test_every_instruction_is_one_of_armv6(built):
    """But for the kernel with NEON, which is called through its table once the processor was seen to have that."""
    for stem, path in built.items():
        if stem not in ("kernel_neon", "library"):
            assert not beyond(path), stem
    assert not beyond(built["library"], ".plt")
    assert len(instructions(built["kernel_portable"], "armv6")) > 1000
    assert re.findall(
        r" [A-Z] (.*)", run(f"{TRIPLET}-nm", "--defined-only", "--extern-only", built["kernel_neon"])
    ) == ["edgelstm_kernel_neon"]


def test_the_reading_finds_what_is_beyond(built, tmp_path):
    assert len(beyond(built["kernel_neon"])) > 1000
    for source in ("model", "kernel_portable"):
        flags = ("-march=armv7-a+fp", "-marm", "-O3")
        (made,) = compile_engine(tmp_path, f"{TRIPLET}-gcc", *flags, sources=[ENGINE / f"{source}.c"])
        assert beyond(made), source


def test_nothing_but_these_objects_is_in_the_library(built):
    """No start files and nothing of libgcc, which Debian's toolchain has for ARMv7 only."""
    listing = built["library"].with_suffix(".map").read_text()
    code = re.findall(
        r"^ (?:\.(?:text|init|fini|plt|rodata|data|ARM)\S*)\s+0x\w+\s+(0x\w+) (\S+)$", listing, re.MULTILINE
    )
    held = {Path(path).stem for size, path in code if int(size, 16)}
    assert {"native_module", "kernel_portable", "step"} <= held <= set(built)
    attributes = run("readelf", "-A", built["library"])
    wanted = ("Tag_CPU_arch: v6", "Tag_FP_arch: VFPv2", "Tag_ABI_VFP_args: VFP registers")
    assert all(f"{line}\n" in attributes for line in wanted), attributes
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", built["library"]))
    assert set(needed) <= {"libm.so.6", "libc.so.6", "libgcc_s.so.1"}


def test_its_engine_runs_on_an_arm1176(built, tmp_path):
    """The wheel's own objects, linked with a C library for ARMv6."""
    require(ARM1176[0])
    engine = [path for stem, path in built.items() if stem not in ("native_module", "native_windows", "library")]
    programs = {}
    for name in ("check_model", "check_errors"):
        programs[name] = tmp_path / name
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", "arm-linux-musleabihf", "-mcpu=arm1176jzf_s"]
        sources = ["-std=c99", "-D_GNU_SOURCE", f"-I{ENGINE}", HERE / f"{name}.c", *engine]
        run(*zig, "-static", "-O2", *sources, "-lm", "-o", programs[name], ZIG_GLOBAL_CACHE_DIR=str(FOLDER / "zig"))
    for model in MODELS:
        for precision in precisions(model):
            printed = run(*ARM1176, programs["check_model"], *write(tmp_path, model, precision, STEPS))
            assert printed.startswith("portable ")
            assert len(printed.splitlines()) == 1
    files = [write(tmp_path, model, "int8", 10)[0] for model in ("tutorial_stacked", "tutorial_last")]
    assert run(*ARM1176, programs["check_errors"], *files) == "0 failures\n"


def test_the_emulator_stops_at_what_an_arm1176_does_not_have(tmp_path):
    require(ARM1176[0], f"{TRIPLET}-gcc")
    objects = compile_engine(tmp_path / "engine", f"{TRIPLET}-gcc", "-O1", "-static")
    example = link_program(tmp_path / "example", f"{TRIPLET}-gcc", ENGINE / "example.c", objects, "-static")
    file = write(tmp_path, "tutorial_last", "float32", 10)[0]
    done = subprocess.run([*ARM1176, example, file], capture_output=True, text=True)
    assert done.returncode in (-4, 132), done.stderr
