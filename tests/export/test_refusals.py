"""What is refused is refused by name, for a true reason, and what the error advises has been done here."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import UnsupportedModelError

from tests.export.interpreters import litert_sequence, snr_db
from tests.export.refused import REFUSED, inputs

HINT = "--graph sequence"


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


# Making a sequence graph takes seconds, so each is made in one format: the converters' own tests have both.
@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_sequence_graph_where_one_is_advised(name, tmp_path):
    model, message = refusal(name)
    if HINT not in message:
        return
    made = "tflite" if f"{HINT} --format tflite" in message or len(name) % 2 else "onnx"
    bundle = export(model, tmp_path / "x.edge", [made], graphs=["sequence"])
    x = inputs(model.inputs[0].shape[-1], model.inputs[0].shape[1])
    batch = np.repeat(x[None], model.inputs[0].shape[0] or 1, axis=0)
    want = np.asarray(model(batch, training=False))[:1]
    content = bundle.read(bundle.manifest.artifacts[0])
    if made == "tflite":
        found = litert_sequence(content, x)
    else:
        found = onnxruntime.InferenceSession(content).run(["y"], {"x": x[None]})[0]
    assert snr_db(found.reshape(want.shape), want) >= 80
