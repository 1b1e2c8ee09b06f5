"""What the compilers of this machine say of a folder of C: how much flash and RAM it takes, and whether it computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Compiler:
    """A compiler and the flags for one target."""

    command: str
    target: str
    flags: tuple[str, ...]


COMPILERS = (
    Compiler("cc", "this machine", ("-Os",)),
    Compiler(
        "arm-none-eabi-gcc",
        "Cortex-M4F",
        ("-Os", "-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-DEDGELSTM_PORTABLE"),
    ),
    Compiler(
        "arm-none-eabi-gcc",
        "Cortex-M33",
        ("-Os", "-mthumb", "-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16", "-DEDGELSTM_PORTABLE"),
    ),
    Compiler("arm-linux-gnueabihf-gcc", "32-bit ARM Linux", ("-Os",)),
    Compiler("aarch64-linux-gnu-gcc", "64-bit ARM Linux", ("-Os",)),
)


@dataclass(frozen=True)
class Size:
    """Bytes, of the model and the engine together, without the C library.

    Attributes:
        compiler: and its flags.
        target: what for.
        weights: read-only memory that the model takes.
        code: read-only memory that the engine takes.
        ram: memory of one stream, the stack left out.
    """

    compiler: str
    target: str
    weights: int
    code: int
    ram: int


def measure(folder: Path, name: str, sources: Sequence[str], definitions: Sequence[str]) -> list[Size]:
    """Compile the folder with every compiler of `COMPILERS` that is there, and add up the sections."""
    sizes: list[Size] = []
    for compiler in COMPILERS:
        size = shutil.which(compiler.command.removesuffix("gcc").removesuffix("cc") + "size")
        if shutil.which(compiler.command) is None or size is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            instance = Path(scratch) / "stream.c"
            instance.write_text(f'#include "{name}.h"\n{name} stream;\n')
            files = [folder / f"{name}.c", *(folder / source for source in sources), instance]
            objects, problem = _compile(compiler.command, compiler.flags, definitions, folder, files, Path(scratch))
            if problem:
                continue
            weights, *engine, stream = (_sections(size, made) for made in objects)
            code = sum(text + data for text, data, _ in engine)
            command = f"{compiler.command} {' '.join(compiler.flags)}"
            sizes.append(Size(command, compiler.target, sum(weights[:2]), code, stream[2]))
    return sizes


def replay(folder: Path, name: str, sources: Sequence[str], definitions: Sequence[str]) -> str | None:
    """Compile and run the self-test here.

    Returns:
        What is wrong, or an empty text; None where this machine has no compiler.
    """
    if shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "check"
        files = [folder / "main.c", folder / f"{name}.c", *(folder / source for source in sources)]
        objects, problem = _compile("cc", ("-O1",), definitions, folder, files, Path(scratch))
        if problem:
            return f"they do not compile here: {problem}"
        linked = subprocess.run(["cc", *map(str, objects), "-o", str(program), "-lm"], capture_output=True, text=True)
        if linked.returncode != 0:
            return f"they do not link here: {linked.stderr[-2000:]}"
        ran = subprocess.run([str(program)], capture_output=True, text=True)
        return "" if ran.returncode == 0 else f"their self-test fails here: {ran.stdout.strip()}"


def _compile(
    command: str, flags: Sequence[str], definitions: Sequence[str], folder: Path, files: Sequence[Path], to: Path
) -> tuple[list[Path], str]:
    """Object files, made side by side, and what the compiler says of those that it cannot make."""
    objects = [to / f"{file.stem}.o" for file in files]
    given = [*flags, *(f"-D{d}" for d in definitions), "-std=c99", "-ffp-contract=off", "-ffunction-sections"]

    def make(file: Path, made: Path) -> str:
        done = subprocess.run(
            [command, *given, f"-I{folder}", "-c", str(file), "-o", str(made)], capture_output=True, text=True
        )
        return done.stderr[-2000:] or "it failed" if done.returncode != 0 else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(pool.map(make, files, objects))
    return objects, "\n".join(problem for problem in problems if problem)


def _sections(size: str, made: Path) -> tuple[int, int, int]:
    """Bytes of text (with read-only data), data and bss."""
    lines = subprocess.run([size, str(made)], capture_output=True, text=True, check=True).stdout.splitlines()
    text, data, bss = map(int, lines[1].split()[:3])
    return text, data, bss
