"""What runs on the board: a script of its own, sent over SSH, that needs Python's standard library and nothing else.

It is called with a command, and receives a JSON object and files on standard input. It prints one JSON object, with
"error" in it and status 1 where something could not be done. Nothing is changed by halves: a version arrives in a
folder of another name, and becomes current by one rename of a symbolic link.

    BASE/versions/ID/   bundle.edge, site/ (the runtime), start, deployment.json
    BASE/current        a link to one of them; BASE/history.json lists those that were current, the way back
    BASE/state/         what the service keeps; /var/lib/edgelstm/NAME for the whole system's
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

MEASURE = """
import json, sys, time, numpy
from edgelstm.runtime import load
model = load(sys.argv[1], sys.argv[2], sys.argv[3] or None)
stream, x = model.stream(), numpy.zeros(len(model.features), numpy.float32)
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


# What a version may need besides the standard library: as wheels and as Python call it.
PACKAGES = {
    "numpy": "numpy",
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "onnxruntime": "onnxruntime",
    "paho-mqtt": "paho",
    "pyserial": "serial",
}


class RefusedError(Exception):
    """What cannot be done, in words."""


def probe(argument: dict[str, Any]) -> dict[str, Any]:
    """What the board is."""
    base = Path(os.path.expanduser(argument["base"]))
    there = next(path for path in (base, *base.parents) if path.exists())
    signers = Path("/etc/edgelstm/allowed_signers")
    return {
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "system": platform.platform(),
        "python": list(sys.version_info[:3]),
        "libc": list(platform.libc_ver()),
        "packages": {name: _version(name, module) for name, module in PACKAGES.items()},
        "systemctl": shutil.which("systemctl") is not None,
        "lingers": _lingers(),
        "ssh_keygen": shutil.which("ssh-keygen") is not None,
        "requires_signatures": signers.exists(),
        "free": shutil.disk_usage(there).free,
        "base": str(base),
        "deployed": sorted(path.parent.name for path in base.parent.glob("*/current")),
        "uid": os.getuid(),
    }


def _lingers() -> bool:
    """Whether the user's services run without a login."""
    import pwd

    return Path("/var/lib/systemd/linger", pwd.getpwuid(os.getuid()).pw_name).exists()


def _version(name: str, module: str) -> str | None:
    from importlib import metadata, util

    if util.find_spec(module) is None:
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def receive(argument: dict[str, Any]) -> dict[str, Any]:
    """Take a version from a tar on standard input, check every file, and put it in its place."""
    versions = Path(argument["base"]) / "versions"
    try:
        versions.mkdir(parents=True, exist_ok=True)
        for left in versions.glob(".incoming-*"):
            shutil.rmtree(left, ignore_errors=True)
        incoming = versions / f".incoming-{argument['id']}"
        incoming.mkdir()
        try:
            with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
                for member in archive:
                    _take(archive, member, incoming)
            _check(incoming, argument["files"])
            for name, text in argument["texts"].items():
                (incoming / name).write_text(text, encoding="utf-8")
            (incoming / "start").chmod(0o755)
            os.sync()
            incoming.rename(versions / argument["id"])
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
    except (OSError, tarfile.TarError, EOFError) as error:
        raise RefusedError(f"the files did not arrive whole ({error})") from error
    return {"version": argument["id"]}


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
        file.flush()
        os.fsync(file.fileno())
    to.chmod(member.mode & 0o755)


def _check(folder: Path, files: dict[str, str]) -> None:
    arrived = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if missing := sorted(set(files) - arrived):
        raise RefusedError(f"{len(missing)} files did not arrive, {missing[0]} among them")
    for name, expected in files.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise RefusedError(f"{name} arrived changed")


def verify(argument: dict[str, Any]) -> dict[str, Any]:
    """Replay the golden vectors on what is to run, and measure a step of it."""
    version = Path(argument["base"]) / "versions" / argument["id"]
    bundle, backend, precision = version / "bundle.edge", argument["backend"], argument["precision"] or ""
    measured = _python(version, ["-c", MEASURE, str(bundle), backend, precision, str(argument["steps"])], "measured")
    chosen = ["--backend", measured["backend"], "--precision", measured["precision"]]
    checked = _python(version, ["-m", "edgelstm.runtime.cli", "verify", str(bundle), "--json", *chosen], "verified")
    (check,) = checked["checks"][:1]
    return {"step": measured, "parity": check}


def _python(version: Path, arguments: list[str], what: str) -> dict[str, Any]:
    # What lies in the folder from which it is called must not be imported.
    alone = {"PYTHONPATH": str(version / "site"), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **alone}, timeout=600
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"could not be {what}: no answer within ten minutes") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise RefusedError(f"could not be {what} on the board: {_failure(lines) or said[-1]}")
    return json.loads(lines[-1])


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


def activate(argument: dict[str, Any]) -> dict[str, Any]:
    """Make a version current, by one rename; restart the service; undo it all if that does not come up."""
    base = Path(argument["base"])
    version = base / "versions" / argument["id"]
    if not (version / "deployment.json").is_file():
        raise RefusedError(f"there is no version {argument['id']}")
    if not argument["system"]:
        Path(argument["state"]).mkdir(exist_ok=True)  # The system's unit makes its own.
    before, history = _target(base / "current"), _history(base)
    # First: whatever becomes current can be gone back from.
    _write_history(base, _with(history, argument["id"]))
    _link(base / "current", version)
    if problem := _serve(argument, version):
        _write_history(base, history)
        if before is None:
            (base / "current").unlink()
            _systemctl(argument, ["disable", "--now", argument["unit"]])
            raise RefusedError(f"{problem}; nothing runs now")
        _link(base / "current", before)
        again = _serve(argument, before)
        after = f"nor does the version before run: {again}" if again else "the version before runs again"
        raise RefusedError(f"{problem}; {after}")
    made = {"version": argument["id"], "before": before.name if before else None}
    return {**made, "service": _is_service(version), "lingers": argument["system"] or _lingers()}


def _is_service(version: Path) -> bool:
    deployment: dict[str, Any] = json.loads((version / "deployment.json").read_text(encoding="utf-8"))
    return bool(deployment["arguments"])


def _serve(argument: dict[str, Any], version: Path) -> str:
    """Have the service run a version, or not at all if that is none; what is wrong, in words, or nothing."""
    unit = argument["unit"]
    if _is_service(version):
        return _restart(argument, version)
    if _unit_file(argument).exists():
        return _systemctl(argument, ["disable", "--now", unit])
    return ""


def _target(link: Path) -> Path | None:
    return link.resolve() if link.is_symlink() and link.exists() else None


def _link(link: Path, to: Path) -> None:
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(to, link.parent))
    os.replace(new, link)


def _restart(argument: dict[str, Any], version: Path) -> str:
    """Install the version's unit and restart it; what is wrong, in words, or nothing."""
    unit, file = argument["unit"], _unit_file(argument)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(version / unit, file)
    except OSError as error:
        return f"the unit cannot be installed ({error})"
    if not argument["system"]:
        _run(["loginctl", "enable-linger"])  # May not be allowed; the answer says whether it is so.
    # What was counted against an earlier version is not to keep this one from starting.
    _systemctl(argument, ["reset-failed", unit])
    for command in (["daemon-reload"], ["enable", unit]):
        if problem := _systemctl(argument, command):
            return problem
    began = time.time()
    if problem := _systemctl(argument, ["restart", unit]):
        return f"the service does not start: {_journal(argument, began) or problem}"
    for _ in range(argument["settle"]):
        time.sleep(1)
        if _systemctl(argument, ["is-active", "--quiet", unit]):
            return f"the service does not stay up: {_journal(argument, began) or 'the journal says nothing'}"
    return ""


def _unit_file(argument: dict[str, Any]) -> Path:
    folder = Path("/etc/systemd/system") if argument["system"] else Path.home() / ".config/systemd/user"
    return folder / argument["unit"]


def _systemctl(argument: dict[str, Any], command: list[str]) -> str:
    """What is wrong, in words, or nothing."""
    full = ["systemctl", *([] if argument["system"] else ["--user"]), *command]
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    return _run(full, environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        # Longer than systemd gives a service to stop and to start.
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{' '.join(command)}` failed: {error}"
    if done.returncode == 0:
        return ""
    return f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip() or f'status {done.returncode}'}"


def _journal(argument: dict[str, Any], since: float) -> str:
    """The last of what the service itself said; nothing where this user may not read that."""
    full = ["journalctl", "-u" if argument["system"] else "--user-unit", argument["unit"], "--quiet", "-n", "3"]
    full += ["-t", "start", "-o", "cat", f"--since=@{since:.3f}"]
    try:
        done = subprocess.run(full, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " / ".join(done.stdout.split("\n")).strip(" /")


def _with(history: list[str], version: str) -> list[str]:
    """What was made current, the latest last: the way back. Going back takes from it what is left."""
    return history[: history.index(version) + 1] if version in history else [*history, version]


def _write_history(base: Path, entries: list[str]) -> None:
    new = base / ".history.new"
    new.write_text(json.dumps(entries), encoding="utf-8")
    os.replace(new, base / "history.json")


def _history(base: Path) -> list[str]:
    try:
        entries: list[str] = json.loads((base / "history.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = []
    return [entry for entry in entries if (base / "versions" / entry).is_dir()]


def rollback(argument: dict[str, Any]) -> dict[str, Any]:
    """Make the version before current again, or the one that is named; it was verified here when it came."""
    base = Path(argument["base"])
    if argument.get("id"):
        return activate(argument)
    before = _before(base)
    if before is None:
        raise RefusedError("there is no version before to go back to; --list shows those that --to can name")
    return activate({**argument, "id": before})


def _before(base: Path) -> str | None:
    current, history = _target(base / "current"), _history(base)
    if current is not None and current.name in history:
        history = history[: history.index(current.name)]
    return history[-1] if history else None


def versions(argument: dict[str, Any]) -> dict[str, Any]:
    """All versions, the newest last."""
    base = Path(argument["base"])
    current, found = _target(base / "current"), []
    for path in sorted((base / "versions").glob("[!.]*")):
        try:
            deployment = json.loads((path / "deployment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        found.append({"id": path.name, "current": path == current, "bytes": size, **deployment})
    return {"versions": found}


def prune(argument: dict[str, Any]) -> dict[str, Any]:
    """Remove the oldest versions, never the current one nor the one to go back to."""
    base = Path(argument["base"])
    current = _target(base / "current")
    kept = {name for name in (current and current.name, _before(base)) if name}
    all_ = sorted(path.name for path in (base / "versions").glob("[!.]*"))
    for name in list(reversed(all_)):
        if len(kept) < argument["keep"]:
            kept.add(name)
    removed = [name for name in all_ if name not in kept]
    for name in removed:
        shutil.rmtree(base / "versions" / name, ignore_errors=True)
    return {"removed": removed}


def discard(argument: dict[str, Any]) -> dict[str, Any]:
    """Remove a version that is not to run."""
    base = Path(argument["base"])
    version = base / "versions" / argument["id"]
    if _target(base / "current") != version.resolve():
        shutil.rmtree(version, ignore_errors=True)
    return {}


def status(argument: dict[str, Any]) -> dict[str, Any]:
    """What runs, whether it computes here what Keras computed, and what the service says of itself."""
    base = Path(argument["base"])
    current = _target(base / "current")
    if current is None:
        raise RefusedError("nothing is deployed here")
    deployment = json.loads((current / "deployment.json").read_text(encoding="utf-8"))
    report = _report(argument)
    active = not _systemctl(argument, ["is-active", "--quiet", argument["unit"]])
    chosen = {"backend": deployment["backend"], "precision": deployment["precision"], "steps": 200}
    checked = verify({**argument, **chosen, "id": current.name})
    return {
        "version": current.name,
        "active": active,
        "running": active and _lives(report),
        "lingers": argument["system"] or _lingers(),
        "now": time.time(),
        **deployment,
        "report": report,
        **checked,
    }


def _lives(report: dict[str, Any] | None) -> bool:
    """Whether a report is of a process that still writes it, every five seconds."""
    return report is not None and Path(f"/proc/{report['pid']}").exists() and time.time() - report["written"] < 60


def _report(argument: dict[str, Any]) -> dict[str, Any] | None:
    run = Path("/run" if argument["system"] else f"/run/user/{os.getuid()}")
    folder = run / "edgelstm" / Path(argument["base"]).name
    try:
        text = ((folder if folder.exists() else Path(argument["state"])) / "report.json").read_text(encoding="utf-8")
        report: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        return None
    return report if {"pid", "written", "up", "steps", "step_us"} <= set(report) else None


COMMANDS = {f.__name__: f for f in (probe, receive, verify, activate, rollback, versions, prune, discard, status)}


def main() -> int:
    """Run a command and print what came of it. Its argument comes on standard input, in front of any files."""
    name, size = sys.argv[1], int(sys.argv[2])
    argument = json.loads(sys.stdin.buffer.read(size))
    try:
        print(json.dumps(COMMANDS[name](argument)))
    except RefusedError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    except OSError as error:
        print(json.dumps({"error": f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
