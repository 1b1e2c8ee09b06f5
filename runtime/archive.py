"""Reading what a bundle is kept in, an uncompressed zip or a folder, and writing files whole or not at all.

Modules of the standard library that only some calls need are imported there: a device's program that loads one model
and steps it should start at once.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from .durable import open_regular, read_regular
from .errors import BundleError
from .folder import write_folder as write_folder  # Bundles are written with it or the two here.


def zipped(content: Mapping[str, bytes]) -> bytes:
    """An uncompressed zip; the same content gives the same bytes."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def members(where: Path) -> list[tuple[str, int]]:
    """Names and sizes in a `.edge` file, as it says itself."""
    import zipfile

    try:
        with open_regular(where) as file, zipfile.ZipFile(file) as archive:
            return [(info.filename, info.file_size) for info in archive.infolist()]
    except OSError as error:
        raise BundleError(f"{where}: not a readable bundle ({error.strerror or error})") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{where}: not a readable bundle ({error})") from error


def read_member(where: Path, name: str, limit: int, exact: bool = False) -> bytes:
    """Read one member: `limit` bytes if `exact`, else never more than that."""
    import zipfile

    try:
        if where.is_dir():
            member = where / name
            if not member.resolve().is_relative_to(where.resolve()):
                raise BundleError(f"{where}: {name} leads outside the bundle")
            actual = member.stat().st_size
            if actual > limit or (exact and actual != limit):
                raise _wrong_size(where, name, actual, limit)
            return read_regular(member)
        with open_regular(where) as file, zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename == name]
            if len(members) != 1:
                raise BundleError(f"{where}: holds {len(members)} files called {name}; it is damaged or not a bundle")
            (info,) = members
            if info.compress_type != zipfile.ZIP_STORED:
                # Bundles are never compressed, so a small file that unpacks to a huge one is none of ours.
                raise BundleError(f"{where}: {name} is compressed, which a bundle's files never are")
            if info.file_size > limit or (exact and info.file_size != limit):
                raise _wrong_size(where, name, info.file_size, limit)
            return archive.read(info)
    except FileNotFoundError as error:
        raise BundleError(f"{where}: {name} is missing; it is damaged or not a bundle") from error
    except OSError as error:
        raise BundleError(f"{where}: not a readable bundle ({error.strerror or error})") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{where}: not a readable bundle ({error})") from error


def _wrong_size(where: Path, name: str, actual: int, expected: int) -> BundleError:
    return BundleError(f"{where}: {name} has {actual} bytes where {expected} belong; copy the bundle again")
