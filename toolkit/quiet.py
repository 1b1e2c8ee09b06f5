"""Keeps TensorFlow's start-up chatter off the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TextIO


@contextmanager
def quiet() -> Generator[TextIO]:
    """Swallow what native libraries write to standard error, unless the block raises.

    TensorFlow and LiteRT log to file descriptor 2 before any of their own settings can silence them. What the block is
    given writes to standard error all the same.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        yield sys.stderr  # It is no file, as under some test runners.
        return
    sys.stderr.flush()
    saved = os.dup(descriptor)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), descriptor)
        try:
            with open(saved, "w", encoding="utf-8", closefd=False) as heard:
                yield heard
        except BaseException:
            os.dup2(saved, descriptor)
            swallowed.seek(0)
            with suppress(OSError):
                os.write(descriptor, swallowed.read())
            raise
        finally:
            os.dup2(saved, descriptor)
            os.close(saved)
