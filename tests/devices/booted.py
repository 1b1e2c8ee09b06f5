"""A stand-in board on which the real systemd runs: Debian as on a Raspberry Pi, for this processor, in a container.

It takes root, and leaves nothing: the userland lies below an overlay, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from edgelstm.devices.userland import userland

from tests.devices.stand_in import StandIn, free_port, make_keys, on_port, wait_for
from tests.engine.toolchain import require
from tests.runtime.mosquitto import until

# Raspberry Pi OS has all of these.
PACKAGES = (
    "dbus",
    "dbus-user-session",
    "libgomp1",
    "libpam-systemd",
    "openssh-server",
    "polkitd",
    "python3",
    "python3-numpy",
    "systemd",
    "systemd-sysv",
)
_START = """set -e
mount -t overlay overlay -o 'lowerdir={root},upperdir={folder}/upper,workdir={folder}/work' '{folder}/merged'
chroot '{folder}/merged' useradd --create-home --uid 1000 --shell /bin/sh --groups dialout,adm pi
chown 1000:1000 '{folder}/home'
until systemd-nspawn --quiet --register=no --keep-unit --boot --console=pipe --directory='{folder}/merged' \\
    --bind='{folder}/home:/home/pi'
[ $? != 133 ] # A reboot.
do :; done
"""


@dataclass(frozen=True)
class Booted:
    """A board with an ordinary user and root.

    Attributes:
        pi: the board as the user `pi` sees it, who may use serial ports and read the journal.
        root: the same as root.
    """

    pi: StandIn
    root: StandIn

    def command(self, *words: str) -> None:
        """To systemd, which may end the connection."""
        subprocess.run(["ssh", *self.root.options, self.root.host, "systemctl", *words], capture_output=True)

    def reboot(self) -> None:
        """As by a command; returns when it is up again."""
        before = self._start()
        self.command("reboot")
        until(lambda: self._start() != before, "it reboots", 120)

    def _start(self) -> str:
        """When it started, as soon as it can say so."""
        wait_for(["ssh", *self.root.options, self.root.host, "true"], self.root.folder)
        return self.root.ssh("systemctl show --property=UserspaceTimestampMonotonic")


@contextmanager
def booted_board(folder: Path, suite: str) -> Generator[Booted]:
    """A board behind an sshd, as of the day on which it was set up.

    Args:
        folder: for what it writes.
        suite: Debian's release.
    """
    require("mmdebstrap", "systemd-nspawn", "ssh", "ssh-keygen")
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        pytest.skip("booting takes root, on the processor that the userland is for")
    there = userland("amd64", PACKAGES, suite, installed=True)
    for part in ("home", "upper/etc/ssh/sshd_config.d", "upper/etc/systemd/system/user@.service.d", "work", "merged"):
        (folder / part).mkdir(parents=True)
    make_keys(folder)
    port = free_port()
    for key in ("host_key", "authorized_keys"):
        shutil.copy(folder / key, folder / "upper/etc/ssh" / key)
    (folder / "upper/etc/ssh/sshd_config.d/board.conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host_key\nStrictModes no\n"
        "AuthorizedKeysFile /etc/ssh/authorized_keys\nPasswordAuthentication no\n"
    )
    # In a container, Debian 13's manager of a user now and then stays when all that it ran has ended; systemd waits for
    # it for two minutes at a reboot.
    (folder / "upper/etc/systemd/system/user@.service.d/board.conf").write_text("[Service]\nTimeoutStopSec=5\n")
    with (folder / "log").open("wb") as log:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += ["sh", "-c", _START.format(root=there.root, folder=folder)]
        # Control groups of the second version, as on a board.
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        until(lambda: process.poll() is not None or _listens(port), "the board answers", 60)
        if process.poll() is not None:
            pytest.skip(f"this machine boots no container: {(folder / 'log').read_text()[-1000:]}")
        with on_port(folder, port, folder / "home", "board", lingers=True, user="pi") as board:
            booted = Booted(board, replace(board, options=(*board.options, "-lroot")))
            yield booted
            booted.command("poweroff")
            process.wait(60)
    finally:
        process.kill()  # And with it the first process of the namespace, and all others there.
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
