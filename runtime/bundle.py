"""The bundle: one `.edge` file (an uncompressed, reproducible zip) or a folder of the same content.

It holds `manifest.json`, the artifacts and the golden vectors. Every file is listed in the
manifest with its size and SHA-256, and nothing is used before both are checked. `archive.py` reads and writes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .archive import members, read_member, write_folder, zipped
from .durable import open_regular, replacing
from .errors import BundleError
from .folder import replacing_folder, standing_in
from .golden import Golden
from .manifest import MANIFEST, MAX_MANIFEST_BYTES, File, Manifest
from .signature import MAX_SIGNATURE_BYTES, SIGNATURE, check_signature, required_signers

# In a folder, the manifest's SHA-256 as `sha256sum` writes it; in a zip, the zip's own check covers the manifest.
_SUM = f"{MANIFEST}.sha256"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Its files are read when asked for, and checked then.

    Attributes:
        path: the `.edge` file or the folder.
        manifest: what it says of itself.
        signer: who signed it, where signatures are required; else None.
    """

    path: Path
    manifest: Manifest
    signer: str | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], allowed_signers: str | os.PathLike[str] | None = None) -> Bundle:
        """Open a `.edge` file or a folder.

        Args:
            path: where it is.
            allowed_signers: whose signature it must have, as a file in ssh-keygen's format; by default as the
                environment variable `EDGELSTM_ALLOWED_SIGNERS` or `/etc/edgelstm/allowed_signers` has it.

        Raises:
            BundleError: there is no bundle at `path`, or it is damaged, forged, unsigned where it must be signed, or
                of a later version.
        """
        where = standing_in(Path(path))
        if not where.exists():
            raise BundleError(f"{where}: no such file or folder")
        signers = required_signers(allowed_signers)
        content = read_member(where, MANIFEST, MAX_MANIFEST_BYTES)
        _check_sum(where, content)
        signer = None
        if signers is not None:
            signer = check_signature(content, _read_signature(where), signers, str(where))
        return cls(where, Manifest.from_bytes(content, str(where)), signer)

    def read(self, entry: File) -> bytes:
        """The content of one of the manifest's files.

        Raises:
            BundleError: its size or SHA-256 is not what the manifest says.
        """
        import hashlib

        content = read_member(self.path, entry.file, entry.size, exact=True)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path}: {entry.file} is not the file that was exported (its SHA-256 differs); "
                "copy the bundle again or export it again"
            )
        return content

    def golden(self) -> Golden:
        """The golden vectors."""
        return Golden.from_bytes(self.read(self.manifest.golden), f"{self.path}: {self.manifest.golden.file}")


def read_manifest(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a bundle's manifest, which are what is signed."""
    return read_member(standing_in(Path(path)), MANIFEST, MAX_MANIFEST_BYTES)


def add_signature(path: str | os.PathLike[str], manifest: bytes, signature: bytes) -> None:
    """Put a manifest and its signature into a bundle, in place of those that it had; nothing else changes.

    Raises:
        BundleError: `path` is no bundle, or cannot be written.
    """
    import shutil

    where = standing_in(Path(path))
    try:
        if where.is_dir():
            with replacing_folder(where, MANIFEST, "a bundle") as temporary:
                shutil.copytree(where, temporary, symlinks=True, dirs_exist_ok=True)
                (temporary / MANIFEST).write_bytes(manifest)
                (temporary / _SUM).write_bytes(_sum(manifest))
                (temporary / SIGNATURE).write_bytes(signature)
            return
        content = {name: read_member(where, name, size) for name, size in members(where)}
        first = {MANIFEST: manifest, SIGNATURE: signature}
        rest = {name: data for name, data in content.items() if name not in first}
        with replacing(where) as temporary:
            temporary.write_bytes(zipped({**first, **rest}))
    except OSError as error:
        raise BundleError(f"{where}: cannot be written ({error.strerror or error}); it is as it was") from error


def is_bundle(path: Path) -> bool:
    """Whether a bundle is at a path, and would be replaced; a damaged one counts, so that it can be written again."""
    try:
        if path.is_dir():
            return (path / MANIFEST).is_file()
        with open_regular(path) as file:
            head = file.read(30 + len(MANIFEST))
        # A zip whose first file is the manifest: documents and Keras files are zips as well.
        return head[:4] == b"PK\3\4" and head[30:] == MANIFEST.encode()
    except OSError:
        return False


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle whole or not at all: a `.edge` file, or a folder if `path` has no such ending.

    An existing bundle at `path` is replaced; anything else there is left alone.

    Args:
        path: where to.
        manifest: what the bundle says of itself.
        files: the content of every file that the manifest lists.

    Raises:
        BundleError: `path` cannot be written, or something that is not a bundle is there.
    """
    where = Path(path)
    content = {MANIFEST: manifest.to_bytes(), **{entry.file: files[entry.file] for entry in manifest.files}}
    if where.is_file() and where.suffix == ".edge" and not is_bundle(where):
        raise BundleError(f"{where}: exists and is not a bundle; choose another output or remove it")
    try:
        if where.suffix == ".edge":
            with replacing(where) as temporary:
                temporary.write_bytes(zipped(content))
        else:
            write_folder(where, {**content, _SUM: _sum(content[MANIFEST])}, MANIFEST, "a bundle")
    except OSError as error:
        raise BundleError(f"{where}: cannot be written ({error.strerror or error}); nothing was left there") from error
    return Bundle(where, manifest)


def _read_signature(where: Path) -> bytes | None:
    names = {SIGNATURE} if where.is_dir() and (where / SIGNATURE).exists() else set[str]()
    if not where.is_dir():
        names = {name for name, _ in members(where)}
    return read_member(where, SIGNATURE, MAX_SIGNATURE_BYTES) if SIGNATURE in names else None


def _sum(manifest: bytes) -> bytes:
    import hashlib

    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _check_sum(where: Path, manifest: bytes) -> None:
    """Check the manifest of a folder; where its sum is not there, the folder is of other hands, and it has none."""
    if where.is_dir() and os.path.lexists(where / _SUM) and read_member(where, _SUM, 1000) != _sum(manifest):
        raise BundleError(
            f"{where}: {MANIFEST} is not the file that was exported (its SHA-256 differs); copy the bundle again or "
            "export it again"
        )
