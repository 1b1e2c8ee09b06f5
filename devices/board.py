"""A board, reached through the system's OpenSSH client: keys, agent, configuration and known hosts are the user's own.

No password is handled and no host key is waved through: `BatchMode` makes ssh fail where it would ask.
"""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from ..runtime.errors import EdgeLSTMError

# What ssh says when it could not connect, rather than the command on the other side.
_SSH_FAILED = 255


class BoardError(EdgeLSTMError):
    """A board could not be reached, or refused what was asked of it; nothing that ran there was changed."""


@dataclass(frozen=True)
class Facts:
    """What a board says of itself.

    Attributes:
        machine: as `uname -m` has it.
        bits: of its userland's pointers.
        python: version.
        libc: name and version.
        packages: that are installed for that Python, with their versions; None for those that are not.
        systemctl: whether it has systemd's.
        requires_signatures: whether `/etc/edgelstm/allowed_signers` is there.
        free: bytes, where versions are kept.
        base: the folder of this model there, absolute.
        deployed: names of the models that are deployed beside it.
        uid: of the user.
        system: in words.
    """

    machine: str
    bits: int
    python: tuple[int, int, int]
    libc: tuple[str, str]
    packages: Mapping[str, str | None]
    systemctl: bool
    requires_signatures: bool
    free: int
    base: str
    deployed: tuple[str, ...]
    uid: int
    system: str

    @property
    def platform(self) -> str:
        """What wheels call it: the userland counts, not the kernel."""
        narrow = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
        return narrow.get(self.machine, self.machine) if self.bits == 32 else self.machine


class Board:
    """A connection to a board; used as a context. Not for several threads at once."""

    def __init__(self, host: str, ssh_options: Sequence[str] = ()) -> None:
        """For `user@host`, or a name in `~/.ssh/config`.

        Args:
            host: where to.
            ssh_options: further arguments of `ssh`.
        """
        self.host = host
        self._options = list(ssh_options)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Board:
        """Find ssh, and make room for a connection that all commands share."""
        if shutil.which("ssh") is None:
            raise BoardError("ssh is not installed; it is in Debian's package openssh-client")
        if self.host.startswith("-"):
            raise BoardError(f"{self.host}: no host's name")
        self._folder = tempfile.TemporaryDirectory(prefix="edgelstm-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        if self._folder is not None:
            subprocess.run([*self._ssh(), "-O", "exit", self.host], capture_output=True)
            self._folder.cleanup()

    def call(self, command: str, argument: Mapping[str, Any], payload: Path | None = None) -> dict[str, Any]:
        """Have the agent do something, with a file on its standard input.

        Raises:
            BoardError: the connection failed, or the board refused.
        """
        agent = (files("edgelstm.devices") / "agent.py").read_bytes()
        # The script comes first on standard input, then its argument, which is too long for a command line, and the
        # payload.
        load = f"import sys; exec(compile(sys.stdin.buffer.read({len(agent)}), 'agent.py', 'exec'))"
        told = json.dumps(argument).encode()
        remote = shlex.join(["python3", "-c", load, command, str(len(told))])
        process = subprocess.Popen(
            [*self._ssh(), self.host, remote], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stdin = cast("IO[bytes]", process.stdin)
        feeder = threading.Thread(target=_feed, args=(stdin, agent + told, payload), daemon=True)
        feeder.start()
        stdout, stderr = cast("IO[bytes]", process.stdout).read(), cast("IO[bytes]", process.stderr).read()
        process.wait()
        feeder.join()
        return self._answer(
            command, process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace")
        )

    def probe(self, base: str) -> Facts:
        """What the board is.

        Args:
            base: the folder of the model there; `~` is the user's home.
        """
        raw = self.call("probe", {"base": base})
        facts = {key: raw[key] for key in Facts.__annotations__}
        lists = ("python", "libc", "deployed")
        return Facts(**{**facts, **{name: tuple(raw[name]) for name in lists}})

    def _answer(self, command: str, status: int, stdout: str, stderr: str) -> dict[str, Any]:
        said = " ".join(stderr.split())
        lines = stdout.strip().splitlines()
        if status == _SSH_FAILED and not lines:
            raise BoardError(f"{self.host}: cannot be reached, or the connection broke: {said or 'ssh gave up'}")
        try:
            answer: Any = json.loads(lines[-1])
            if not isinstance(answer, dict):
                raise ValueError(lines[-1])
        except (IndexError, ValueError) as error:
            if "python3" in said and "not found" in said:
                raise BoardError(f"{self.host}: has no python3; install it there") from error
            raise BoardError(f"{self.host}: {command} gave no answer: {said or stdout.strip() or status}") from error
        given = cast("dict[str, Any]", answer)
        if "error" in given:
            raise BoardError(f"{self.host}: {given['error']}")
        return given

    def _ssh(self) -> list[str]:
        assert self._folder is not None, "used outside of its context"
        shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self._folder.name}/c", "-o", "ControlPersist=60"]
        # A board that is switched off in the middle is to be noticed in a minute, not in an hour.
        alive = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        return ["ssh", *alive, *shared, *self._options]


def _feed(stdin: IO[bytes], first: bytes, payload: Path | None) -> None:
    try:
        stdin.write(first)
        if payload is not None:
            with payload.open("rb") as file:
                shutil.copyfileobj(file, stdin)
        stdin.close()
    except OSError:
        return  # The other side has gone; what it said, or ssh, tells why.


def pack(content: Mapping[str, bytes | Path], to: Path) -> None:
    """A tar of files by their names in a version, reproducible."""
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, source in sorted(content.items()):
            data = source.read_bytes() if isinstance(source, Path) else source
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
