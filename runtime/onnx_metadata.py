"""What EdgeLSTM writes into its `.onnx` files beside the graph, and how it knows that they are whole.

A damaged file of weights still loads and computes something else, so each carries a checksum of itself.
"""

from __future__ import annotations

from .errors import BundleError
from .tflite_metadata import CHECKSUM_PLACEHOLDER, checksum

CHECKSUM_KEY = "edgelstm_crc32"

# "exact": a chunk of timesteps gives what its steps give; "stepwise": take them one by one.
CHUNKS_KEY = "edgelstm_chunks"

# The key as ONNX's protobuf stores it (https://onnx.ai, `StringStringEntryProto`), up to the eight digits.
_BEFORE = CHECKSUM_KEY.encode() + bytes((0x12, len(CHECKSUM_PLACEHOLDER)))


def seal(content: bytes) -> bytes:
    """A file that holds a placeholder under `CHECKSUM_KEY`, with its checksum in the placeholder's place."""
    at = content.rindex(_BEFORE) + len(_BEFORE)
    return content[:at] + checksum(content, at) + content[at + len(CHECKSUM_PLACEHOLDER) :]


def check_seal(content: bytes, source: str) -> None:
    """Raise `BundleError` unless the content is that of a whole file that EdgeLSTM wrote."""
    found = content.rfind(_BEFORE)
    if found < 0:
        raise BundleError(
            f"{source}: was not written by EdgeLSTM, or is damaged; export the Keras model with `edgelstm export`"
        )
    at = found + len(_BEFORE)
    if content[at : at + len(CHECKSUM_PLACEHOLDER)] != checksum(content, at):
        raise BundleError(
            f"{source}: damaged, or changed after it was exported (its checksum differs); copy or export it again"
        )
