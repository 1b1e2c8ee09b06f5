"""The board's end of a connection: one process for all requests of a deployment, which holds the lock meanwhile.

A request is a line of JSON, the files behind it are as long as it says; an answer is a line of JSON too. When the other
end goes, this process goes, and the lock with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any

from . import COMMANDS, storage
from .errors import RefusedError

# Whoever is silent for so long in the middle of a deployment has lost its connection.
_PATIENCE_SECONDS = 300
# What can be left at any moment, and need not be finished when nobody is there any more to hear of it.
_LEFT = ("hold", "verify")


class _Silence(Exception):  # noqa: N818
    """Nothing came for too long."""


class _Files:
    """The files behind a request."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream = stream
        self.left = left

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        size = self.left if size < 0 else min(size, self.left)
        data = _patiently(lambda: self._stream.read(size)) if size else b""
        if len(data) < size:
            raise EOFError("the connection broke")
        self.left -= len(data)
        return data


def main() -> None:
    """Answer until there is no further request."""
    stream: IO[bytes] = sys.stdin.buffer
    busy: list[str] = [""]
    storage.tell.append(lambda text: _say({"progress": text}))
    signal.signal(signal.SIGALRM, _silence)
    threading.Thread(target=_watch, args=(busy,), daemon=True).start()
    with suppress(_Silence):
        while line := _patiently(stream.readline):
            request = json.loads(line)
            files = _Files(stream, request["size"])
            busy[0] = request["command"]
            _say(_answer(request, files))
            busy[0] = ""
            if files.left:
                return  # What is left of them belongs to no request.


def _answer(request: dict[str, Any], files: _Files) -> dict[str, Any]:
    name = request["command"]
    try:
        if name not in COMMANDS:
            raise RefusedError(f"{name!r} is nothing that a board can be asked for")
        more = (files,) if name == "receive" else ()
        answer = COMMANDS[name](request["argument"], *more)
        if files.left and name == "receive":
            files.read()  # A tar ends before its padding does.
        return {"answer": answer}
    except RefusedError as error:
        return {"error": str(error)}
    except _Silence:
        return {"error": f"nothing came for {_PATIENCE_SECONDS} seconds"}
    except OSError as error:
        return {"error": f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")}
    except Exception as error:
        return {"error": f"{name} failed on the board ({type(error).__name__}: {error})"}


def _say(message: dict[str, Any]) -> None:
    with suppress(OSError):  # Who has gone hears nothing; what was begun is finished.
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def _patiently(work: Any) -> bytes:
    signal.alarm(_PATIENCE_SECONDS)
    try:
        return work()
    finally:
        signal.alarm(0)


def _silence(*_: object) -> None:
    raise _Silence


def _watch(busy: list[str]) -> None:
    """End when the other side has gone, rather than when it is next spoken to."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    while not poll.poll() or busy[0] not in _LEFT:
        time.sleep(1)
    os._exit(1)
