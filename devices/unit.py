"""The systemd unit that keeps a deployed model running, and the script that it starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise

WATCHDOG_SECONDS = 30
MEMORY_MB = 256
_SECRETS = ("--credentials", "--client-key")


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
        if option in _SECRETS:
            name = option.removeprefix("--")
            secrets[name], words[i + 1] = path, f"{{credentials}}/{name}"
    return words, secrets


def _split(argument: str) -> list[str]:
    option, equals, value = argument.partition("=")
    return [option, value] if equals and option in _SECRETS else [argument]


def unit(
    name: str,
    base: str,
    system: bool,
    memory_mb: int = MEMORY_MB,
    devices: Sequence[str] = (),
    secrets: Mapping[str, str] | None = None,
) -> str:
    """A unit file.

    Args:
        name: of the model.
        base: its folder on the board, absolute.
        system: whether it is the system's unit, with a user of its own, or the user's.
        memory_mb: that it may take before it is restarted.
        devices: that it may open, such as `/dev/ttyUSB0`.
        secrets: files that systemd reads for it, by their names in `$CREDENTIALS_DIRECTORY`.
    """
    loaded = "".join(f"LoadCredential={name}:{path}\n" for name, path in (secrets or {}).items())
    allowed = "".join(f"DeviceAllow={device} rw\n" for device in devices)
    group = "SupplementaryGroups=dialout\n" if devices and system else ""
    own = f"DynamicUser=yes\nStateDirectory=edgelstm/{name}\n{group}" if system else f"ReadWritePaths={base}/state\n"
    wanted = "multi-user.target" if system else "default.target"
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
ExecStart={base}/current/start
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
