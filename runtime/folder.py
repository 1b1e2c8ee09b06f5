"""A folder of files that is replaced whole or not at all, wherever a power cut or a kill comes.

It is made beside its place under a hidden name, synced, and exchanged with what is there in one call of the kernel
(Linux: `renameat2` with `RENAME_EXCHANGE`). Where a filesystem cannot exchange, two renames do it; between these, what
was there has a name by which `standing_in` finds it.

Modules of the standard library that only writing needs are imported there, as in `archive`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .durable import sync_folder
from .errors import BundleError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What kernels and filesystems answer that cannot exchange two names.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES)


def write_folder(where: Path, content: Mapping[str, bytes], marker: str, what: str) -> None:
    """Write a folder whole or not at all, in place of one that holds a file called `marker`, or of an empty one.

    `what` it is goes into the error.

    Raises:
        BundleError: something else is there; it is left alone.
        OSError: the folder cannot be written.
    """
    with replacing_folder(where, marker, what) as temporary:
        for name, data in content.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(data)


@contextmanager
def replacing_folder(where: Path, marker: str, what: str) -> Generator[Path]:
    """An empty folder beside `where` that takes its place when the block succeeds, and vanishes when not.

    Raises:
        BundleError: something is there that does not hold a file called `marker`, so is not `what`; it is left alone.
        OSError: it cannot be written.
    """
    import shutil
    import tempfile

    place = Path(os.path.realpath(where))  # A link stays a link.
    with ExitStack() as stack:
        _alone(place.parent, stack)
        _tidy(place)
        if place.exists() and not (place / marker).is_file() and (not place.is_dir() or any(place.iterdir())):
            raise BundleError(f"{where}: exists and is not {what}; choose another output or remove it")
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)  # By then perhaps what was there before.
        yield temporary
        temporary.chmod(0o755)
        _sync_all(temporary)
        if not place.exists():
            temporary.rename(place)
        elif not _exchange(temporary, place):
            place.rename(_earlier(place))
            temporary.rename(place)
            sync_folder(place.parent)
            shutil.rmtree(_earlier(place), ignore_errors=True)
        sync_folder(place.parent)


def standing_in(where: Path) -> Path:
    """Where a folder is: there, or, where it is being replaced or that was cut off, under the name it has meanwhile."""
    earlier = _earlier(Path(os.path.realpath(where)))
    return earlier if not where.exists() and earlier.is_dir() else where


def _earlier(place: Path) -> Path:
    return place.with_name(f".{place.name}.earlier")


def _alone(folder: Path, stack: ExitStack) -> None:
    """One process at a time writes folders in here, so that whatever else is half done is of one that was cut off."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stack.callback(os.close, handle)
    with suppress(OSError):  # Some network filesystems have no locks.
        fcntl.flock(handle, fcntl.LOCK_EX)


def _tidy(place: Path) -> None:
    """Finish or undo what was cut off."""
    import shutil

    earlier = _earlier(place)
    if earlier.is_dir():
        if place.exists():
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            earlier.rename(place)
    prefix = f".{place.name}."
    for entry in list(place.parent.iterdir()):
        # Eight letters, as `tempfile` makes them.
        middle = entry.name.removeprefix(prefix).removesuffix(".tmp")
        if entry.name == f"{prefix}{middle}.tmp" and len(middle) == 8 and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _exchange(one: Path, other: Path) -> bool:
    """Have two names change places in one step; False where that cannot be done here."""
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
