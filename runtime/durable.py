"""Files that survive power cuts and other processes: replaced whole, one process's at a time, and never waited for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading; what is none, such as a named pipe, is refused instead of waited for.

    Raises:
        OSError: it is not there, cannot be read, or is no file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The content of a file; what is none is refused instead of waited for.

    Raises:
        OSError: it is not there, cannot be read, or is no file.
    """
    with open_regular(path) as file:
        return file.read()


def kind_of(mode: int) -> str:
    """What is at a path, in words, from `st_mode`."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A new file beside `path` that takes its place when the block succeeds, and vanishes when not.

    A symbolic link stays one: what it leads to is replaced. What a process that was killed has left is overwritten,
    and one that replaces the same file now is waited for.

    Raises:
        OSError: it cannot be written, or what is there is no file.
    """
    real = _real(path)
    if real.exists():
        _check_regular(real.stat().st_mode, path)
    handle = _claim(real)
    try:
        yield beside(real)
        _put(handle, real)
    except BaseException:
        _drop(handle, real)
        raise
    os.close(handle)


class OwnedFile:
    """A file that one process at a time reads and replaces, from when it takes it until it closes it.

    What is locked is the file itself: its successor is locked before it takes its place, so that there is neither a
    moment without a lock nor another file that would be left behind. The kernel lets go when a process ends, however it
    does. A symbolic link stays one.

    Attributes:
        content: what it held when it was taken; None if it was not there.
    """

    def __init__(self, path: Path) -> None:
        """Take it.

        Raises:
            BlockingIOError: another process has it.
            OSError: it cannot be read or made, or is no file.
        """
        self._real = _real(path)
        # Of the file, or, while there is none, of what is to become it.
        self._handle: int | None = None
        self._to_be = False
        self.content = self._take(path)

    def replace(self, content: bytes) -> None:
        """Have it hold something else: on the disk when this returns.

        Raises:
            OSError: it cannot be written; it is as it was.
        """
        new = self._handle if self._to_be and self._handle is not None else _claim(self._real)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(new, view) :]
            _put(new, self._real)
        except BaseException:
            _drop(new, self._real)
            if self._to_be:
                self._handle = None
            raise
        if self._handle is not None and not self._to_be:
            os.close(self._handle)
        self._handle, self._to_be = new, False

    def close(self) -> None:
        """Let others have it."""
        if self._handle is None:
            return
        if self._to_be:
            _drop(self._handle, self._real)
        else:
            os.close(self._handle)
        self._handle = None

    def _take(self, path: Path) -> bytes | None:
        while True:
            try:
                handle = os.open(self._real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            except FileNotFoundError:
                handle = _claim(self._real, wait=False)
                if self._real.exists():  # Somebody else has made it since.
                    _drop(handle, self._real)
                    continue
                self._handle, self._to_be = handle, True
                return None
            try:
                _check_regular(os.fstat(handle).st_mode, path)
                _lock(handle, wait=False)
                if not _is_at(handle, self._real):  # It has been replaced since.
                    os.close(handle)
                    continue
                with os.fdopen(os.dup(handle), "rb") as file:
                    content = file.read()
            except BaseException:
                os.close(handle)
                raise
            self._handle = handle
            return content


def sync_folder(folder: Path) -> None:
    """Have what became of a folder's names reach the disk.

    Raises:
        OSError: it did not.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Filesystems that have nothing of the kind.
            raise
    finally:
        os.close(handle)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _check_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(mode)}, not a file", os.fspath(path))


def beside(real: Path) -> Path:
    """Where what is to take a file's place is written first."""
    return real.with_name(f".{real.name}.new")


def _claim(real: Path, wait: bool = True) -> int:
    """The file beside another that is to take its place: empty, and locked until it is closed.

    It has one name, so that none is left for good by processes that are killed, whatever their number.
    """
    path, flags = beside(real), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    while True:
        try:
            handle, is_ours = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            try:
                handle, is_ours = os.open(path, flags), False
            except FileNotFoundError:
                continue  # It has taken its place since.
        try:
            _lock(handle, wait)
            found = os.fstat(handle)
            is_ours = is_ours or (stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1)
            if is_ours and _is_at(handle, path):
                os.ftruncate(handle, 0)
                return handle
            if not is_ours and _is_at(handle, path):
                os.unlink(path)  # Somebody else's, who could still write to it, or read it.
            os.close(handle)
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise


def _put(handle: int, real: Path) -> None:
    # The 0600 that it was made with would make a shared file private; take what the process would have created.
    mask = os.umask(0)
    os.umask(mask)
    with suppress(PermissionError):  # File systems of memory cards have no modes.
        os.fchmod(handle, stat.S_IMODE(real.stat().st_mode) if real.exists() else 0o666 & ~mask)
    os.fsync(handle)
    os.replace(beside(real), real)
    sync_folder(real.parent)


def _drop(handle: int, real: Path) -> None:
    with suppress(FileNotFoundError):
        if _is_at(handle, beside(real)):
            os.unlink(beside(real))
    os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _lock(handle: int, wait: bool) -> None:
    """Lock a file.

    Raises:
        BlockingIOError: another process has it, and is not to be waited for.
    """
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        # File systems without locks, as some of a network's are: to run without one is better than not to run.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS, errno.EINVAL):
            raise
