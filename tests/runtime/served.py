"""`edgelstm-run … --mqtt` as a process, with what it says in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import until

COMMAND = [sys.executable, "-m", "edgelstm.runtime.cli"]


class Served:
    """A model that answers messages. Reads plant/+/in and answers on plant/…/out unless told otherwise."""

    def __init__(self, bundle: Path, url: str, *options: object, ready: bool = True, topics: bool = True) -> None:
        self._log = bundle.parent / f"served-{os.urandom(4).hex()}.log"
        where = ["--subscribe", "plant/+/in", "--publish", "plant/{1}/out"] if topics else []
        command = [*COMMAND, str(bundle), "--mqtt", url, *where, *map(str, options)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        if ready:
            until(lambda: "listening" in self.said or self.process.poll() is not None, "the service listens")
            assert "listening" in self.said, self.said

    @property
    def said(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> str:
        """Ask it to end; what it said."""
        self.process.send_signal(number)
        assert self.process.wait(20) == 0, self.said
        assert "Traceback" not in self.said
        return self.said

    def counts(self) -> dict[str, int]:
        """What it counted, said at its end."""
        words = self.said.splitlines()[-1].removeprefix("edgelstm: ").split(", ")
        return {name: int(number) for number, name in (word.split() for word in words)}


def refused(*arguments: object) -> str:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    return done.stderr
