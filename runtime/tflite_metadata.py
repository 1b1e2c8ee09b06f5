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
from .flatbuffer import field, tables, u32, vector

METADATA_NAME = "edgelstm"
CHECKSUM_PREFIX = b'"crc32": "'
CHECKSUM_PLACEHOLDER = b"--------"


def checksum(content: bytes, at: int) -> bytes:
    """The checksum of a file whose own checksum stands at `at`, as eight hexadecimal digits."""
    blanked = content[:at] + CHECKSUM_PLACEHOLDER + content[at + len(CHECKSUM_PLACEHOLDER) :]
    return b"%08x" % zlib.crc32(blanked)


def seal(content: bytes) -> bytes:
    """A file whose description has a placeholder behind `CHECKSUM_PREFIX`, with its checksum in that place."""
    at = content.index(CHECKSUM_PREFIX) + len(CHECKSUM_PREFIX)
    return content[:at] + checksum(content, at) + content[at + len(CHECKSUM_PLACEHOLDER) :]


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
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{source}: damaged TFLite file (its description is no text)") from error


def _find(content: bytes) -> bytes | None:
    model = u32(content, 0)
    buffers, metadata = field(content, model, 4), field(content, model, 6)
    if buffers is None or metadata is None:
        return None
    for entry in tables(content, metadata):
        name, number = field(content, entry, 0), field(content, entry, 1)
        if name is None or number is None or vector(content, name) != METADATA_NAME.encode():
            continue
        data = field(content, tables(content, buffers)[u32(content, number)], 0)
        return None if data is None else vector(content, data)
    return None
