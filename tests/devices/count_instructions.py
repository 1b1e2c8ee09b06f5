"""Counts what a step costs on each core, under emulation, and writes `devices/instructions.toml`.

    python -m tests.devices.count_instructions

Debian's qemu-user, qemu-system-arm, cross compilers and picolibc have to be there. The counts are repeatable to the
last digit. A step's are the difference between twelve steps and two, divided by ten; those of several models are
fitted by `per_step + per_weight · weights + per_unit · recurrent units`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgelstm.devices.estimate import Work, work_of
from edgelstm.export.to_c.source import model_source
from edgelstm.export.to_c.texts import header
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime.memory import c_tile, windows_bytes
from edgelstm.runtime.network import LSTM, Dense, Network
from edgelstm.runtime.streaming import Window

from tests.engine.toolchain import ENGINE, SOURCES

HERE = Path(__file__).parent
TABLE = ENGINE.parents[1] / "devices" / "instructions.toml"
PRECISIONS = ("float32", "float16", "int8")
# Features, units of each layer, outputs. All layers large enough to be int8 where that is asked for.
SHAPES = [(4, [32], 4), (8, [32, 32], 4), (8, [64], 2), (3, [48, 24], 8), (16, [40, 40, 40], 1), (8, [96], 16)]
MAIN = """#include "model.h"
static model stream;
static float x[MODEL_FEATURES], y[MODEL_OUTPUTS];
int main(void) {
    if (model_init(&stream)) return 1;
    for (int t = 0; t < STEPS; t++) {
        for (int i = 0; i < MODEL_FEATURES; i++) x[i] = (float)((t * 7 + i * 3) % 11) / 5.0f - 1.0f;
        if (model_step(&stream, x, y)) return 2;
    }
    return 0;
}
"""
HEADER = """#include "edgelstm.h"
#define MODEL_FEATURES {features}
#define MODEL_OUTPUTS {outputs}
typedef struct model {{
    EDGELSTM_ALIGNED unsigned char memory[16384];
    edgelstm_model model;
    edgelstm_state *state;
}} model;
extern const void *const model_file;
extern const size_t model_file_size;
int model_init(model *self);
int model_step(model *self, const float *x, float *y);
int model_reset(model *self);
"""


@dataclass(frozen=True)
class Core:
    """A core: how to compile for it and how to run that."""

    compiler: str
    emulator: str
    memory: tuple[int, int] | None = None  # Where a microcontroller's flash and RAM begin.


_BARE = "-nographic -monitor none -serial null -semihosting-config enable=on,target=native"
_LOW = (0x0, 0x20000000)
CORES = {
    "cortex-a53": Core("aarch64-linux-gnu-gcc -O2 -mcpu=cortex-a53 -static", "qemu-aarch64 -cpu cortex-a53"),
    "cortex-a72": Core("aarch64-linux-gnu-gcc -O2 -mcpu=cortex-a72 -static", "qemu-aarch64 -cpu cortex-a72"),
    "cortex-a76": Core("aarch64-linux-gnu-gcc -O2 -mcpu=cortex-a76 -static", "qemu-aarch64 -cpu cortex-a76"),
    "armv7-neon": Core(
        "arm-linux-gnueabihf-gcc -O2 -mcpu=cortex-a7 -mfpu=neon-vfpv4 -static", "qemu-arm -cpu cortex-a7"
    ),
    "arm1176": Core(
        "arm-linux-gnueabi-gcc -O2 -marm -mcpu=arm1176jzf-s -mfpu=vfpv2 -mfloat-abi=softfp -static",
        "qemu-arm -cpu arm1176",
    ),
    "cortex-m0plus": Core(
        "arm-none-eabi-gcc -O2 -mthumb -mcpu=cortex-m0plus", f"qemu-system-arm -M mps2-an385 {_BARE} -kernel", _LOW
    ),
    "cortex-m4f": Core(
        "arm-none-eabi-gcc -O2 -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard",
        f"qemu-system-arm -M mps2-an386 {_BARE} -kernel",
        _LOW,
    ),
    "cortex-m7": Core(
        "arm-none-eabi-gcc -O2 -mthumb -mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard",
        f"qemu-system-arm -M mps2-an500 {_BARE} -kernel",
        _LOW,
    ),
    "cortex-m33": Core(
        "arm-none-eabi-gcc -O2 -mthumb -mcpu=cortex-m33 -mfpu=fpv5-sp-d16 -mfloat-abi=hard",
        f"qemu-system-arm -M mps2-an505 {_BARE} -kernel",
        (0x10000000, 0x38000000),
    ),
}


def networks() -> Iterator[Network]:
    """Models of all shapes."""
    rng = np.random.default_rng(0)
    for features, units, outputs in SHAPES:
        widths = [features, *units]
        layers: list[LSTM | Dense] = []
        for i, (inputs, n) in enumerate(zip(widths, units, strict=False)):
            kernel, recurrent = (rng.normal(0, 0.2, (k, 4 * n)).astype(np.float32) for k in (inputs, n))
            layers.append(LSTM(f"lstm{i}", kernel, recurrent, np.zeros(4 * n, np.float32)))
        head = rng.normal(0, 0.2, (units[-1], outputs)).astype(np.float32)
        yield Network("counted", (*layers, Dense("dense", head, np.zeros(outputs, np.float32))), features, True)


def count(core: Core, precision: str, scratch: Path) -> tuple[dict[str, float], int, float]:
    """The fitted costs, the engine's bytes of code, and the largest relative error of the fit."""
    compiler = core.compiler.split()[0]
    # A folder of C for a model whose state is carried has no windows either.
    common, objects = _compiled(core, precision, scratch, [file for file in SOURCES if file.stem != "window"], tile=1)
    code = sum(_code(compiler, made) for made in objects)
    rows: list[list[float]] = []
    counted: list[float] = []
    for network in networks():
        content = native_step_file(network, precision, None)
        (scratch / "model.c").write_text(model_source(content, "model"))
        (scratch / "model.h").write_text(HEADER.format(features=network.features, outputs=network.outputs))
        (scratch / "main.c").write_text(MAIN)
        few, many = (_executed(core, common, objects, scratch, steps) for steps in (2, 12))
        work = work_of(content)
        rows.append([1.0, work.weights, work.units])
        counted.append((many - few) / 10)
    scale = np.array(counted)
    costs, *_ = np.linalg.lstsq(np.array(rows) / scale[:, None], np.ones(len(rows)), rcond=None)
    error = float(np.abs(np.array(rows) @ costs / scale - 1).max())
    return dict(zip(("per_step", "per_weight", "per_unit"), costs.tolist(), strict=True)), code, error


def count_windows(core: Core, precision: str, scratch: Path, window: Window) -> tuple[Work, float]:
    """The work of a step of a model, and the instructions of a timestep of a C folder that answers by window."""
    common, objects = _compiled(core, precision, scratch, SOURCES, c_tile(window))
    network = next(networks())
    content = native_step_file(network, precision, None)
    (scratch / "engine").symlink_to(ENGINE)
    names = (tuple(f"{stem}{i}" for i in range(n)) for stem, n in (("x", network.features), ("y", network.outputs)))
    memory = windows_bytes(content, window, tile=c_tile(window))
    (scratch / "model.h").write_text(header("model", "counted", *names, memory, window))
    (scratch / "model.c").write_text(model_source(content, "model", window))
    (scratch / "main.c").write_text(
        MAIN.replace("x, y)", "x, y, &due)").replace("int main", "static int due;\nint main")
    )
    few, many = (_executed(core, common, objects, scratch, 2 * window.timesteps + steps) for steps in (2, 12))
    return work_of(content), (many - few) / 10


def _compiled(
    core: Core, precision: str, scratch: Path, sources: Sequence[Path], tile: int
) -> tuple[list[str], list[str]]:
    """The compiler's command, and the engine's objects."""
    definitions = [f"-DEDGELSTM_NO_{p.upper()}" for p in PRECISIONS if p not in {precision, _head(precision)}]
    definitions += [f"-DEDGELSTM_TILE={tile}", "-DEDGELSTM_NO_FUNCTIONS"]
    if core.memory is not None:
        definitions.append("-DEDGELSTM_PORTABLE")
    common = [*core.compiler.split(), *definitions, "-std=c99", "-ffp-contract=off", f"-I{ENGINE}", f"-I{scratch}"]
    objects = [str(scratch / f"{source.stem}.o") for source in sources]
    for source, made in zip(sources, objects, strict=True):
        _run([*common, "-c", str(source), "-o", made])
    return common, objects


def _head(precision: str) -> str:
    return "float16" if precision == "int8" else precision


def _executed(core: Core, common: list[str], objects: list[str], scratch: Path, steps: int) -> int:
    program = scratch / f"count{steps}"
    command = [*common, f"-DSTEPS={steps}", str(scratch / "main.c"), str(scratch / "model.c"), *objects]
    if core.memory is None:
        command += ["-o", str(program), "-lm"]
    else:
        flash, ram = core.memory
        places = {"__flash": flash, "__flash_size": 0x400000, "__ram": ram, "__ram_size": 0x200000}
        command += ["--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted", "-o", str(program), "-lm"]
        command += [f"-Wl,--defsym={name}={value:#x}" for name, value in places.items()]
    _run(command)
    emulator = core.emulator.split()
    plugin = ["-plugin", str(scratch / "count.so")]
    full = [*emulator, str(program), *plugin] if core.memory else [*emulator, *plugin, str(program)]
    done = subprocess.run(full, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.search(r"executed (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def _code(compiler: str, made: str) -> int:
    printed = _run([compiler.removesuffix("gcc") + "size", made])
    text, data = map(int, printed.splitlines()[1].split()[:2])
    return text + data


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_plugin(scratch: Path) -> None:
    """Compile the plugin for this machine."""
    _run(["gcc", "-shared", "-fPIC", "-O2", str(HERE / "count_instructions.c"), "-o", str(scratch / "count.so")])


def main() -> None:
    """Write the table."""
    lines = [
        "# What one step of the engine costs on each core: instructions, counted under emulation, and bytes of code.",
        "# instructions = per_step + per_weight · weights + per_unit · recurrent units; `error`: largest of the fit.",
        "# Made by `python -m tests.devices.count_instructions`; the counts are the same each time.",
    ]
    for name, core in CORES.items():
        compiler = core.compiler.split()[0]
        assert shutil.which(compiler), compiler
        version = _run([compiler, "-dumpfullversion"]).strip()
        emulator = " ".join(core.emulator.removesuffix(" -kernel").replace(_BARE, "").split())
        lines += [
            "",
            f"[{name}]",
            f'compiler = "{core.compiler} (GCC {version})"',
            f'emulator = "{emulator}, QEMU 7.2"',
        ]
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                make_plugin(Path(folder))
                costs, code, error = count(core, precision, Path(folder))
            values = ", ".join(f"{key} = {value:.2f}" for key, value in costs.items())
            lines.append(f"{precision} = {{ {values}, error = {error:.3f}, code = {code} }}")
            print(name, lines[-1])
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
