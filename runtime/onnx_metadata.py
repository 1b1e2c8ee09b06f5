"""What EdgeLSTM writes into its `.onnx` files beside the graph, and how it knows that they are whole.

A damaged file of weights still loads and computes something else, so each carries a checksum of itself.
"""

from __future__ import annotations

from .errors import BundleError
from .tflite_metadata import CHECKSUM_PLACEHOLDER as _PLACEHOLDER
from .tflite_metadata import checksum

CHECKSUM_KEY, CHECKSUM_PLACEHOLDER = "edgelstm_crc32", _PLACEHOLDER.decode()

# How to run many timesteps: "whole", as one sequence, or "stepwise", where that would give other numbers.
CHUNKS_KEY = "edgelstm_chunks"

# The key as ONNX's protobuf stores it (https://onnx.ai, `StringStringEntryProto`), up to the eight digits.
_BEFORE = CHECKSUM_KEY.encode() + bytes((0x12, len(_PLACEHOLDER)))


def seal(content: bytes) -> bytes:
    """A file that holds a placeholder under `CHECKSUM_KEY`, with its checksum in the placeholder's place."""
    at = content.rindex(_BEFORE) + len(_BEFORE)
    return content[:at] + checksum(content, at) + content[at + len(_PLACEHOLDER) :]


def check_seal(content: bytes, source: str) -> None:
    """Raise `BundleError` unless the content is that of a whole file that EdgeLSTM wrote."""
    found = content.rfind(_BEFORE)
    if found < 0:
        raise BundleError(
            f"{source}: was not written by EdgeLSTM, or is damaged; export the Keras model with `edgelstm export`"
        )
    at = found + len(_BEFORE)
    if content[at : at + len(_PLACEHOLDER)] != checksum(content, at):
        raise BundleError(
            f"{source}: damaged, or changed after it was exported (its checksum differs); copy or export it again"
        )
