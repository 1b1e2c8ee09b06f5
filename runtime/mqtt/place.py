"""The folder of a store: who has it, what belongs to whom there, and how many transactions its file has had.

SQLite takes a damaged end of its log for one that a power cut left, and goes back to the transaction before it. So a
small file beside the database says how many there were.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import cast

from ..durable import sync_folder
from ..errors import InputError
from ..notes import note

_SAVES = struct.Struct("<Q8s")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Place:
    """A folder, in the hands of this process alone until it is closed.

    Attributes:
        saves: how many transactions the database there has had, as far as the small file says.
    """

    def __init__(self, folder: Path) -> None:
        """Make it, and have it alone.

        Raises:
            InputError: another process has it, or it cannot be made.
        """
        self._folder = folder
        self._lock = self._saves = -1
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                sync_folder(folder.parent)
            self._lock = os.open(folder / ".lock", _FLAGS, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._saves = os.open(folder / "saves", _FLAGS, 0o600)
            self.saves = self._read()
        except OSError as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise in_use(str(folder)) from error
            raise InputError(f"{folder}: the states cannot be opened ({error})") from error

    def note(self, saves: int) -> None:
        """Keep the number of transactions."""
        # Not synced: after a power cut it may lag behind, and then the end of the log is taken as it is.
        os.pwrite(self._saves, _SAVES.pack(saves, _check(saves)), 0)
        os.ftruncate(self._saves, _SAVES.size)

    def settle(self) -> None:
        """Have all names there on the disk, and belong to the folder's owner: what root made, he could not write."""
        os.fsync(self._saves)
        owner = self._folder.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            for path in self._folder.iterdir():
                with suppress(OSError):  # What is no file of ours.
                    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                    try:
                        found = os.fstat(handle)
                        # A file that has another name elsewhere is not given away.
                        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == 0:
                            os.fchown(handle, owner.st_uid, owner.st_gid)
                    finally:
                        os.close(handle)
        sync_folder(self._folder)

    def close(self) -> None:
        """Let others have it."""
        for handle in (self._saves, self._lock):
            if handle >= 0:
                os.close(handle)
        self._saves = self._lock = -1

    def _read(self) -> int:
        content = os.pread(self._saves, 100, 0)
        if len(content) == _SAVES.size:
            count, check = cast("tuple[int, bytes]", _SAVES.unpack(content))
            if check == _check(count):
                return count
        if content:
            note(f"{self._folder / 'saves'}: damaged; it is written anew")
        return 0


def in_use(name: str) -> InputError:
    """That another process has it."""
    return InputError(f"{name}: in use by another process; each needs a --state of its own")


def _check(count: int) -> bytes:
    return hashlib.blake2b(b"%d" % count, digest_size=8).digest()
