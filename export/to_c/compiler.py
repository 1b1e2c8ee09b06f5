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


HERE = Compiler("cc", "this machine", ("-Os",))
ELSEWHERE = (
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


def replay(
    folder: Path, name: str, sources: Sequence[str], definitions: Sequence[str]
) -> tuple[str | None, list[Size]]:
    """Compile the folder and run its self-test here.

    Returns:
        What is wrong, or an empty text, or None where this machine has no compiler; and the size, if it can be had.
    """
    if shutil.which(HERE.command) is None:
        return None, []
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "check"
        files = [folder / "main.c", *_files(folder, name, sources, Path(scratch))]
        objects, problem = _compile(HERE, definitions, folder, files, Path(scratch))
        if problem:
            return f"they do not compile here: {problem}", []
        main, weights, *engine, stream = objects
        linked = [HERE.command, *map(str, (main, weights, *engine)), "-o", str(program), "-lm"]
        if (done := subprocess.run(linked, capture_output=True, text=True)).returncode != 0:
            return f"they do not link here: {done.stderr[-2000:]}", []
        ran = subprocess.run([str(program)], capture_output=True, text=True)
        if ran.returncode != 0:
            return f"their self-test fails here: {ran.stdout.strip()}", []
        size = _size_tool(HERE)
        return "", [] if size is None else [_sized(HERE, size, weights, _code(size, engine), stream)]


def measure(folder: Path, name: str, sources: Sequence[str], definitions: Sequence[str]) -> list[Size]:
    """Compile the folder with every compiler of `ELSEWHERE` that is there, and add up the sections."""
    sizes: list[Size] = []
    for compiler in ELSEWHERE:
        size = _size_tool(compiler)
        if shutil.which(compiler.command) is None or size is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            # The engine is the same for every model of the same kind.
            known = _engines.get((compiler, *sources, *definitions))
            files = _files(folder, name, [] if known is not None else sources, Path(scratch))
            objects, problem = _compile(compiler, definitions, folder, files, Path(scratch))
            if problem:
                continue
            weights, *engine, stream = objects
            code = _code(size, engine) if known is None else known
            _engines[compiler, *sources, *definitions] = code
            sizes.append(_sized(compiler, size, weights, code, stream))
    return sizes


_engines: dict[tuple[Compiler | str, ...], int] = {}


def _files(folder: Path, name: str, sources: Sequence[str], scratch: Path) -> list[Path]:
    """The model, the engine, and one stream as an application has it."""
    instance = scratch / "stream.c"
    instance.write_text(f'#include "{name}.h"\n{name} stream;\n')
    return [folder / f"{name}.c", *(folder / source for source in sources), instance]


def _size_tool(compiler: Compiler) -> str | None:
    return shutil.which(compiler.command.removesuffix("gcc").removesuffix("cc") + "size")


def _code(size: str, engine: Sequence[Path]) -> int:
    return sum(text + data for text, data, _ in (_sections(size, made) for made in engine))


def _sized(compiler: Compiler, size: str, weights: Path, code: int, stream: Path) -> Size:
    command = f"{compiler.command} {' '.join(compiler.flags)}"
    return Size(command, compiler.target, sum(_sections(size, weights)[:2]), code, _sections(size, stream)[2])


def _compile(
    compiler: Compiler, definitions: Sequence[str], folder: Path, files: Sequence[Path], to: Path
) -> tuple[list[Path], str]:
    """Object files, made side by side, and what the compiler says of those that it cannot make."""
    objects = [to / f"{file.stem}.o" for file in files]
    given = [*compiler.flags, *(f"-D{d}" for d in definitions), "-std=c99", "-ffp-contract=off", "-ffunction-sections"]

    def make(file: Path, made: Path) -> str:
        done = subprocess.run(
            [compiler.command, *given, f"-I{folder}", "-c", str(file), "-o", str(made)], capture_output=True, text=True
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
