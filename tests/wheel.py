"""Builds the project's wheel in a folder of its own: neither other tests nor earlier builds have a part in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOURCES = ("devices", "export", "runtime", "toolkit", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def build_wheel(to: Path, compiler: str = "cc") -> Path:
    """A wheel for this machine, made with this compiler."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _SOURCES:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
                shutil.copytree(source, Path(folder) / name, ignore=ignored)
            else:
                shutil.copy(source, folder)
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(to),
        ]
        done = subprocess.run([*command, folder], capture_output=True, text=True, env={**os.environ, "CC": compiler})
    assert done.returncode == 0, done.stderr
    (wheel,) = to.glob("edgelstm-*.whl")
    return wheel
