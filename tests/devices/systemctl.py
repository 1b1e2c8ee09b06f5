#!/usr/bin/env python3
"""A stand-in for `systemctl --user` where no systemd runs: starts a unit's ExecStart as systemd would, with a socket to
be notified on, keeps a log of what the service says, and stops it with SIGTERM.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["HOME"])
UNITS = HOME / ".config/systemd/user"
RUNNING = HOME / ".running"
# Seconds between two looks.
PAUSE = 0.05


def restart(unit: str) -> int:
    stop(unit)
    supervisor = subprocess.Popen(
        [sys.executable, __file__, "supervise", unit],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (RUNNING / f"{unit}.pid").write_text(str(supervisor.pid))
    for _ in range(1200):  # Until it is ready, or has ended.
        if "READY=1" in log(unit):
            return 0
        if supervisor.poll() is not None:
            break
        time.sleep(PAUSE)
    print(f"Job for {unit} failed.", file=sys.stderr)
    return 1


def stop(unit: str) -> int:
    file = RUNNING / f"{unit}.pid"
    RUNNING.mkdir(exist_ok=True)
    if file.exists():
        try:
            os.kill(int(file.read_text()), signal.SIGTERM)
            while "ENDED" not in log(unit):
                time.sleep(PAUSE)
        except ProcessLookupError:
            pass
        file.unlink()
    (RUNNING / f"{unit}.log").unlink(missing_ok=True)
    return 0


def log(unit: str) -> str:
    file = RUNNING / f"{unit}.log"
    return file.read_text() if file.exists() else ""


def is_active(unit: str) -> int:
    return 0 if log(unit) and "ENDED" not in log(unit) else 3


def supervise(unit: str) -> int:
    text = (UNITS / unit).read_text()
    command = next(line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart="))
    # In the abstract namespace: a path of a test's folder is too long for a socket.
    address = f"@{unit}-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, (RUNNING / f"{unit}.log").open("a") as said:
        notified.bind("\0" + address[1:])
        notified.settimeout(PAUSE)
        environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
        with (RUNNING / f"{unit}.journal").open("a") as journal:
            service = subprocess.Popen(
                shlex.split(command), env=environment, stdin=subprocess.DEVNULL, stdout=journal, stderr=journal
            )
        signal.signal(signal.SIGTERM, lambda *_: service.terminate())
        while True:
            try:
                print(notified.recv(4096).decode(), file=said, flush=True)
            except TimeoutError:
                if service.poll() is not None:
                    break
        print(f"ENDED {service.returncode}", file=said, flush=True)
    return 0


def main() -> int:
    command, *rest = [argument for argument in sys.argv[1:] if argument not in ("--user", "--quiet")]
    if command == "disable" and rest[0] == "--now":
        command, rest = "stop", rest[1:]
    known = {"restart": restart, "stop": stop, "is-active": is_active, "supervise": supervise}
    return known[command](*rest) if command in known else 0


if __name__ == "__main__":
    sys.exit(main())
