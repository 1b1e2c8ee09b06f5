"""The engine compiled for other processors, and run by an emulator: no kernel is believed that was not seen to work."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path

import pytest

from tests.engine.models import LEAST, precisions, write
from tests.engine.toolchain import ENGINE, HERE, STRICT, compile_engine, link, require, run

# Emulated, a step takes a hundred times as long: shapes that fill no block, and every kind of layer.
MODELS = [
    "tutorial_deep", "masking", "gru_reset_before", "simple_rnn", "activations_of_lstms", "activation_layers",
    "layer_normalization", "softmax_classifier", "LSTM 2 7 8 3", "LSTM 17 24 25 9", "GRU 9 33 16 20",
]  # fmt: skip
STEPS = 110  # More than two tiles' streams, which start one timestep after another.
pytestmark = pytest.mark.devices


@dataclass(frozen=True)
class Target:
    """A processor: its compiler, the emulator and its processor, the kernel that must be its fastest."""

    compiler: str
    emulator: tuple[str, ...]
    kernel: str
    flags: tuple[str, ...] = ()


TARGETS = {
    "cortex-a53": Target("aarch64-linux-gnu-gcc", ("qemu-aarch64-static", "-cpu", "cortex-a53"), "neon"),
    "cortex-a76": Target("aarch64-linux-gnu-gcc", ("qemu-aarch64-static", "-cpu", "cortex-a76"), "neondot"),
    "cortex-a15": Target("arm-linux-gnueabihf-gcc", ("qemu-arm-static", "-cpu", "cortex-a15"), "neon"),
    # NEON without fused multiplication: the same binary finds out.
    "cortex-a8": Target("arm-linux-gnueabihf-gcc", ("qemu-arm-static", "-cpu", "cortex-a8"), "portable"),
    "riscv64": Target("riscv64-linux-gnu-gcc", ("qemu-riscv64-static",), "portable"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_another_processor(name, tmp_path):
    target = TARGETS[name]
    require(target.compiler, target.emulator[0])
    objects = compile_engine(tmp_path / "engine", target.compiler, "-O2", "-static")
    check_model, check_windows, check_errors, check_denormals = (
        link(tmp_path / check, target.compiler, HERE / f"{check}.c", objects, "-O2", "-static")
        for check in ("check_model", "check_windows", "check_errors", "check_denormals")
    )
    for model in MODELS:
        for precision in precisions(model):
            printed = run(*target.emulator, check_model, *write(tmp_path, model, precision, STEPS), target.kernel)
            assert printed.startswith(f"{target.kernel} ")
    for model in ("masking", "GRU 9 33 16 20"):
        for precision in precisions(model):
            assert run(*target.emulator, check_windows, *write(tmp_path, model, precision, 40)[:2], target.kernel)
    for model, precision in product(("tutorial_stacked", "gru_reset_before", "activations_of_lstms"), LEAST):
        file = write(tmp_path, model, precision, 10)[0]
        assert run(*target.emulator, check_denormals, "--unmeasured", file, target.kernel) == f"{target.kernel}\n"
    files = [write(tmp_path, model, "int8", 10)[0] for model in ("tutorial_stacked", "tutorial_last")]
    assert run(*target.emulator, check_errors, *files) == "0 failures\n"


# As compilers on 32-bit Raspberry Pi OS build for every board: NEON is found where it is, all the same.
ARMV6 = Target(*astuple(TARGETS["cortex-a15"])[:3], ("-march=armv6+fp", "-mfloat-abi=hard", "-marm"))


@pytest.mark.parametrize("target", [*TARGETS.values(), ARMV6], ids=[*TARGETS, "armv6 on cortex-a15"])
def test_the_fastest_kernel_is_found(target, tmp_path):
    require(target.compiler, target.emulator[0])
    objects = compile_engine(tmp_path / "engine", target.compiler, *target.flags, "-O1", "-static")
    example = link(tmp_path / "example", target.compiler, ENGINE / "example.c", objects, "-O1", "-static")
    printed = run(*target.emulator, example, write(tmp_path, "tutorial_last", "float32", 10)[0])
    assert printed.startswith(f"{target.kernel}: ")


@pytest.mark.parametrize(
    "flags",
    [
        "aarch64-linux-gnu",
        "aarch64-linux-gnu -mcpu=cortex-a76",
        "arm-linux-gnueabihf -march=armv7-a",
        "arm-linux-gnueabihf -mcpu=cortex-a53 -mfpu=neon-vfpv4",
        "riscv64-linux-gnu",
    ],
)
def test_clang_compiles_for_it_too(flags, tmp_path):
    require("clang")
    target, *rest = flags.split()
    headers = Path("/usr") / target / "include"
    if not headers.is_dir():
        require(f"{target}-gcc")
    compile_engine(tmp_path, "clang", f"--target={target}", f"-isystem{headers}", *rest, *STRICT, "-O1")
