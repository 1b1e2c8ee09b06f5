"""The systemd unit that keeps a deployed model running, and the script that it starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise

WATCHDOG_SECONDS = 30
MEMORY_MB = 256
# By the shortest that argparse takes for each.
_SECRETS = {"--credentials": "--cr", "--client-key": "--client-k"}
# What follows is a name on a broker, whatever it looks like.
_NAMES = ("--mqtt", "--publish", "--subscribe", "--errors", "--status", "--client-id", "--sequence", "--payload")


def start_script(backend: str, precision: str | None, arguments: Sequence[str], report: bool) -> str:
    """A shell script that runs the version that it lies in; its state lies beside the versions.

    Args:
        backend: of the runtime.
        precision: of the artifact, or None.
        arguments: further ones of `edgelstm-run`; `{state}` in them is the folder for what is kept, `{credentials}`
            the one in which systemd puts secrets.
        report: whether it keeps a report for `edgelstm status`: in memory, where systemd offers that, for it is
            written every few seconds, and a card that is slow to write would keep the watchdog waiting.
    """
    words = ["--backend", backend, *(["--precision", precision] if precision else [])]
    fixed = " ".join(shlex.quote(word) for word in words)
    given = " ".join(map(_quoted, arguments))
    kept = ' --report "${RUNTIME_DIRECTORY:-$state}/report.json"' if report else ""
    return f"""#!/bin/sh
# Written by `edgelstm deploy`, which replaces it; a change here is lost.
here=$(dirname "$(readlink -f "$0")")
state=${{STATE_DIRECTORY:-$here/../../state}}
export PYTHONPATH="$here/site" PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
exec python3 -m edgelstm.runtime.cli run "$here/bundle.edge" {fixed}{kept} {given} "$@"
"""


def _quoted(argument: str) -> str:
    """For the shell: in single quotes but for the folders, which are the shell's to fill in."""
    variables = {"{state}": '"$state"', "{credentials}": '"$CREDENTIALS_DIRECTORY"'}
    parts = re.split("({state}|{credentials})", argument)
    return "".join(variables.get(part) or shlex.quote(part) for part in parts if part) or "''"


def with_credentials(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments with secrets as systemd hands them to a service whose user may not read the files themselves.

    Returns:
        The arguments, and the files by the names that systemd gives them.
    """
    words = [word for argument in arguments for word in _split(argument)]
    secrets: dict[str, str] = {}
    for i, (option, path) in enumerate(pairwise(words)):
        if full := _secret(option):
            name = full.removeprefix("--")
            secrets[name], words[i + 1] = path, f"{{credentials}}/{name}"
    return words, secrets


def _split(argument: str) -> list[str]:
    option, equals, value = argument.partition("=")
    return [option, value] if equals and _secret(option) else [argument]


def _secret(option: str) -> str | None:
    return next((f for f, short in _SECRETS.items() if f.startswith(option) and option.startswith(short)), None)


def devices_in(arguments: Sequence[str]) -> list[str]:
    """The device files among arguments, also where they stand behind an option's equals sign."""
    found: list[str] = []
    before = ""
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
        named = len(option) > 2 and any(name.startswith(option) for name in _NAMES)
        if equals and value.startswith("/dev/") and not named:
            found.append(value)
        before = argument if argument.startswith("--") and not equals else ""
    return found


def unfit(text: str) -> bool:
    """Whether a path cannot be written into a unit: systemd ends lines at some characters, and trims others."""
    return bool(re.search(r"[\x00-\x1f\x7f]", text)) or text != text.strip() or text.endswith("\\")


def _word(text: str) -> str:
    """For a setting of systemd that takes words: %% is a percent sign, and quotes keep blanks."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[A-Za-z0-9/_.,:@%+-]+", text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", text) + '"'


def _line(text: str) -> str:
    """For one that takes the rest of the line as it is."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text.replace("%", "%%"))


def unit(
    name: str,
    base: str,
    system: bool,
    memory_mb: int = MEMORY_MB,
    devices: Sequence[str] = (),
    secrets: Mapping[str, str] | None = None,
    version: str | None = None,
) -> str:
    """A unit file. Whatever stands in a path stays in that path.

    Args:
        name: of the model.
        base: its folder on the board, absolute.
        system: whether it is the system's unit, with a user of its own, or the user's.
        memory_mb: that it may take before it is restarted.
        devices: that it may open, such as `/dev/ttyUSB0`.
        secrets: files that systemd reads for it, by their names in `$CREDENTIALS_DIRECTORY`.
        version: that it starts; by default the current one.
    """
    loaded = "".join(f"LoadCredential={key}:{_line(path)}\n" for key, path in (secrets or {}).items())
    allowed = "".join(f"DeviceAllow={_word(device)} rw\n" for device in devices)
    group = "SupplementaryGroups=dialout\n" if devices and system else ""
    own = (
        f"DynamicUser=yes\nStateDirectory=edgelstm/{name}\n{group}"
        if system
        else f"ReadWritePaths={_word(f'{base}/state')}\n"
    )
    wanted = "multi-user.target" if system else "default.target"
    folder = f"{base}/versions/{version}" if version else f"{base}/current"
    # The path is an argument of the shell: systemd takes quotes and backslashes in no program's name, and $ is its own.
    start = _word(f"{folder}/start").replace("$", "$$")
    # A user's manager may mount nothing outside of a user namespace: without one, Debian 12's ignores whatever is to
    # protect files, and says nothing.
    protected = "ProtectHome=yes\n" if system else "PrivateUsers=yes\n"
    return f"""# Written by `edgelstm deploy`, which replaces it.
[Unit]
Description=EdgeLSTM: {name}
After=network-online.target
Wants=network-online.target
# A port that is not plugged in yet, a broker that is not up, a clock that is not set: all of that passes.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=/bin/sh {start}
SyslogIdentifier=start
# On a failure, and where an input ends, until the next one begins.
Restart=always
RestartSec=5
# SIGTERM ends it between two timesteps, with its state saved.
TimeoutStopSec=30
WatchdogSec={WATCHDOG_SECONDS}
MemoryMax={memory_mb}M
RuntimeDirectory=edgelstm/{name}
RuntimeDirectoryPreserve=yes
{own}{protected}NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
{allowed}{loaded}
[Install]
WantedBy={wanted}
"""
