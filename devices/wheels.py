"""Wheels for boards, all built on one x86-64 machine: `python -m edgelstm.devices.wheels dist`.

A wheel is what any build makes of the Python files, and the extension module compiled by Debian's cross compiler with
the headers of the processor that it is for: Python's of Debian 12 and NumPy's of Debian 13, since what is compiled with
NumPy 2 runs with NumPy 1 too and not the other way round. The same sources and compilers give the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .userland import ARCHITECTURES, userland

ROOT = Path(__file__).parents[1]
EXTENSION = "edgelstm/runtime/_native.abi3.so"


@dataclass(frozen=True)
class Target:
    """What a wheel is for.

    Attributes:
        machine: as its tag calls the processor.
        architecture: Debian's name of the userland that has its headers.
        compiling: flags that the compiler needs beside those of setup.py.
        linking: flags that the linker needs.
    """

    machine: str
    architecture: str
    compiling: tuple[str, ...] = ()
    linking: tuple[str, ...] = ()

    @property
    def compiler(self) -> str:
        """Debian's cross compiler, which on the machine of its own kind is the compiler."""
        return f"{ARCHITECTURES[self.architecture].triplet}-gcc"


# Debian's armhf is for ARMv7, and so is what its compiler adds to a library by itself: start files, and functions of
# libgcc. The library for ARMv6 goes without the first and calls the second in the board's own libgcc_s.
_ARMV6 = ("-march=armv6+fp", "-mfloat-abi=hard", "-marm")
_NOTHING_ADDED = ("-nostartfiles", "-nodefaultlibs", "-lc", "-lgcc_s")
TARGETS = {
    target.machine: target
    for target in (
        Target("x86_64", "amd64"),
        Target("aarch64", "arm64"),
        Target("armv7l", "armhf"),
        Target("armv6l", "armhf", _ARMV6, _NOTHING_ADDED),
    )
}


def compile_objects(target: Target, folder: Path) -> list[Path]:
    """The extension's object files, as setup.py says how.

    Raises:
        RuntimeError: the compiler is missing or complained.
    """
    extension = _extension()
    python = userland(target.architecture).root / "usr" / "include"
    # NumPy 2 has the same headers for Debian's two 32-bit ARM architectures, of which trixie has one whole.
    numpy = userland(target.architecture.replace("armel", "armhf"), suite="trixie").root
    command = [target.compiler, *extension.extra_compile_args, "-fPIC", *target.compiling]
    command += [f"-D{name}={value}" for name, value in extension.define_macros]
    # Before Python's, where Debian 12 has NumPy 1's too; Debian's pyconfig.h includes another by its architecture.
    command += [f"-I{numpy}/usr/lib/python3/dist-packages/numpy/_core/include"]
    command += [f"-I{python}/python3.11", f"-idirafter{python}"]
    folder.mkdir(parents=True, exist_ok=True)
    objects = {source: folder / f"{Path(source).stem}.o" for source in extension.sources}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda made: _run(*command, "-c", made[0], "-o", made[1]), objects.items()))
    return list(objects.values())


def link(target: Target, objects: Sequence[Path], extension: Path) -> None:
    """The extension module of its object files; beside it a `.map` that lists what else is in it.

    Raises:
        RuntimeError: the linker is missing or complained.
    """
    libraries = [f"-l{name}" for name in _extension().libraries]
    options = ["-shared", "-s", "-Wl,--no-undefined-version", f"-Wl,-Map={extension.with_suffix('.map')}"]
    _run(target.compiler, *options, *objects, *libraries, *target.linking, "-o", extension)


def platform_tag(target: Target, extension: Path) -> str:
    """The platform that a wheel with this extension module is for, by the newest symbol that it needs of glibc.

    There is no manylinux for ARMv6; its tag promises the processor only.
    """
    needed = _run("readelf", "--version-info", "--wide", extension)
    minor = max(int(version) for version in re.findall(r"Name: GLIBC_2\.(\d+)", needed))
    # The oldest that the tags know is 2.17.
    return "linux_armv6l" if target.machine == "armv6l" else f"manylinux_2_{max(minor, 17)}_{target.machine}"


def pure_part(folder: Path) -> dict[str, bytes]:
    """What every wheel holds but for the extension module: as built on a machine without a compiler.

    Args:
        folder: an empty one to build in, since setuptools takes in what it finds of earlier builds.

    Raises:
        RuntimeError: the build failed.
    """
    source = folder / "source"
    leave = shutil.ignore_patterns("__pycache__", "*.so")
    for room in ("devices", "export", "runtime", "toolkit"):
        shutil.copytree(ROOT / room, source / room, ignore=leave)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    _run(*pip, "--wheel-dir", folder, source, environment={"CC": "false"})
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def pack(pure: Mapping[str, bytes], extension: bytes, tag: str, out: Path) -> Path:
    """Write a wheel into `out`: the pure part, the extension module, its tag, and a true list of its files."""
    (record,) = (name for name in pure if name.endswith(".dist-info/RECORD"))
    folder = record.rpartition("/")[0]
    tag = f"cp311-abi3-{tag}"
    about = re.sub(r"^Tag: .*\n", "", pure[f"{folder}/WHEEL"].decode(), flags=re.MULTILINE).rstrip("\n")
    content = {**pure, EXTENSION: extension, f"{folder}/WHEEL": f"{about}\nTag: {tag}\n".encode()}
    del content[record]
    # The folder of metadata lies last, as the wheel's specification recommends.
    names = sorted(content, key=lambda name: (name.startswith(folder), name))
    hashes = {name: base64.urlsafe_b64encode(hashlib.sha256(content[name]).digest()) for name in names}
    rows = [f"{name},sha256={hashes[name].decode().rstrip('=')},{len(content[name])}\n" for name in names]
    content[record] = "".join([*rows, f"{record},,\n"]).encode()
    out.mkdir(parents=True, exist_ok=True)
    wheel = out / f"{folder.removesuffix('.dist-info')}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in (*names, record):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if name == EXTENSION else 0o100644) << 16
            archive.writestr(info, content[name])
    return wheel


def build(target: Target, pure: Mapping[str, bytes], out: Path, folder: Path) -> Path:
    """A wheel for a target, in `out`; the extension module, its objects and its map are left in `folder`."""
    extension = folder / Path(EXTENSION).name
    link(target, compile_objects(target, folder), extension)
    return pack(pure, extension.read_bytes(), platform_tag(target, extension), out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build them, and say what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m edgelstm.devices.wheels", description="Build the wheels for boards."
    )
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "dist", help="where to (default: dist)")
    parser.add_argument("--machine", choices=TARGETS, action="append", help="only for this one; may be repeated")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pure = pure_part(folder)
        for machine in given.machine or TARGETS:
            start = time.monotonic()
            wheel = build(TARGETS[machine], pure, given.out, folder / machine)
            print(f"{wheel}  {wheel.stat().st_size:,} bytes  {time.monotonic() - start:.1f} s", flush=True)


def _extension() -> Any:
    """The extension module as setup.py describes it; its paths are relative to the root."""
    with contextlib.chdir(ROOT):
        return runpy.run_path(str(ROOT / "setup.py"))["extensions"][0]


def _run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **(environment or {})}
        )
    except FileNotFoundError as error:
        raise RuntimeError(f"{words[0]} is missing; .ci/system-packages installs it on Debian") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
