"""Files that survive a power cut: written whole beside their place, synced, renamed, and the folder synced.

Whatever the agent changes on a board, it changes through here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RefusedError

# Says to whoever waits for a lock who holds it; the session makes it the wire's.
tell: list[Callable[[str], None]] = []
_held: dict[Path, int] = {}


def write(path: Path, content: bytes) -> None:
    """Put a file in its place, whole or not at all."""
    new = _beside(path)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(new, path)
    sync(path.parent)


def link(path: Path, to: str) -> None:
    """Have a symbolic link lead there, by one rename."""
    new = _beside(path)
    os.symlink(to, new)
    os.replace(new, path)
    sync(path.parent)


def _beside(path: Path) -> Path:
    new = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        os.unlink(new)  # Of a cut.
    return new


def remove(path: Path) -> None:
    """Remove a file or a link, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
        sync(path.parent)


def make(folder: Path) -> None:
    """Make a folder and those above it."""
    if folder.is_dir():
        return
    make(folder.parent)
    with suppress(FileExistsError):
        os.mkdir(folder)
    sync(folder.parent)


def move(source: Path, to: Path) -> None:
    """Rename within a folder."""
    os.rename(source, to)
    sync(to.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder: gone under its name at once, whatever comes between then and the last of its files."""
    gone = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        move(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Keep a damaged file under another name, and say which."""
    names = (path.with_name(f"{path.name}.damaged{f'-{i}' if i else ''}") for i in range(10**6))
    aside = next(name for name in names if not name.exists())
    move(path, aside)
    return aside


def sync(folder: Path) -> None:
    """Have what became of a folder's names reach the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(base: Path, wait: bool = True) -> Generator[bool]:
    """One at a time on a board: all that is deployed beside a model waits for it too.

    The kernel lets go when the process ends, however it does.

    Args:
        base: the model's folder.
        wait: for whoever has it; if not, what is yielded says whether nobody has.
    """
    folder = base.parent
    if folder in _held:
        yield True
        return
    if not wait and not folder.is_dir():
        yield True  # Nothing is deployed there that could be in somebody's hands.
        return
    handle = _lock(folder, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def hold(base: Path) -> None:
    """Have the lock until the process ends."""
    if base.parent not in _held:
        handle = _lock(base.parent, True)
        assert handle is not None
        _held[base.parent] = handle


def _lock(folder: Path, wait: bool) -> int | None:
    make(folder)
    path = folder / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be locked ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            os.close(handle)
            return None
        for say in tell:
            say(f"waits until another deployment here ends{_holder(handle)}")
        fcntl.flock(handle, fcntl.LOCK_EX)
    # For whoever waits; of no other meaning, so it need not reach the disk.
    whence = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"pid": os.getpid(), "from": whence, "since": time.time()}).encode(), 0)
    return handle


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        whence = f"from {holder['from']}, " if holder["from"] else ""
        return f" ({whence}process {int(holder['pid'])}, for {max(time.time() - holder['since'], 0):.0f} s)"
    except (ValueError, TypeError, KeyError):
        return ""  # It has it since a moment ago.
