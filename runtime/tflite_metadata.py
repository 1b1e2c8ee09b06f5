"""Reads the description that EdgeLSTM stores in its `.tflite` files, without any flatbuffer library.

The description carries a checksum of the file. It is checked before an interpreter sees the content, because the
interpreters trust a file's offsets, and a truncated or damaged one can end the process.

Layout: https://github.com/google-ai-edge/LiteRT, `schema.fbs`: `Model.buffers` is field 4, `Model.metadata`
field 6; `Metadata.name` and `Metadata.buffer` are fields 0 and 1; `Buffer.data` is field 0.
"""

from __future__ import annotations

import struct
import zlib

from .errors import BundleError

METADATA_NAME = "edgelstm"
CHECKSUM_PREFIX = b'"crc32": "'
CHECKSUM_PLACEHOLDER = b"--------"


def checksum(content: bytes, at: int) -> bytes:
    """The checksum of a file whose own checksum stands at `at`, as eight hexadecimal digits."""
    blanked = content[:at] + CHECKSUM_PLACEHOLDER + content[at + len(CHECKSUM_PLACEHOLDER) :]
    return b"%08x" % zlib.crc32(blanked)


def read_metadata(content: bytes, source: str) -> str:
    """The description in a `.tflite` file that EdgeLSTM wrote.

    Raises:
        BundleError: it is damaged, or not one of ours.
    """
    if content[4:8] != b"TFL3":
        raise BundleError(f"{source}: not a TFLite file")
    try:
        text = _find(content)
    except (struct.error, IndexError, ValueError) as error:
        raise BundleError(f"{source}: damaged TFLite file; copy or export it again") from error
    if text is None:
        raise BundleError(
            f"{source}: was not written by EdgeLSTM, so its states are unknown; export the Keras model with "
            "`edgelstm export`"
        )
    at = content.find(CHECKSUM_PREFIX) + len(CHECKSUM_PREFIX)
    if content[at : at + 8] != checksum(content, at):
        raise BundleError(f"{source}: damaged TFLite file (its checksum differs); copy or export it again")
    return text.decode()


def _find(content: bytes) -> bytes | None:
    model = _u32(content, 0)
    buffers, metadata = _field(content, model, 4), _field(content, model, 6)
    if buffers is None or metadata is None:
        return None
    for entry in _tables(content, metadata):
        name, number = _field(content, entry, 0), _field(content, entry, 1)
        if name is None or number is None or _vector(content, name) != METADATA_NAME.encode():
            continue
        data = _field(content, _tables(content, buffers)[_u32(content, number)], 0)
        return None if data is None else _vector(content, data)
    return None


def _u32(content: bytes, at: int) -> int:
    return struct.unpack_from("<I", content, at)[0]


def _field(content: bytes, table: int, number: int) -> int | None:
    """Position of a table's field, or None where it is left out."""
    vtable = table - struct.unpack_from("<i", content, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", content, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", content, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def _vector(content: bytes, field: int) -> bytes:
    start = field + _u32(content, field)
    length = _u32(content, start)
    if start + 4 + length > len(content):
        raise ValueError("vector beyond the end")
    return content[start + 4 : start + 4 + length]


def _tables(content: bytes, field: int) -> list[int]:
    start = field + _u32(content, field)
    count = _u32(content, start)
    if start + 4 + 4 * count > len(content):
        raise ValueError("vector beyond the end")
    return [at + _u32(content, at) for at in range(start + 4, start + 4 + 4 * count, 4)]
