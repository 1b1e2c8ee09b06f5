"""`edgelstm-run`, within this process, or as one of its own where its pipes, signals or end matter."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from edgelstm.runtime.cli import main

COMMAND = [sys.executable, "-m", "edgelstm.runtime.cli"]


def call(*arguments: object, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    """Within this process. What is not an error of the command line comes out as an exception."""
    words = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryFile() as file:  # Standard input has a descriptor.
        file.write(stdin.encode() if isinstance(stdin, str) else stdin)
        file.seek(0)
        with patch.object(sys, "stdin", io.TextIOWrapper(file)), redirect_stdout(out), redirect_stderr(err):
            try:
                status = main(words)
            except SystemExit as end:  # argparse
                status = int(end.code or 0)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def call_process(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """As a process, until it ends."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """As a process, to be talked to."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def refused(*arguments: object) -> str:
    """What it says to arguments that it refuses."""
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    return done.stderr
