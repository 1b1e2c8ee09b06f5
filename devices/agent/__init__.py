"""What runs on the board: sent over SSH as text, it needs Python's standard library and nothing else.

Its commands take what came over the wire, as `messages.py` has it, and give what goes back. `model.py` says how a
model's folder is laid out, `storage.py` how anything there is changed, `switch.py` how another version becomes current.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from ...runtime.typed_json import from_json
from . import condition, lifecycle, storage, switch
from .errors import RefusedError
from .messages import (
    Activate,
    Discard,
    Done,
    Facts,
    Hold,
    Listing,
    Probe,
    Prune,
    Pruned,
    Receive,
    Received,
    Rollback,
    Status,
    Verify,
    Versions,
    plain,
)
from .model import Model, requires_signatures

__all__ = [
    "COMMANDS",
    "RefusedError",
    "activate",
    "discard",
    "hold",
    "probe",
    "prune",
    "receive",
    "rollback",
    "status",
    "verify",
    "versions",
]

# What a version may need besides the standard library: as wheels and as Python call it.
PACKAGES = {
    "numpy": "numpy",
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "onnxruntime": "onnxruntime",
    "paho-mqtt": "paho",
    "pyserial": "serial",
}


def _command(kind: type[Any], work: Callable[..., object], raw: Mapping[str, Any], *more: object) -> dict[str, Any]:
    try:
        request = from_json(kind, dict(raw), f"the request to {kind.command}")
    except ValueError as error:
        raise RefusedError(f"{error}; deploy again, with one EdgeLSTM on this side and that") from error
    return plain(work(request, *more))


def _probe(request: Probe) -> Facts:
    base = Path(os.path.expanduser(request.base))
    there = next(path for path in (base, *base.parents) if path.exists())
    return Facts(
        machine=platform.machine(),
        bits=64 if sys.maxsize > 2**32 else 32,
        python=sys.version_info[:3],
        libc=platform.libc_ver(),
        packages={name: _version(name, module) for name, module in PACKAGES.items()},
        systemctl=shutil.which("systemctl") is not None,
        requires_signatures=requires_signatures(),
        free=shutil.disk_usage(there).free,
        base=str(base),
        deployed=tuple(sorted(path.parent.name for path in base.parent.glob("*/current"))),
        uid=os.getuid(),
        system=platform.platform(),
    )


def _version(name: str, module: str) -> str | None:
    from importlib import metadata, util

    if util.find_spec(module) is None:
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _hold(request: Hold) -> Done:
    storage.hold(Path(request.base))
    return Done()


def _receive(request: Receive, stream: IO[bytes]) -> Received:
    with storage.locked(Path(request.base)):
        return Received(lifecycle.receive(request, stream))


def _verify(request: Verify) -> object:
    # Before anything of it is opened.
    model = Model(Path(request.base))
    model.check(request.id)
    model.signed(request.id, request.allow_older)
    return lifecycle.verify(request)


def _activate(request: Activate) -> object:
    with storage.locked(Path(request.base)):
        return switch.activate(request, request.id, request.allow_older)


def _rollback(request: Rollback) -> object:
    with storage.locked(Path(request.base)):
        return switch.rollback(request, request.id)


def _prune(request: Prune) -> Pruned:
    with storage.locked(Path(request.base)):
        return Pruned(lifecycle.prune(Model(Path(request.base)), request.keep))


def _discard(request: Discard) -> Done:
    with storage.locked(Path(request.base)):
        lifecycle.discard(Model(Path(request.base)), request.id)
        return Done()


def _versions(request: Versions) -> Listing:
    model, notes = Model(Path(request.base)), list[str]()
    for check in (model.history, model.switching):
        try:
            check()
        except RefusedError as error:
            notes.append(str(error))
    return Listing(lifecycle.versions(model), tuple(notes))


def receive(raw: Mapping[str, Any], stream: IO[bytes] | None = None) -> dict[str, Any]:
    """As `messages.Receive` has it; the tar comes on standard input, if not told otherwise."""
    return _command(Receive, _receive, raw, stream or sys.stdin.buffer)


probe = partial(_command, Probe, _probe)
hold = partial(_command, Hold, _hold)
verify = partial(_command, Verify, _verify)
activate = partial(_command, Activate, _activate)
rollback = partial(_command, Rollback, _rollback)
prune = partial(_command, Prune, _prune)
discard = partial(_command, Discard, _discard)
versions = partial(_command, Versions, _versions)
status = partial(_command, Status, condition.status)

COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "probe": probe,
    "hold": hold,
    "receive": receive,
    "verify": verify,
    "activate": activate,
    "rollback": rollback,
    "prune": prune,
    "discard": discard,
    "versions": versions,
    "status": status,
}
