"""What a model needs on a device, worked out as the engine does (`engine/model.c`, `state.c`, `window.c`)."""

from __future__ import annotations

from . import elm
from .streaming import Window

_HEADER, _STREAM, _LAYER = 128, 64, {4: 72, 8: 104}
_WINDOWS_HEADER, _PLACE = 64, 32
# Streams that go through a layer together and need room to work in, at the most: EDGELSTM_TILE.
TILE = 48
# That of a C folder of a model that streams by window: each block of weights is read once for so many of them, on
# little stack.
C_TILE = 4


def state_bytes(content: bytes, streams: int = 1, pointer: int = 8, tile: int = TILE) -> int:
    """Bytes of memory that `edgelstm_state_size` asks for.

    Args:
        content: an `.elm` file.
        streams: how many.
        pointer: bytes of a pointer on the device, 4 or 8.
        tile: what the engine was built for as EDGELSTM_TILE.
    """
    header = elm.HEADER.unpack_from(content)
    layers, features = header[4], header[5]
    row, gates, digits, floats = _padded(features, 16), 0, 0, 0
    for i in range(layers):
        kind, inputs, units, precision = elm.RECORD.unpack_from(content, elm.HEADER.size + i * elm.RECORD.size)[:4]
        width = _padded(units, 16)
        row = max(row, width)
        if elm.PRECISIONS[precision] == "int8":
            digits = max(digits, _padded(inputs, 32), _padded(units, 32))
        if kind <= elm.SIMPLE_RNN:
            gates = max(gates, width * (4 if kind == elm.LSTM_KIND else 6))
            floats += width * (3 if kind == elm.LSTM_KIND else 2)
    work = 8 * row + 4 * gates + 4 * digits
    plan = _padded(layers * _LAYER[pointer], 64)
    return _HEADER + plan + min(streams, tile) * work + streams * (_STREAM + 4 * floats)


def windows_bytes(content: bytes, window: Window, streams: int = 1, pointer: int = 8, tile: int = TILE) -> int:
    """Bytes of memory that `edgelstm_windows_size` asks for: a state for each window in flight of each stream.

    Args:
        content: an `.elm` file.
        window: how the streams answer.
        streams: how many.
        pointer: bytes of a pointer on the device, 4 or 8.
        tile: what the engine was built for as EDGELSTM_TILE.
    """
    states = state_bytes(content, streams * window.in_flight, pointer, tile)
    return _WINDOWS_HEADER + _padded(streams * _PLACE, 64) + states


def c_tile(window: Window | None) -> int:
    """EDGELSTM_TILE of a C folder, which serves a single stream; `window` is None where it carries its state on."""
    return 1 if window is None else min(window.in_flight, C_TILE)


def stream_bytes(content: bytes, window: Window | None, pointer: int = 8, tile: int = TILE) -> int:
    """Bytes of memory of one stream, by window or with its state carried on; see `state_bytes`."""
    if window is None:
        return state_bytes(content, 1, pointer, tile)
    return windows_bytes(content, window, 1, pointer, tile)


def _padded(n: int, to: int) -> int:
    return -(-n // to) * to
