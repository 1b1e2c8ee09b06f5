"""A model's folder on a board, and what is read from it: nothing is believed that is not what was written.

BASE/versions/ID/    bundle.edge, site/ (the runtime), start, its unit, deployment.json; sums.json has the SHA-256
                     of each, and when it arrived among the others
BASE/current         a link to one of them
BASE/history.json    those that were current, the latest last: the way back
BASE/switching.json  while another becomes current: from which, to which
BASE/state/          what the service keeps; /var/lib/edgelstm/NAME for the whole system's
accepted.json        beside BASE: the counter of the last signed bundle of each name that was accepted
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.sealed import seal, unseal
from ...runtime.typed_json import from_json
from . import storage
from .errors import RefusedError
from .messages import Deployed, plain

DEPLOYMENT, SUMS = "deployment.json", "sums.json"
SIGNERS = Path("/etc/edgelstm/allowed_signers")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_MAX_MANIFEST_BYTES = 16 * 2**20


def requires_signatures() -> bool:
    """Whether this board opens signed bundles only."""
    return bool(os.environ.get("EDGELSTM_ALLOWED_SIGNERS")) or os.path.lexists(SIGNERS)


@dataclass(frozen=True)
class Sums:
    """What belongs to a version: when it arrived among the others, and the SHA-256 of each of its files."""

    arrived: int
    files: dict[str, str]


@dataclass(frozen=True)
class Signed:
    """Of a signed bundle: its name, and the counter that grows from one to the next of that name."""

    name: str
    counter: int

    def __post_init__(self) -> None:
        if self.counter < 0:
            raise ValueError(f"its counter is {self.counter}")


@dataclass(frozen=True)
class Switching:
    """A way from one version to another that was not finished.

    Attributes:
        before: the version that was current, or None.
        to: the one that was to be.
        history: as it was before.
        accept: what counts as accepted when it is finished.
    """

    before: str | None
    to: str
    history: tuple[str, ...]
    accept: Signed | None = None


@dataclass(frozen=True)
class Model:
    """A model's folder."""

    base: Path

    @property
    def versions(self) -> Path:
        """Where versions lie."""
        return self.base / "versions"

    @property
    def link(self) -> Path:
        """What leads to the current version."""
        return self.base / "current"

    @property
    def current(self) -> str | None:
        """The current version, if one is there."""
        if not (self.link.is_symlink() and self.link.exists()):
            return None
        return self.link.resolve().name

    def version(self, id_: str) -> Path:
        """Where a version lies, or would.

        Raises:
            RefusedError: no version can be called that.
        """
        if not _NAME.fullmatch(id_):
            raise RefusedError(f"{id_!r} is no version's name; --list shows those that are there")
        return self.versions / id_

    def ids(self) -> list[str]:
        """All versions in the order in which they arrived."""
        names = [path.name for path in self.versions.glob("[!.]*") if path.is_dir()]
        return sorted(names, key=lambda name: (self.arrived(name), name))

    def arrived(self, id_: str) -> int:
        """A version's place among the others; 0 of one that does not say."""
        try:
            return self.sums(id_).arrived
        except RefusedError:
            return 0

    def sums(self, id_: str) -> Sums:
        """What belongs to a version.

        Raises:
            RefusedError: that cannot be told.
        """
        return _sealed(Sums, self.version(id_) / SUMS)

    def deployed(self, id_: str) -> Deployed:
        """What a version says of itself.

        Raises:
            RefusedError: nothing, or nothing that can be understood.
        """
        path = self.version(id_) / DEPLOYMENT
        try:
            return from_json(Deployed, json.loads(path.read_bytes()), "it")
        except OSError as error:
            raise RefusedError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"{path} is damaged, or of a later EdgeLSTM: {error}") from error

    def check(self, id_: str) -> None:
        """Whether a version is what arrived, to the byte.

        Raises:
            RefusedError: it is not there, or damaged.
        """
        folder = self.version(id_)
        if not folder.is_dir():
            raise RefusedError(f"there is no version {id_}; --list shows those that are there")
        for name, expected in self.sums(id_).files.items():
            try:
                actual = digest(folder / name)
            except OSError as error:
                raise RefusedError(f"version {id_} is damaged: {name} cannot be read ({error.strerror})") from error
            if actual != expected:
                raise RefusedError(f"version {id_} is damaged: {name} is not the file that arrived; deploy it again")
        self.deployed(id_)

    def history(self) -> list[str]:
        """The versions that were current and still are there.

        Raises:
            RefusedError: the file is damaged.
        """
        path = self.base / "history.json"
        if not os.path.lexists(path):
            return []
        entries = _sealed(_History, path).history
        return [entry for entry in entries if _NAME.fullmatch(entry) and (self.versions / entry).is_dir()]

    def write_history(self, entries: list[str]) -> None:
        """Keep what was current."""
        storage.write(self.base / "history.json", seal({"history": entries}))

    def switching(self) -> Switching | None:
        """The way to another version that was not finished, if there is one.

        Raises:
            RefusedError: the file is damaged.
        """
        path = self.base / "switching.json"
        return _sealed(Switching, path) if os.path.lexists(path) else None

    def write_switching(self, switching: Switching) -> None:
        """Note the way before the first step."""
        storage.write(self.base / "switching.json", seal(plain(switching)))

    def finish_switching(self) -> None:
        """There is no such way any more."""
        storage.remove(self.base / "switching.json")

    def accepted(self) -> dict[str, int]:
        """The counter of the last signed bundle of each name that was accepted here.

        Raises:
            RefusedError: the file is damaged.
        """
        path = self.base.parent / "accepted.json"
        return _sealed(_Accepted, path).accepted if os.path.lexists(path) else {}

    def accept(self, signed: Signed) -> None:
        """Keep a counter."""
        try:
            known = self.accepted()
        except RefusedError:
            storage.set_aside(self.base.parent / "accepted.json")
            known = {}
        if known.get(signed.name) != signed.counter:
            content = {"accepted": {**known, signed.name: signed.counter}}
            storage.write(self.base.parent / "accepted.json", seal(content))

    def signed(self, id_: str, allow_older: bool) -> Signed | None:
        """Name and counter of a version's bundle, where signatures are required; their checks are the runtime's.

        Raises:
            RefusedError: a later one was accepted before, or that cannot be told, and that is not allowed.
        """
        if not requires_signatures():
            return None
        signed = _signed(self.version(id_) / "bundle.edge")
        try:
            last = self.accepted().get(signed.name, 0)
        except RefusedError as error:
            if allow_older:
                return signed
            raise RefusedError(f"{error}; --allow-older begins it anew with this bundle") from error
        if signed.counter < last and not allow_older:
            raise RefusedError(
                f"the bundle is older than one that was accepted here: its counter is {signed.counter}, that of the "
                f"last {signed.name} was {last}; sign it again (`edgelstm sign`), or take it as it is (--allow-older)"
            )
        return signed


@dataclass(frozen=True)
class _History:
    history: tuple[str, ...]


@dataclass(frozen=True)
class _Accepted:
    accepted: dict[str, int]


def _sealed(kind: type[Any], path: Path) -> Any:
    try:
        return from_json(kind, unseal(path.read_bytes()), "it")
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RefusedError(f"{path} is damaged, or of another EdgeLSTM: {error}") from error


def _signed(bundle: Path) -> Signed:
    try:
        with zipfile.ZipFile(bundle) as archive, archive.open("manifest.json") as file:
            manifest: Mapping[str, Any] = json.loads(file.read(_MAX_MANIFEST_BYTES))
        return from_json(Signed, {"name": manifest["name"], "counter": manifest.get("counter", 0)}, "its manifest")
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"the bundle's counter cannot be read ({error})") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
