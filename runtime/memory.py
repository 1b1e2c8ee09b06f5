"""What a model needs on a device, worked out as the engine does (`engine/model.c`, `engine/state.c`)."""

from __future__ import annotations

from . import elm

_HEADER, _STREAM, _LAYER = 128, 64, {4: 72, 8: 104}


def state_bytes(content: bytes, streams: int = 1, pointer: int = 8) -> int:
    """Bytes of memory that `edgelstm_state_size` asks for.

    Args:
        content: an `.elm` file.
        streams: how many, up to 48 of which go through a layer together and need room to work in.
        pointer: bytes of a pointer on the device, 4 or 8.
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
    return _HEADER + plan + min(streams, 48) * work + streams * (_STREAM + 4 * floats)


def _padded(n: int, to: int) -> int:
    return -(-n // to) * to
