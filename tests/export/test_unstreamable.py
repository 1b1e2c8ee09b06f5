"""Models that cannot be streamed: sequence graphs by others' converters, replayed against Keras all the same."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.export import export
from edgelstm.runtime import BundleError, UnsupportedModelError, load

from tests.export.interpreters import litert_sequence


@pytest.mark.slow
@pytest.mark.parametrize("stateful", [False, True])
def test_bidirectional_as_a_sequence_graph(tmp_path, stateful):
    import keras

    keras.utils.set_random_seed(0)
    layer = keras.layers.LSTM(5, return_sequences=True, stateful=stateful)
    shape = {"batch_shape": (1, 20, 3)} if stateful else {"shape": (20, 3)}
    model = keras.Sequential([keras.Input(**shape), keras.layers.Bidirectional(layer), keras.layers.Dense(2)])
    with pytest.raises(UnsupportedModelError, match=r"Bidirectional.*sequence"):
        export(model, tmp_path / "x.edge")
    bundle = export(model, tmp_path / "x.edge", graphs=["sequence"])
    assert bundle.manifest.streaming is None
    assert {a.format for a in bundle.manifest.artifacts} == {"tflite", "onnx"}
    with pytest.raises(BundleError, match="cannot be streamed"):
        load(bundle.path)
    x = np.random.default_rng(1).standard_normal((20, 3)).astype(np.float32)
    content = next(bundle.read(a) for a in bundle.manifest.artifacts if a.format == "tflite")
    for part in model.layers:
        if stateful and hasattr(part, "reset_state"):
            part.reset_state()
    want = np.array(model(x[None]))
    for _ in range(2):
        np.testing.assert_allclose(litert_sequence(content, x), want, atol=2e-6)
