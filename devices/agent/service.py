"""The board's systemd: which version's unit is installed, and what runs.

A unit starts a version by its folder, so that the unit and what it starts are never of two versions; which one a board
runs is decided by one rename, of the unit. Enabling and disabling is the link that systemd looks for at boot, made here
for the same reason: what `systemctl enable` writes need not have reached the disk when it returns.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from . import storage
from .messages import Place


def unit_file(place: Place) -> Path:
    """Where the unit is installed."""
    return _folder(place) / place.unit


def enabled(place: Place) -> bytes | None:
    """The unit that systemd starts at boot, if there is one."""
    wanted = _wanted(place)
    try:
        return unit_file(place).read_bytes() if wanted.is_symlink() else None
    except FileNotFoundError:
        return None


def install(place: Place, unit: bytes) -> None:
    """Have systemd start a unit at boot: from the last rename on, and the one before until then."""
    wanted = _wanted(place)
    storage.make(wanted.parent)
    if not wanted.is_symlink():
        storage.link(wanted, str(unit_file(place)))
    if not (unit_file(place).is_file() and unit_file(place).read_bytes() == unit):
        storage.write(unit_file(place), unit)


def disable(place: Place) -> None:
    """Have systemd start nothing at boot."""
    if _wanted(place).parent.is_dir():
        storage.remove(_wanted(place))


def stop(place: Place) -> str:
    """Stop the service; what is wrong, in words, or nothing."""
    if not unit_file(place).exists():
        return ""
    return systemctl(place, ["daemon-reload"]) or systemctl(place, ["stop", place.unit])


def restart(place: Place) -> str:
    """Have the service run what is installed; what is wrong, in words, or nothing."""
    if not place.system:
        _run(["loginctl", "enable-linger"])  # May not be allowed; the answer says whether it is so.
    # What was counted against an earlier version is not to keep this one from starting.
    systemctl(place, ["reset-failed", place.unit])
    if problem := systemctl(place, ["daemon-reload"]):
        return problem
    began = time.time()
    if problem := systemctl(place, ["restart", place.unit]):
        return f"the service does not start: {_journal(place, began) or problem}"
    for _ in range(place.settle):
        time.sleep(1)
        if systemctl(place, ["is-active", "--quiet", place.unit]):
            return f"the service does not stay up: {_journal(place, began) or 'the journal says nothing'}"
    return ""


def is_active(place: Place) -> bool:
    """Whether systemd holds it for active."""
    return not systemctl(place, ["is-active", "--quiet", place.unit])


def lingers() -> bool:
    """Whether the user's services run without a login."""
    import pwd

    return Path("/var/lib/systemd/linger", pwd.getpwuid(os.getuid()).pw_name).exists()


def _folder(place: Place) -> Path:
    return Path("/etc/systemd/system") if place.system else Path.home() / ".config/systemd/user"


def _wanted(place: Place) -> Path:
    target = "multi-user.target" if place.system else "default.target"
    return _folder(place) / f"{target}.wants" / place.unit


def systemctl(place: Place, command: list[str]) -> str:
    """What is wrong, in words, or nothing."""
    full = ["systemctl", *([] if place.system else ["--user"]), *command]
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    return _run(full, environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        # Longer than systemd gives a service to stop and to start.
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=240, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{' '.join(command)}` failed: {error}"
    if done.returncode == 0:
        return ""
    return f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip() or f'status {done.returncode}'}"


def _journal(place: Place, since: float) -> str:
    """The last of what the service itself said; nothing where this user may not read that."""
    full = ["journalctl", "-u" if place.system else "--user-unit", place.unit, "--quiet", "-n", "3"]
    full += ["-t", "start", "-o", "cat", f"--since=@{since:.3f}"]
    try:
        done = subprocess.run(full, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " / ".join(done.stdout.split("\n")).strip(" /")
