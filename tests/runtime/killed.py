"""A child process that does something and is killed in front of one of the calls that it makes for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

CHANGES = {
    *("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.unlink"),
    *("shutil.rmtree", "shutil.copyfile", "sqlite3.connect"),
}


def killed_at(number: int, write: Callable[[], object]) -> bool:
    """Whether a child was killed with SIGKILL in front of the call of that number, counted from 0; else it ended."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def hook(event: str, _arguments: object) -> None:
            if event in CHANGES:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        with suppress(BaseException):
            sys.addaudithook(hook)
            write()
            os._exit(0)
        os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0
