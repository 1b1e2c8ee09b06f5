"""Replays artifacts in a process of its own: what LiteRT or onnxruntime make of a hostile file ends that process alone.

Both trust what a file says of itself, and a checksum is no defence against who can compute it. A process of its own
keeps what dies or hangs there from the caller; it is no sandbox. EdgeLSTM's own engine checks all of a file, and needs
none.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from threading import Event, Timer
from typing import IO

import numpy as np

from .backends import Float32Array, open_artifact
from .errors import BackendUnavailableError, BundleError, EdgeLSTMError, InputError, reason_of
from .golden import Golden
from .model import check_widths, replay
from .notes import note
from .sequence import replay_sequences
from .stream import Stream
from .typed_json import from_json

# Who runs what of formats that are not EdgeLSTM's own, and the packages that any of them is in.
_LIBRARIES = {
    "tflite": ("LiteRT", ("ai_edge_litert", "tflite_runtime", "tensorflow")),
    "onnx": ("onnxruntime", ("onnxruntime",)),
}
_ERRORS = {kind.__name__: kind for kind in (BackendUnavailableError, BundleError, InputError)}
_TIMEOUT = 600.0  # Seconds for one artifact, which a slow board needs to load TensorFlow from its card.
_MAX_HEADER, _MAX_MEMORY = 2**16, 2**32


@dataclass(frozen=True)
class Task:
    """What to replay golden vectors through.

    Attributes:
        backend: which one runs a step graph.
        format: of the artifact.
        graph: `step`, `sequence` or `window`.
        features: inputs of a timestep that it must have.
        outputs: outputs that it must have.
        source: what to call it in an error.
    """

    backend: str
    format: str
    graph: str
    features: int
    outputs: int
    source: str


@dataclass(frozen=True)
class _Answer:
    """What the child says before the numbers: how they are arranged, or which of `_ERRORS` there was."""

    shape: tuple[int, ...] = ()
    error: str | None = None
    message: str = ""


class Trial:
    """Replays artifacts, those of foreign formats in a child process unless they are trusted. A context manager.

    One child serves all artifacts of a `with` block, as long as it lives.
    """

    def __init__(self, trusted: bool, timeout: float | None = _TIMEOUT) -> None:
        self._apart = not trusted
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the trial)

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._said.close()

    def replay(self, task: Task, content: bytes, golden: Golden) -> Float32Array:
        """The answers to golden inputs that come due, (answers, outputs).

        Args:
            task: what it is.
            content: the artifact.
            golden: the inputs.

        Raises:
            BundleError: it cannot be run, or its library died of it.
            BackendUnavailableError: nothing that runs it is installed.
            InputError: there is no such backend.
        """
        if not self._apart or task.format not in _LIBRARIES or not any(map(_is_there, _LIBRARIES[task.format][1])):
            return replay_here(task, content, golden)
        if self._child is None:
            try:
                self._begin()
            except (OSError, ValueError) as error:
                note(
                    f"{task.source} is opened without a process of its own ({error or 'there is no Python to start'}), "
                    "so it is trusted as code is"
                )
                self._apart = False
                return replay_here(task, content, golden)
        return self._ask(task, content, golden)

    def _begin(self) -> None:
        if not sys.executable:
            raise ValueError
        # The same modules as here, and none that lies in the folder from which it is called.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )

    def _end(self) -> int:
        """Let the child go, and say how it ended."""
        child, self._child = self._child, None
        if child is None:
            return 0
        try:
            child.communicate(timeout=10)  # Nothing more to do ends it.
        except (subprocess.TimeoutExpired, ValueError, OSError):
            child.kill()
        except BaseException:  # An interrupt must not leave it behind.
            child.kill()
            child.wait()
            raise
        return child.wait()

    def _ask(self, task: Task, content: bytes, golden: Golden) -> Float32Array:
        vectors = golden.to_bytes()
        request = {"task": asdict(task), "content": len(content), "golden": len(vectors)}
        assert self._child is not None
        with _killed_after(self._child, self._timeout) as overdue:
            try:
                answer, body = _exchange(self._child, json.dumps(request).encode() + b"\n", content, vectors)
            except (OSError, ValueError) as error:
                raise BundleError(f"{task.source}: {self._death(task, overdue.is_set())}") from error
            except BaseException:
                self._child.kill()  # An interrupt must not wait for it.
                raise
        if answer.error is not None:
            raise _ERRORS.get(answer.error, BundleError)(answer.message)
        most, rows = max(len(golden.inputs), len(golden.outputs)), golden.outputs.shape[1:-1]
        fits = answer.shape[1:] in ((task.outputs,), (*rows, task.outputs))
        if not fits or answer.shape[0] > most:
            raise BundleError(
                f"{task.source}: its answers have shape {answer.shape}, and the bundle says {task.outputs} outputs"
            )
        return np.frombuffer(body, np.float32).reshape(answer.shape).copy()

    def _death(self, task: Task, overdue: bool) -> str:
        library, status = _LIBRARIES[task.format][0], self._end()
        if overdue:
            return f"{library} gave no answer within {self._timeout:g} s, and was ended; do not use the file"
        if status >= 0:
            self._said.seek(0)
            lines = self._said.read()[-2000:].decode(errors="replace").split("\n")
            last = next((f" ({line.strip()[:300]})" for line in reversed(lines) if line.strip()), "")
            return f"the process in which {library} was to run it ended with status {status}{last}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return (
            f"{library} died of it ({name}), in a process of its own; the file is damaged or hostile, do not use it: "
            "copy or export it again"
        )


def replay_here(task: Task, content: bytes, golden: Golden) -> Float32Array:
    """The answers to golden inputs that come due, (answers, outputs), computed in this process.

    Raises:
        BundleError: it cannot be run.
        BackendUnavailableError: nothing that runs it is installed.
        InputError: there is no such backend.
    """
    if task.graph == "sequence":
        return replay_sequences(task.format, content, task.source, golden)
    opened = open_artifact(task.backend, content, task.source)
    check_widths(opened, task.features, task.outputs, task.source)
    return replay(Stream(opened, bytes(16), task.source, golden.window), golden)


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # It is loaded, and says nothing of where from.
        return True


@contextmanager
def _killed_after(child: subprocess.Popen[bytes], seconds: float | None) -> Generator[Event]:
    """End a child that takes longer; whether it did."""
    overdue = Event()

    def kill() -> None:
        overdue.set()
        child.kill()

    timer = Timer(seconds, kill) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield overdue
    finally:
        if timer is not None:
            timer.cancel()


def _exchange(child: subprocess.Popen[bytes], *request: bytes) -> tuple[_Answer, bytes]:
    """What a child answers, and the numbers, float32.

    Raises:
        OSError: it is gone.
        ValueError: it answered something else.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    for part in request:
        child.stdin.write(part)
    child.stdin.flush()
    answer = from_json(_Answer, json.loads(child.stdout.readline(_MAX_HEADER)))
    size = 4 * math.prod(answer.shape) if answer.error is None else 0
    if min(answer.shape, default=0) < 0 or size > _MAX_MEMORY:
        raise ValueError(answer)
    body = child.stdout.read(size)
    if len(body) != size:
        raise ValueError("it broke off")
    return answer, body


def _serve() -> None:
    """The child: tasks from standard input until it ends, answers to standard output."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    soft = _MAX_MEMORY if most == resource.RLIM_INFINITY else min(most, _MAX_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, most))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Libraries print, and what they print is no answer.
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        content, vectors = (sys.stdin.buffer.read(request[key]) for key in ("content", "golden"))
        task = Task(**request["task"])
        try:
            found = replay_here(task, content, Golden.from_bytes(vectors, task.source))
            answer, body = _Answer(found.shape), np.ascontiguousarray(found, np.float32).tobytes()
        except EdgeLSTMError as error:
            answer, body = _Answer((), type(error).__name__, str(error)[:8000]), b""
        except Exception as error:  # Whatever a library raises that nobody foresaw is about the file.
            reason = reason_of(f"{type(error).__name__}: {error}")
            answer, body = _Answer((), "BundleError", f"{task.source}: cannot be run ({reason})"), b""
        answers.write(json.dumps(asdict(answer)).encode() + b"\n" + body)
        answers.flush()


if __name__ == "__main__":
    _serve()
