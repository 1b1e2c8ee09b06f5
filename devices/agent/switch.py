"""From one version to another, so that a power cut at any point leaves one of them, and the board says which.

First `switching.json` says from which to which; then come the link to the version, the link that has systemd start the
service, and the unit; that last rename decides. Whoever finds `switching.json` finishes the way, or goes back, by what
the board runs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from . import service, storage
from .errors import RefusedError
from .messages import Activated, Place
from .model import Model, Switching


def activate(place: Place, id_: str, allow_older: bool = False, again: bool = False) -> Activated:
    """Make a version current; restart the service; undo it all if that does not come up.

    Args:
        place: the model.
        id_: the version.
        allow_older: also where a later bundle was accepted before.
        again: it was current before and is gone back to, so its counter is not asked for.
    """
    model = Model(Path(place.base))
    notes = recover(place)
    model.check(id_)
    if model.deployed(id_).arguments:
        _unit(place, model, id_)
    accept = None if again else model.signed(id_, allow_older)
    before = model.current
    try:
        history = model.history()
    except RefusedError as error:
        aside = storage.set_aside(model.base / "history.json")
        history = [before] if before else []
        notes = (*notes, f"{error}; it lies in {aside.name} now, and the way back begins anew")
    if not place.system:
        storage.make(Path(place.state))  # The system's unit makes its own.
    switching = Switching(before, id_, tuple(history), accept)
    model.write_switching(switching)
    try:
        problem = _forward(place, model, switching)
    except OSError as error:
        problem = f"{error.filename or model.base}: {error.strerror}"
    if problem:
        after = _back(place, model, switching)
        raise RefusedError(f"{problem}; {after}")
    is_service = bool(model.deployed(id_).arguments)
    return Activated(id_, before, is_service, place.system or service.lingers(), notes)


def recover(place: Place) -> tuple[str, ...]:
    """Finish what was cut off, if anything was; what came of it, in words."""
    model = Model(Path(place.base))
    try:
        switching = model.switching()
    except RefusedError as error:
        aside = storage.set_aside(model.base / "switching.json")
        return (f"{error}; it lies in {aside.name} now",)
    if switching is None:
        return ()
    if _arrived(place, model, switching):
        problem = _forward(place, model, switching)
        words = f"; {problem}" if problem else ""
        return (f"the way to {switching.to} was cut off behind the switch: {switching.to} is current{words}",)
    after = _back(place, model, switching)
    return (f"the way to {switching.to} was cut off before the switch: {after}",)


def _arrived(place: Place, model: Model, switching: Switching) -> bool:
    """Whether the board already runs, or would from its next start on, what was to become current."""
    runs = service.enabled(place)
    try:
        model.check(switching.to)
        if model.deployed(switching.to).arguments:
            return runs is not None and runs == _unit(place, model, switching.to)
    except RefusedError:
        return False
    return runs is None and model.current == switching.to


def _forward(place: Place, model: Model, switching: Switching) -> str:
    to, history = switching.to, list(switching.history)
    # What was made current, the latest last. Going back takes from it what is left.
    model.write_history(history[: history.index(to) + 1] if to in history else [*history, to])
    storage.link(model.link, os.path.relpath(model.version(to), model.base))
    if model.deployed(to).arguments:
        service.install(place, _unit(place, model, to))
        problem = service.restart(place)
    else:
        service.disable(place)
        problem = service.stop(place)
    if not problem:
        if switching.accept is not None:
            model.accept(switching.accept)
        model.finish_switching()
    return problem


def _back(place: Place, model: Model, switching: Switching) -> str:
    """What runs now, in words. The unit comes first here: it is what decides."""
    before = switching.before
    try:
        runs = before is not None and bool(model.deployed(before).arguments)
    except RefusedError as error:
        model.finish_switching()
        return f"nor can the version before run: {error}"
    if runs:
        assert before is not None
        service.install(place, _unit(place, model, before))
    else:
        service.disable(place)
    if before is None:
        storage.remove(model.link)
    else:
        storage.link(model.link, os.path.relpath(model.version(before), model.base))
    model.write_history(list(switching.history))
    problem = service.restart(place) if runs else service.stop(place)
    model.finish_switching()
    if problem:
        return f"nor does the version before run: {problem}"
    if before is None:
        return "nothing runs now"
    return "the version before runs again" if runs else f"{before} is current"


def _unit(place: Place, model: Model, id_: str) -> bytes:
    try:
        return (model.version(id_) / place.unit).read_bytes()
    except OSError as error:
        raise RefusedError(f"version {id_} has no unit {place.unit} ({error.strerror}); deploy it again") from error


def rollback(place: Place, id_: str | None) -> Activated:
    """Make the version before current again, or the one that is named; it was verified here when it came."""
    notes = recover(place)
    if id_ is None:
        id_ = before(Model(Path(place.base)))
        if id_ is None:
            raise RefusedError("there is no version before to go back to; --list shows those that --to can name")
    activated = activate(place, id_, again=True)
    return replace(activated, notes=(*notes, *activated.notes))


def before(model: Model) -> str | None:
    """The version to go back to.

    Raises:
        RefusedError: the history is damaged.
    """
    try:
        current, history = model.current, model.history()
    except RefusedError as error:
        raise RefusedError(f"{error}; name one of --list with --to") from error
    if current is not None and current in history:
        history = history[: history.index(current)]
    return history[-1] if history else None
