"""The heartbeat of a service: tells systemd that it lives, and whoever asks what it has done.

Under systemd (`Type=notify`, `WatchdogSec=`) the environment names a socket and a deadline; a thread answers in time,
unless the work itself is stuck. With a report file, the same thread keeps a few figures in it as JSON.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .durable import replacing
from .errors import InputError
from .sealed import seal

REPORT_SECONDS = 5.0
_KEPT = 2048


class Heartbeat:
    """Used as a context: ready when entered, stopping when left.

    Args:
        report: file for the figures, or None.
        facts: what else it says, such as the backend.
        environment: where systemd says what it wants.
    """

    def __init__(
        self,
        report: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._report = report
        self._facts = dict(facts or {})
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
        if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            self._watchdog = 0.0
        self._started = time.monotonic()
        self._since: float | None = None
        self._steps = 0
        self._recent: deque[float] = deque(maxlen=_KEPT)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Heartbeat:
        """Say that it is ready, and begin to answer.

        Raises:
            InputError: the report cannot be written.
        """
        try:
            self._write()
        except OSError as error:
            raise InputError(f"{self._report}: the report cannot be written ({error.strerror})") from error
        self._notify("READY=1")
        if self._address or self._report is not None:
            self._thread = threading.Thread(target=self._answer, name="edgelstm-heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that it stops."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        self._notify("STOPPING=1")
        with suppress(OSError):
            self._write()

    @contextmanager
    def step(self) -> Generator[None]:
        """Around the work of one timestep: while it is in it for too long, the watchdog gets no answer."""
        self._since = begin = time.perf_counter()
        try:
            yield
        finally:
            self._recent.append(time.perf_counter() - begin)
            self._since = None
        self._steps += 1

    def figures(self) -> dict[str, Any]:
        """What the report says: times in seconds but for steps, which are in microseconds; counts since the start."""
        recent = sorted(self._recent.copy())

        def percentile(share: float) -> float | None:
            return round(recent[min(int(share * len(recent)), len(recent) - 1)] * 1e6, 2) if recent else None

        return {
            **self._facts,
            "pid": os.getpid(),
            "written": round(time.time(), 3),
            # By a clock that nobody sets: a board without one of its own learns the time some while after its start.
            "up": round(time.monotonic() - self._started, 3),
            "steps": self._steps,
            "step_us": {"p50": percentile(0.5), "p99": percentile(0.99)},
        }

    def _answer(self) -> None:
        pause = min(self._watchdog / 3 if self._watchdog else REPORT_SECONDS, REPORT_SECONDS)
        written = time.monotonic()
        while not self._end.wait(pause):
            since = self._since
            stuck = since is not None and time.perf_counter() - since > (self._watchdog or 1e9) / 2
            if self._watchdog and not stuck:
                self._notify(f"WATCHDOG=1\nSTATUS={self._steps} timesteps since the start")
            if time.monotonic() - written >= REPORT_SECONDS:
                try:
                    self._write()
                except OSError as error:
                    self._notify(f"STATUS=the report cannot be written ({error.strerror})")
                written = time.monotonic()

    def _write(self) -> None:
        if self._report is None:
            return
        with replacing(self._report) as temporary:
            temporary.write_bytes(seal(self.figures()))

    def _notify(self, message: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is in Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            try:
                connection.sendto(message.encode(), address)
            except OSError:
                return  # Nobody listens; a service that works is not to die of that.
