"""Boards of all kinds, and what is said of them: this machine behind a real sshd, and emulated ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.devices.emulated import emulated_board
from tests.devices.stand_in import StandIn, local_board
from tests.toolkit.conftest import Done, call

EMULATED = {"arm64": "cortex-a72", "armhf": "cortex-a7"}
DIST = Path(__file__).parents[2] / "dist"


def on(*kinds: str) -> pytest.MarkDecorator:
    """The kinds of board that a test runs on, where one emulated processor shows all that there is to see."""
    marked = [pytest.param(kind, marks=pytest.mark.devices) if kind in EMULATED else kind for kind in kinds]
    return pytest.mark.parametrize("kind", marked, indirect=True)


@contextmanager
def started(kind: str, folder: Path, name: str = "board", disk_mb: int | None = None) -> Generator[StandIn]:
    """A board of a kind."""
    if kind != "here":
        with emulated_board(folder, kind, EMULATED[kind], name=name, disk_mb=disk_mb) as running:
            yield running
        return
    commands = folder / "commands"
    commands.mkdir(parents=True)
    stand_in = commands / "systemctl"
    shutil.copy(Path(__file__).parent / "systemctl.py", stand_in)
    stand_in.chmod(0o755)
    # No link: through one, Python would not find the packages of this environment.
    (commands / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (commands / "python3").chmod(0o755)
    with local_board(folder, commands, name, disk_mb) as running:
        yield running
        subprocess.run([stand_in, "stop", "edgelstm-pump.service"], env={**os.environ, "HOME": str(running.home)})


def base(board: StandIn) -> Path:
    return board.home / ".local/share/edgelstm/pump"


def current(board: StandIn) -> str | None:
    link = base(board) / "current"
    return link.resolve().name if link.exists() else None


def deploy(board: StandIn, bundle: Path, wheels: Path, *arguments: object) -> Done:
    return call("deploy", bundle, board.host, *board.arguments, "--wheels", wheels, *arguments)


def status(board: StandIn) -> list[dict[str, Any]]:
    """What `edgelstm status` says of each model there."""
    (result,) = json.loads(call("status", board.host, *board.arguments, "--json").out)["boards"]
    return result["models"]


def fetch(wheels: Path, *arguments: str) -> None:
    """As the remedies of deploy say."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), *arguments]
    subprocess.run(pip, check=True)
