"""What takes long to make and is never changed: made once in a whole run, for all workers."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder with what `make` left in it: the first worker that asks makes it, others wait for that."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # Each worker has a folder in the run's.
        base = base.parent
    folder = base / f"once-{name}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(prefix="draft-", dir=base))
            make(draft)
            draft.rename(folder)
    return folder
