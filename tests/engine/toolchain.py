"""Compiles the engine for the tests: with which compiler, with which flags, for which processor."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "runtime" / "engine"
HERE = Path(__file__).parent
SOURCES = sorted(path for path in ENGINE.glob("*.c") if path.stem not in ("bench", "example"))
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


def language(compiler: str) -> tuple[str, ...]:
    """Flags of the standard: C99, or C++11 for a C++ compiler."""
    return (*(("-x", "c++", "-std=c++11") if compiler.endswith("++") else ("-std=c99",)), "-ffp-contract=off")


def find(tool: str) -> str | None:
    """Where a tool is, also where Debian puts daemons, in which a user's PATH need not look."""
    return shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def require(*tools: str) -> None:
    """Skip without these tools; fail where everything must be there, as in continuous integration."""
    missing = [tool for tool in tools if find(tool) is None]
    if missing and os.environ.get("EDGELSTM_ALL_TOOLS"):
        pytest.fail(f"{', '.join(missing)} should be installed: .ci/system-packages lists what the tests use")
    if missing:
        pytest.skip(f"without {', '.join(missing)}")


def compile_engine(folder: Path, compiler: str, *flags: str, sources: list[Path] = SOURCES) -> list[Path]:
    """Object files of the engine, compiled side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = [folder / f"{source.stem}.o" for source in sources]
    commands = [
        [compiler, *language(compiler), *flags, "-c", str(source), "-o", str(made)]
        for source, made in zip(sources, objects, strict=True)
    ]
    running: list[subprocess.Popen[str]] = []
    for command in commands:
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        if len(running) > 1:
            finish(running.pop(0))
    for process in running:
        finish(process)
    return objects


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a compiler; its complaints are the test's."""
    _, complaints = process.communicate()
    assert process.returncode == 0, f"{' '.join(map(str, process.args))}\n{complaints}"  # pyright: ignore


def link(out: Path, compiler: str, source: Path, objects: list[Path], *flags: str) -> Path:
    """A program of one source file and the engine."""
    command = [
        compiler,
        *language(compiler),
        "-D_GNU_SOURCE",
        *flags,
        f"-I{ENGINE}",
        source,
        *objects,
        "-o",
        out,
        "-lm",
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def run(*command: object, **environment: str) -> str:
    """What a program prints; that it fails is a failure. The programs keep what they allocate, so leaks are none."""
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", **environment}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr[-4000:]}"
    return done.stdout
