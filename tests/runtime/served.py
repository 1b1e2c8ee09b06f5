"""`edgelstm-run … --mqtt` as a process, with what it says in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.runtime.command_line import COMMAND
from tests.waiting import until

# The same, looking for idle streams all the time, and saying of each that it has left memory.
OBSERVED = """
import sys
from edgelstm.runtime.cli import main
from edgelstm.runtime.mqtt import service, store

class Observed(store.StreamStore):
    def _evict(self, topic):
        super()._evict(topic)
        print(topic, "has left", file=sys.stderr, flush=True)

store.StreamStore = Observed
service._HOUSEKEEPING = 0.05
sys.exit(main(sys.argv[1:]))
"""


class Served:
    """A model that answers messages. Reads plant/+/in and answers on plant/…/out unless told otherwise."""

    def __init__(
        self, bundle: Path, url: str, *options: object, ready: bool = True, topics: bool = True, observed: bool = False
    ) -> None:
        self._log = bundle.parent / f"served-{os.urandom(4).hex()}.log"
        where = ["--subscribe", "plant/+/in", "--publish", "plant/{1}/out"] if topics else []
        command = [sys.executable, "-c", OBSERVED] if observed else COMMAND
        command = [*command, str(bundle), "--mqtt", url, *where, *map(str, options)]
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
