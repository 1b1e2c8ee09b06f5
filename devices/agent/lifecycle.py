"""How versions come to a board, are proved there, and go."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

from ...runtime.sealed import seal
from ...runtime.typed_json import from_json
from . import storage
from .errors import RefusedError
from .messages import Listed, Receive, Step, Verified, Verify
from .model import SUMS, Model, digest
from .switch import before

_MEASURE = """
import json, sys, time, numpy
from edgelstm.runtime import load
model = load(sys.argv[1], sys.argv[2], sys.argv[3] or None)
stream, x = model.stream(), numpy.zeros(len(model.features), numpy.float32)
for _ in range(model.window or 0):
    stream.step(x)
times = []
for _ in range(int(sys.argv[4])):
    begin = time.perf_counter()
    stream.step(x)
    times.append(time.perf_counter() - begin)
times.sort()
p50, p99 = (round(times[int(len(times) * share)] * 1e6, 2) for share in (0.5, 0.99))
chosen = {"backend": model.backend, "precision": model.precision, "format": model.format}
print(json.dumps({**chosen, "p50": p50, "p99": p99}))
"""


def receive(request: Receive, stream: IO[bytes]) -> str:
    """Take a version from a tar, check every file, and put it in its place."""
    model = Model(Path(request.base))
    version = model.version(request.id)
    if version.exists():
        raise RefusedError(f"there is a version {request.id} already; deploy again, under a name of its own")
    if bad := [name for name in request.texts if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", name)]:
        raise RefusedError(f"{bad[0]!r} is no file of a version")
    try:
        storage.make(model.versions)
        for pattern in (".incoming-*", ".removed-*"):
            for left in model.versions.glob(pattern):  # Of a cut; nobody else is here.
                shutil.rmtree(left, ignore_errors=True)
        incoming = model.versions / f".incoming-{request.id}"
        incoming.mkdir()
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    _take(archive, member, incoming)
            _compare(incoming, request.files)
            for name, text in request.texts.items():
                (incoming / name).write_text(text, encoding="utf-8")
            (incoming / "start").chmod(0o755)
            files = sorted(path for path in incoming.rglob("*") if path.is_file())
            arrived = max((model.arrived(other) for other in model.ids()), default=0) + 1
            sums = {str(path.relative_to(incoming)): digest(path) for path in files}
            (incoming / SUMS).write_bytes(seal({"arrived": arrived, "files": sums}))
            os.sync()  # A thousand small files: one by one they would take minutes on a card.
            storage.move(incoming, version)
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
    except (OSError, tarfile.TarError, EOFError) as error:
        raise RefusedError(f"the files did not arrive whole ({error})") from error
    return request.id


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """One file, and only inside the folder: whatever else a tar can hold is refused."""
    to = folder / member.name
    if not member.isfile() or not to.resolve().is_relative_to(folder.resolve()):
        raise RefusedError(f"{member.name!r} is no file of a version")
    source = archive.extractfile(member)
    assert source is not None
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("wb") as file:
        shutil.copyfileobj(source, file)
    to.chmod(member.mode & 0o755)


def _compare(folder: Path, files: dict[str, str]) -> None:
    arrived = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if missing := sorted(set(files) - arrived):
        raise RefusedError(f"{len(missing)} files did not arrive, {missing[0]} among them")
    for name, expected in files.items():
        if digest(folder / name) != expected:
            raise RefusedError(f"{name} arrived changed")


def verify(request: Verify) -> Verified:
    """Replay the golden vectors on what is to run, and measure a step of it."""
    model = Model(Path(request.base))
    version = model.version(request.id)
    bundle, precision = version / "bundle.edge", request.precision or ""
    arguments = ["-c", _MEASURE, str(bundle), request.backend, precision, str(request.steps)]
    try:
        step = from_json(Step, _python(version, arguments, "measured"), "its answer")
    except ValueError as error:
        raise RefusedError(f"could not be measured on the board: {error}") from error
    chosen = ["--backend", step.backend, *(["--precision", step.precision] if step.precision else [])]
    checked = _python(version, ["-m", "edgelstm.runtime.cli", "verify", str(bundle), "--json", *chosen], "verified")
    checks: Any = checked.get("checks")
    if not isinstance(checks, list) or not checks or not isinstance(checks[0], dict):
        raise RefusedError("could not be verified on the board: it named no check")
    return Verified(step, checks[0])


def _python(version: Path, arguments: list[str], what: str) -> dict[str, Any]:
    # What lies in the folder from which it is called must not be imported.
    alone = {"PYTHONPATH": str(version / "site"), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command, environment = [sys.executable, *arguments], {**os.environ, **alone}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=600, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"could not be {what}: no answer within ten minutes") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0:
        ended = f"status {done.returncode}"
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name if -done.returncode in set(signal.Signals) else ended
            raise RefusedError(
                f"could not be {what} on the board: what runs it died of it ({name}); the file is damaged or hostile, "
                "or that library does not run on this processor"
            )
        said = (done.stderr.strip() or done.stdout.strip() or ended).splitlines()
        raise RefusedError(f"could not be {what} on the board: {_failure(lines) or said[-1]}")
    try:
        answer: Any = json.loads(lines[-1])
        if not isinstance(answer, dict):
            raise ValueError(answer)
    except (IndexError, ValueError, RecursionError) as error:
        raise RefusedError(f"could not be {what} on the board: it gave no answer") from error
    return answer


def _failure(lines: list[str]) -> str:
    """What `verify --json` says of a check that failed."""
    try:
        checks = json.loads(lines[-1])["checks"]
    except (IndexError, ValueError, KeyError, TypeError):
        return ""
    failed = [check for check in checks if not check.get("passed", True)]
    if not failed:
        return ""
    snr = (failed[0].get("parity") or {}).get("snr_db")
    found = failed[0].get("problem") or f"{snr} dB against Keras, where {failed[0].get('min_snr_db')} dB is the least"
    return f"{failed[0].get('artifact')} on {failed[0].get('backend')}: {found}"


def versions(model: Model) -> tuple[Listed, ...]:
    """All versions, the newest last."""
    found: list[Listed] = []
    current = model.current
    for id_ in model.ids():
        size = sum(file.stat().st_size for file in model.version(id_).rglob("*") if file.is_file())
        try:
            model.check(id_)
            found.append(Listed(id_, id_ == current, size, model.deployed(id_)))
        except RefusedError as error:
            found.append(Listed(id_, id_ == current, size, None, str(error)))
    return tuple(found)


def prune(model: Model, keep: int) -> tuple[str, ...]:
    """Remove the oldest versions, but never the current one, the one to go back to, nor what arrived since."""
    ids, current = model.ids(), model.current
    try:
        kept = {id_ for id_ in (current, before(model)) if id_}
    except RefusedError:
        return ()  # Which one to go back to cannot be told.
    at = model.arrived(current) if current else -1
    kept |= {id_ for id_ in ids if model.arrived(id_) > at}
    for id_ in reversed(ids):
        if len(kept) < keep:
            kept.add(id_)
    removed = [id_ for id_ in ids if id_ not in kept]
    for id_ in removed:
        storage.remove_folder(model.version(id_))
    return tuple(removed)


def discard(model: Model, id_: str) -> None:
    """Remove a version that is not to run."""
    if model.current != id_:
        storage.remove_folder(model.version(id_))
