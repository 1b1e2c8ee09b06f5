"""A stand-in board: a real sshd on loopback, with keys of its own and a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.toolchain import require
from tests.runtime.mosquitto import free_port
from tests.waiting import until


@dataclass(frozen=True)
class StandIn:
    """A board that answers to ssh.

    Attributes:
        host: what to call it; the options make ssh find it.
        options: of ssh, as `edgelstm` takes them.
        home: of the user there, as seen from here.
        folder: where its configuration lies.
        lingers: whether services may outlast the login.
    """

    host: str
    options: tuple[str, ...]
    home: Path
    folder: Path
    lingers: bool = False

    @property
    def arguments(self) -> list[str]:
        """Of `edgelstm deploy` and its like."""
        return [f"--ssh-option={option}" for option in self.options]

    def ssh(self, command: str, text: str = "") -> str:
        """What a command prints there."""
        ssh = ["ssh", *self.options, self.host, command]
        return subprocess.run(ssh, input=text, capture_output=True, text=True, check=True).stdout


@contextmanager
def local_board(
    folder: Path, path: Path | None = None, name: str = "board", disk_mb: int | None = None
) -> Generator[StandIn]:
    """This machine behind an sshd, with an empty home.

    Args:
        folder: for its configuration.
        path: a folder that comes first in PATH there, for stand-ins of commands.
        name: of the host.
        disk_mb: size of its home; takes root.
    """
    require("ssh", "ssh-keygen")
    require_sshd()
    home = folder / "home"
    home.mkdir(parents=True)
    if disk_mb is not None:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={disk_mb}m", "tmpfs", str(home)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("mounting takes root")
    make_keys(folder)
    port = free_port()
    searched = ":".join([*([str(path)] if path else []), os.environ["PATH"]])
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile {folder}/pid\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
        f"PermitRootLogin yes\nSetEnv HOME={home} PATH={searched}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")], stderr=(folder / "log").open("w")
    )
    try:
        with on_port(folder, port, home, name) as board:
            yield board
    finally:
        server.terminate()
        server.wait()
        if disk_mb is not None:
            subprocess.run(["umount", "--lazy", str(home)], check=True)


@contextmanager
def on_port(
    folder: Path, port: int, home: Path, name: str, lingers: bool = False, user: str = "root"
) -> Generator[StandIn]:
    """The client's side of a board whose sshd listens on a port: its host key is known, its user's key at hand."""
    host = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
    (folder / "ssh_config").write_text(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {folder}/user_key\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
    )
    options = (f"-F{folder}/ssh_config",)
    wait_for(["ssh", *options, name, "true"], folder)
    yield StandIn(name, options, home, folder, lingers)


def wait_for(command: Sequence[str], folder: Path, seconds: float = 60) -> None:
    """Until a command succeeds."""
    said = ""

    def succeeds() -> bool:
        nonlocal said
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stderr
        return done.returncode == 0

    try:
        until(succeeds, " ".join(command), seconds, pause=0.1)
    except AssertionError as error:
        log = (folder / "log").read_text() if (folder / "log").exists() else ""
        raise AssertionError(f"{error}\n{said}\n{log[-2000:]}") from error


def require_sshd() -> None:
    """Skip where there is none, as `require` does."""
    if not Path("/usr/sbin/sshd").exists():
        require("sshd")


def make_keys(folder: Path) -> None:
    """A host key, a user's key, and who may log in with that."""
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
