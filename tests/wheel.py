"""Builds the project's wheel or sdist in a folder of its own: no other test or earlier build has a part in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.once import once

ROOT = Path(__file__).parents[1]
_SOURCES = ("devices", "export", "runtime", "toolkit", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def build_wheel(to: Path, compiler: str = "cc") -> Path:
    """A wheel for this machine, made with this compiler."""
    arguments = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(to), ".")
    _run_in_copy(*arguments, CC=compiler)
    (wheel,) = to.glob("edgelstm-*.whl")
    return wheel


def own_wheel(factory: pytest.TempPathFactory) -> Path:
    """The wheel for this machine, which all tests share."""
    (wheel,) = once(factory, "wheel", build_wheel).glob("edgelstm-*.whl")
    return wheel


def build_sdist(to: Path) -> Path:
    """An sdist, as a build frontend has it made."""
    _run_in_copy("-c", f"from setuptools import build_meta; build_meta.build_sdist({str(to)!r})")
    (sdist,) = to.glob("edgelstm-*.tar.gz")
    return sdist


def _run_in_copy(*arguments: str, **environment: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in _SOURCES:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
                shutil.copytree(source, Path(folder) / name, ignore=ignored)
            else:
                shutil.copy(source, folder)
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
        )
    assert done.returncode == 0, done.stderr
