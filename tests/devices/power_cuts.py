"""Power cuts in the middle of what a program writes: its calls are recorded, and what a disk may hold after any number
of them is made again.

Nothing that it writes escapes: Python's own audit sees whatever opens, renames, links or removes, and what was not
recorded is an error.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_recorders: list[Recorder] = []


@dataclass
class Recorder:
    """The calls that changed something below a folder.

    Attributes:
        root: the folder.
        calls: name, and what it was called with, paths relative to the root.
        ignored: names of files whose content does not matter.
    """

    root: Path
    ignored: tuple[str, ...] = ()
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    _files: dict[int, str] = field(default_factory=dict)
    _expected: list[str] = field(default_factory=list)

    def inside(self, path: Any) -> str | None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        absolute = Path(os.path.abspath(os.fsdecode(path)))
        if not absolute.is_relative_to(self.root) or absolute.name in self.ignored:
            return None
        return str(absolute.relative_to(self.root))

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What Python says that is about to be done."""
        if event == "open" and (arguments[2] or 0) & _WRITES:
            paths = [arguments[0]]
        elif event in ("os.rename", "os.link", "os.symlink"):
            paths = [arguments[1]]
        elif event in ("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"):
            paths = [arguments[0]]
        else:
            return
        for path in paths:
            if self.inside(path) and not self._expected:
                raise AssertionError(f"{event} of {path} is recorded nowhere")

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self._expected.append(name)
            try:
                result = real(*arguments, **options)
            finally:
                self._expected.pop()
            self._note(name, arguments, result)
            return result

        return called

    def _note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        first = arguments[0] if arguments else None
        if name == "open":
            if (path := self.inside(first)) is not None:
                self._files[result] = path
                if arguments[1] & _WRITES:
                    self.calls.append(("create", path))
        elif name in ("write", "fsync", "ftruncate"):
            if first in self._files:
                more = (bytes(arguments[1])[:result],) if name == "write" else arguments[1:]
                self.calls.append((name, self._files[first], *more))
        elif name == "close":
            self._files.pop(first, None)
        elif name in ("rename", "replace"):
            if (path := self.inside(first)) is not None:
                self.calls.append(("rename", path, self.inside(arguments[1])))
        elif name == "symlink":
            if (path := self.inside(arguments[1])) is not None:
                self.calls.append(("symlink", path, str(first)))
        elif (path := self.inside(first)) is not None:
            self.calls.append((name, path))


_AUDITED = ("open", "write", "fsync", "ftruncate", "close", "rename", "replace", "symlink", "unlink", "mkdir")
_hooked: list[bool] = []


@contextmanager
def recorded(root: Path, module: Any, monkeypatch: Any, ignored: tuple[str, ...] = ()) -> Generator[Recorder]:
    """Record what changes below a folder; a module's `os` does all of it.

    Args:
        root: the folder.
        module: whose calls are recorded.
        monkeypatch: pytest's.
        ignored: names of files whose content does not matter.
    """
    recorder = Recorder(root, ignored)
    if not _hooked:  # An audit hook stays for good.
        sys.addaudithook(lambda event, arguments: [each.audit(event, arguments) for each in _recorders] and None)
        _hooked.append(True)
    with monkeypatch.context() as patched:
        for name in _AUDITED:
            patched.setattr(module.os, name, recorder.wrap(name, getattr(os, name)))
        _recorders.append(recorder)
        try:
            yield recorder
        finally:
            _recorders.remove(recorder)


@dataclass
class _File:
    content: bytes = b""
    synced: bytes = b""


class Disk:
    """What calls make of a folder, and what of that a cut may leave.

    Args:
        root: the folder as it was, all of it on the disk.
    """

    def __init__(self, root: Path) -> None:
        # A name is a file, a link's target, or a folder (None).
        self._names: dict[str, _File | str | None] = {}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                self._names[name] = os.readlink(path)
            elif path.is_dir():
                self._names[name] = None
            else:
                self._names[name] = _File(path.read_bytes(), path.read_bytes())
        self._synced = dict(self._names)

    def do(self, call: tuple[Any, ...]) -> None:
        """One more call."""
        name, path, *more = call
        if name == "create":
            if path not in self._names:
                self._names[path] = _File()
        elif name == "write":
            file = self._names[path]
            assert isinstance(file, _File)
            file.content += more[0]
        elif name == "ftruncate":
            file = self._names[path]
            assert isinstance(file, _File)
            file.content = file.content[: more[0]]
        elif name == "fsync":
            entry = self._names.get(path)
            if isinstance(entry, _File):
                entry.synced = entry.content
            else:  # A folder: its names are what they are now.
                for names in (self._names, self._synced):
                    for each in [n for n in names if (os.path.dirname(n) or ".") == path]:
                        if each in self._names:
                            self._synced[each] = self._names[each]
                        else:
                            self._synced.pop(each, None)
        elif name == "rename":
            for each in [n for n in self._names if n == path or n.startswith(f"{path}/")]:
                self._names[more[0] + each[len(path) :]] = self._names.pop(each)
        elif name == "symlink":
            self._names[path] = more[0]
        elif name == "unlink":
            del self._names[path]
        elif name == "mkdir":
            self._names[path] = None
        else:
            raise AssertionError(call)

    def left(self, kind: str, to: Path) -> None:
        """What a cut leaves: `all` that was done, `names` with no more of a file than was synced, or `synced` alone."""
        names = self._synced if kind == "synced" else self._names
        for name, entry in sorted(names.items()):
            path = to / name
            if entry is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            if not path.parent.is_dir():
                continue  # Of a folder that is not there.
            if isinstance(entry, str):
                path.symlink_to(entry)
            else:
                path.write_bytes(entry.content if kind == "all" else entry.synced)
                path.chmod(0o755)


def copied(source: Path, to: Path) -> Path:
    """A folder again."""
    shutil.copytree(source, to, symlinks=True)
    return to
