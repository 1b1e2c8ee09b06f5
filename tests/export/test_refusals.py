"""What is refused is refused by name, for a true reason, and what the error advises has been done here."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import UnsupportedModelError, load

from tests.export.interpreters import snr_db
from tests.export.refused import REFUSED, inputs

HINT = "--window T"


def refusal(name: str) -> tuple[object, str]:
    model = REFUSED[name].build()
    with pytest.raises(UnsupportedModelError) as raised:
        read_keras(model)
    return model, str(raised.value)


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_is_named_with_a_remedy(name):
    _, message = refusal(name)
    for word in REFUSED[name].words:
        assert word in message
    assert REFUSED[name].remedies or HINT in message


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in REFUSED.items() if case.remedies])
def test_the_remedy_works(name):
    model, _ = refusal(name)
    for remedy in REFUSED[name].remedies:
        remedy(model)


# Of these layers test_by_window.py has every window, in both formats.
HELD_ELSEWHERE = {
    "attention", "bidirectional", "convolution", "decoder_after_encoder", "embedding", "encoder_decoder", "flatten",
    "frames", "images", "one_long_vector", "reshape",
}  # fmt: skip


# Making a window graph takes seconds, so each is made in one format, where that has it.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REFUSED if name not in HELD_ELSEWHERE])
def test_a_stream_by_window_where_one_is_advised(name, tmp_path):
    model, message = refusal(name)
    if HINT not in message:
        return
    shape = model.inputs[0].shape
    window = shape[1] or 12
    order = ("tflite", "onnx") if len(name) % 2 else ("onnx", "tflite")
    left: list[str] = []
    try:
        export(model, tmp_path / "x.edge", order[:1], window=window, left_out=lambda _, reason: left.append(reason))
    except UnsupportedModelError:
        if not left:
            raise
        assert "leave this format out" in left[0]
        export(model, tmp_path / "x.edge", order[1:], window=window)
    loaded = load(tmp_path / "x.edge")
    rows = inputs(len(loaded.features), window + 2)
    if loaded.ids is not None:
        rows = np.arange(window + 2, dtype=np.float32)[:, None] % loaded.ids
    windows = np.stack([rows[t : t + window] for t in range(3)]).reshape(3, *(shape[1:] if shape[1] else (window, -1)))
    want = np.concatenate(
        [np.asarray(model(np.repeat(x[None], shape[0] or 1, 0), training=False))[:1] for x in windows]
    )
    found = loaded.stream().run(rows)
    assert snr_db(found.reshape(want.shape), want) >= 100
