"""How a deployed model does: what it computes here, and what its service says of itself."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from ...runtime.sealed import unseal
from ...runtime.typed_json import from_json
from . import service, storage, switch
from .errors import RefusedError
from .lifecycle import verify
from .messages import Condition, Place, Report, Verify
from .model import Model

_MAX_REPORT_BYTES = 64 * 2**10
_FRESH_SECONDS = 60  # A report is written every five.


def status(place: Place) -> Condition:
    """What runs, whether it computes here what Keras computed, and what the service says of itself."""
    model, notes, damaged = Model(Path(place.base)), (), list[str]()
    with storage.locked(model.base, wait=False) as alone:
        notes = switch.recover(place) if alone else ("somebody deploys to this board now",)
    current = model.current
    if current is None:
        raise RefusedError("nothing is deployed here" + "".join(f"; {note}" for note in notes))
    for check in (lambda: model.check(current), model.history, model.accepted):
        try:
            check()
        except RefusedError as error:
            damaged.append(str(error))
    deployed = model.deployed(current)
    report = None
    try:
        report = read_report(place)
    except RefusedError as error:
        damaged.append(str(error))
    active = service.is_active(place)
    told = {"base": place.base, "system": place.system, "unit": place.unit, "state": place.state}
    checked = verify(Verify(**told, id=current, backend=deployed.backend, precision=deployed.precision, steps=200))
    return Condition(
        version=current,
        active=active,
        running=active and report is not None and _lives(report),
        lingers=place.system or service.lingers(),
        now=time.time(),
        deployed=deployed,
        report=report,
        step=checked.step,
        parity=checked.parity,
        damaged=tuple(damaged),
        notes=notes,
    )


def _lives(report: Report) -> bool:
    """Whether a report is of a process that still writes it."""
    return Path(f"/proc/{report.pid}").exists() and time.time() - report.written < _FRESH_SECONDS


def read_report(place: Place) -> Report | None:
    """What the service says of itself, if it has said anything.

    The folder is the service's own user's, who may put there what it likes, and whoever asks may be root: what is no
    file is not waited for, and no more is read than a report can have.

    Raises:
        RefusedError: that is no report.
    """
    run = Path("/run" if place.system else f"/run/user/{os.getuid()}")
    folder = run / "edgelstm" / Path(place.base).name
    path = (folder if folder.exists() else Path(place.state)) / "report.json"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror})") from error
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise RefusedError(f"{path}: is no file, so it is not the service's report")
        text = file.read(_MAX_REPORT_BYTES + 1)
    if len(text) > _MAX_REPORT_BYTES:
        raise RefusedError(f"{path}: is longer than a report")
    try:
        return from_json(Report, unseal(text), "it")
    except ValueError as error:
        raise RefusedError(f"{path} is damaged, or of another EdgeLSTM: {error}") from error
