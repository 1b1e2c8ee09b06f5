"""A board, reached through the system's OpenSSH client: keys, agent, configuration and known hosts are the user's own.

No password is handled and no host key is waved through: `BatchMode` makes ssh fail where it would ask. One connection
serves all requests; the agent's modules go over it first, as text.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar, cast

from ..runtime.errors import EdgeLSTMError
from ..runtime.typed_json import from_json
from .agent.messages import Facts, Probe, Request, plain

A = TypeVar("A")

# What ssh says when it could not connect, rather than the command on the other side.
_SSH_FAILED = 255
_CLOSE_SECONDS = 5
# What runs on the board, each behind those that it imports.
_MODULES = (
    "runtime.sealed",
    "runtime.typed_json",
    "devices.agent.errors",
    "devices.agent.messages",
    "devices.agent.storage",
    "devices.agent.model",
    "devices.agent.service",
    "devices.agent.switch",
    "devices.agent.lifecycle",
    "devices.agent.condition",
    "devices.agent",
    "devices.agent.session",
)
_BEGIN = """
import json, sys, types
if sys.version_info < (3, 11):
    said = "has Python %d.%d; EdgeLSTM needs 3.11 or later" % sys.version_info[:2]
    print(json.dumps({"error": said}), flush=True)
    sys.exit()
for name, source in json.loads(sources):
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        module = sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        if i < len(parts) or name.endswith(".agent"):
            module.__path__ = []
    module.__package__ = name if name.endswith(".agent") else name.rpartition(".")[0]
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["edgelstm.devices.agent.session"].main()
"""


class BoardError(EdgeLSTMError):
    """A board could not be reached, or refused what was asked of it; nothing that ran there was changed."""


class Board:
    """A connection to a board; used as a context. Not for several threads at once."""

    def __init__(
        self, host: str, ssh_options: Sequence[str] = (), progress: Callable[[str], None] = lambda text: None
    ) -> None:
        """For `user@host`, or a name in `~/.ssh/config`.

        Args:
            host: where to.
            ssh_options: further arguments of `ssh`.
            progress: called with what the board says before it answers.
        """
        self.host = host
        self._options = list(ssh_options)
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None
        self._said: list[bytes] = []

    def __enter__(self) -> Board:
        """Find ssh.

        Raises:
            BoardError: it is not installed, or the host's name cannot be one.
        """
        if shutil.which("ssh") is None:
            raise BoardError("ssh is not installed; it is in Debian's package openssh-client")
        _check_host(self.host)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._close()

    def call(self, request: Request[A], payload: Path | None = None) -> A:
        """Have the agent do something, with a file behind the request.

        Raises:
            BoardError: the connection failed, or the board refused.
        """
        process = self._connected()
        size = 0 if payload is None else payload.stat().st_size
        told = {"command": request.command, "argument": plain(request), "size": size}
        feeder = threading.Thread(
            target=_feed, args=(process.stdin, (json.dumps(told) + "\n").encode(), payload), daemon=True
        )
        feeder.start()
        noise: list[str] = []  # What a shell's startup files print, say.
        while line := cast("IO[bytes]", process.stdout).readline():
            text = line.decode(errors="replace")
            try:
                message: Any = json.loads(text)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict) or not message.keys() & {"progress", "error", "answer"}:
                noise = [*noise[-20:], text]
                continue
            given = cast("dict[str, Any]", message)
            if "progress" in given:
                self._progress(str(given["progress"]))
            elif "error" in given:
                if payload is not None:
                    self._close()  # The files on their way belong to no request any more.
                raise BoardError(f"{self.host}: {given['error']}")
            else:
                feeder.join()
                return self._read(request, given["answer"])
        raise self._broken(request.command, noise)

    def probe(self, base: str) -> Facts:
        """What the board is.

        Args:
            base: the folder of the model there; `~` is the user's home.
        """
        return self.call(Probe(base=base))

    def _read(self, request: Request[A], raw: object) -> A:
        try:
            return cast("A", from_json(request.answer, raw, f"the answer to {request.command}"))
        except ValueError as error:
            raise BoardError(f"{self.host}: {error}, which is none that this EdgeLSTM knows") from error

    def _connected(self) -> subprocess.Popen[bytes]:
        """The agent's process, on a connection of its own if the one before has ended."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._close()
        modules = [(f"edgelstm.{name}", _source(name)) for name in _MODULES]
        script = f"sources = {json.dumps(modules)!r}\n{_BEGIN}".encode()
        load = f"import sys; exec(compile(sys.stdin.buffer.read({len(script)}), 'agent', 'exec'))"
        remote = shlex.join(["python3", "-c", load])
        # A board that is switched off in the middle is to be noticed in a minute, not in an hour.
        alive = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        command = ["ssh", *alive, *self._options, "--", self.host, remote]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=-1
        )
        self._process, self._said = process, []
        self._errors = threading.Thread(target=_keep, args=(process.stderr, self._said), daemon=True)
        self._errors.start()
        _feed(process.stdin, script, None)
        return process

    def _broken(self, command: str, noise: Sequence[str]) -> BoardError:
        """What to say where there was no answer."""
        process = self._process
        assert process is not None
        self._close()
        said = " ".join(b"".join(self._said).decode(errors="replace").split())
        if process.returncode == _SSH_FAILED:
            return BoardError(f"{self.host}: cannot be reached, or the connection broke: {said or 'ssh gave up'}")
        if "python3" in said and "not found" in said:
            return BoardError(f"{self.host}: has no python3; install it there")
        words = said or " ".join("".join(noise).split()) or process.returncode
        return BoardError(f"{self.host}: {command} gave no answer: {words}")

    def _close(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        with suppress(OSError):  # It has gone already.
            cast("IO[bytes]", process.stdin).close()
        try:
            process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        self._errors.join()
        cast("IO[bytes]", process.stdout).close()


def _check_host(host: str) -> None:
    """What OpenSSH 9.6 refuses too: a name that is an option, or that a shell would take apart."""
    name = host.rpartition("@")[2]
    if (
        not name
        or host.startswith("-")
        or name.startswith("-")
        or re.search(r"[\s'`\"$\\;&<>|(){}\x00-\x1f\x7f]", host)
    ):
        raise BoardError(f"{host!r}: no host's name; give user@host, or a name in ~/.ssh/config")


def _source(name: str) -> str:
    package, _, module = f"edgelstm.{name}".rpartition(".")
    if name.endswith(".agent"):
        return (files(f"edgelstm.{name}") / "__init__.py").read_text(encoding="utf-8")
    return (files(package) / f"{module}.py").read_text(encoding="utf-8")


def _feed(stdin: IO[bytes] | None, first: bytes, payload: Path | None) -> None:
    assert stdin is not None
    try:
        stdin.write(first)
        if payload is not None:
            with payload.open("rb") as file:
                shutil.copyfileobj(file, stdin)
        stdin.flush()
    except (OSError, ValueError):
        return  # The other side has gone; what it said, or ssh, tells why.


def _keep(stderr: IO[bytes], said: list[bytes]) -> None:
    with stderr:
        said.extend(stderr)


def pack(content: Mapping[str, bytes | Path], to: Path) -> None:
    """A tar of files by their names in a version, reproducible."""
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, source in sorted(content.items()):
            data = source.read_bytes() if isinstance(source, Path) else source
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
