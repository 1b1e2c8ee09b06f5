"""The systemd unit that keeps a deployed model running, and the script that it starts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

WATCHDOG_SECONDS = 30
MEMORY_MB = 256


def start_script(backend: str, precision: str | None, arguments: Sequence[str], report: bool) -> str:
    """A shell script that runs the version that it lies in; its state and report lie beside the versions.

    Args:
        backend: of the runtime.
        precision: of the artifact, or None.
        arguments: further ones of `edgelstm-run`; `{state}` in them is the folder for what is kept.
        report: whether it keeps a report for `edgelstm status`.
    """
    words = ["--backend", backend, *(["--precision", precision] if precision else [])]
    fixed = " ".join(shlex.quote(word) for word in words)
    given = " ".join(map(_quoted, arguments))
    kept = ' --report "$state/report.json"' if report else ""
    return f"""#!/bin/sh
# Written by `edgelstm deploy`, which replaces it; a change here is lost.
here=$(dirname "$(readlink -f "$0")")
state=${{STATE_DIRECTORY:-$here/../../state}}
export PYTHONPATH="$here/site" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
exec python3 -m edgelstm.runtime.cli run "$here/bundle.edge" {fixed}{kept} {given} "$@"
"""


def _quoted(argument: str) -> str:
    """For the shell: in single quotes but for {state}, which is the shell's to fill in."""
    return '"$state"'.join(shlex.quote(part) if part else "" for part in argument.split("{state}"))


def unit(name: str, base: str, system: bool, memory_mb: int = MEMORY_MB, devices: Sequence[str] = ()) -> str:
    """A unit file.

    Args:
        name: of the model.
        base: its folder on the board, absolute.
        system: whether it is the system's unit, with a user of its own, or the user's.
        memory_mb: that it may take before it is restarted.
        devices: that it may open, such as `/dev/ttyUSB0`.
    """
    allowed = "".join(f"DeviceAllow={device} rw\n" for device in devices)
    group = "SupplementaryGroups=dialout\n" if devices and system else ""
    own = f"DynamicUser=yes\nStateDirectory=edgelstm/{name}\n{group}" if system else f"ReadWritePaths={base}/state\n"
    wanted = "multi-user.target" if system else "default.target"
    home = "ProtectHome=yes\n" if system else ""
    return f"""# Written by `edgelstm deploy`, which replaces it.
[Unit]
Description=EdgeLSTM: {name}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={base}/current/start
Restart=on-failure
RestartSec=2
# SIGTERM ends it between two timesteps, with its state saved.
TimeoutStopSec=30
WatchdogSec={WATCHDOG_SECONDS}
MemoryMax={memory_mb}M
{own}{home}NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
{allowed}
[Install]
WantedBy={wanted}
"""
