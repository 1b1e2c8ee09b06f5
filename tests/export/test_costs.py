"""What an export that falls short says: which matrix costs how much, measured in Keras itself, and what would help."""

from __future__ import annotations

import re

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import Bundle, ParityError

from .interpreters import snr_db

RNG = np.random.default_rng(11)


def two_layers(cell: str, activation: str = "tanh"):
    import keras

    keras.utils.set_random_seed(21)
    layers = keras.layers
    first = getattr(layers, cell)(24, return_sequences=True, activation=activation, name="first")
    second = layers.LSTM(20, return_sequences=True, name="second")
    return keras.Sequential([keras.Input((None, 6)), first, second, layers.Dense(2, name="small")])


def refusal(tmp_path, model, **options) -> str:
    with pytest.raises(ParityError) as raised:
        export(model, tmp_path / "x.edge", **options)
    assert not list(tmp_path.iterdir())
    return str(raised.value)


def said(message: str) -> dict[str, float]:
    """By a layer's name what its matrix is said to cost."""
    return {name: float(db) for name, db in re.findall(r"of layer '(\w+)' (-?[\d.]+) dB", message)}


@pytest.mark.slow
def test_each_matrix_costs_what_keras_loses_with_it_rounded(tmp_path):
    """Kernels of an LSTM, one below the other, in steps of each column's 127th part, put back into Keras."""
    model = two_layers("LSTM")
    message = refusal(tmp_path, model, formats=["tflite"], precisions=["dynamic"], min_snr=90)
    bundle = export(model, tmp_path / "float.edge", formats=["native"])
    golden, found = bundle.golden(), said(message)
    assert set(found) == {"first", "second"}
    assert list(found.values()) == sorted(found.values())
    for name, cost in found.items():
        layer = model.get_layer(name)
        exact = layer.get_weights()
        kernel, recurrent, bias = exact
        whole = np.concatenate([kernel, recurrent])
        step = np.abs(whole).max(0) / 127
        rounded = np.rint(whole / step) * step
        layer.set_weights([rounded[: len(kernel)], rounded[len(kernel) :], bias])
        reference = read_keras(model).reference  # Keras itself.
        answers = np.concatenate([reference(xs) for xs in golden.sequences()])
        layer.set_weights(exact)
        assert snr_db(answers, golden.outputs) == pytest.approx(cost, abs=1.5)  # On a part of what it was measured on.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "precision", "help_"),
    [("tflite", "int8", "int16x8"), ("native", "int8", None), ("onnx", "dynamic", "float16")],
)
def test_the_precision_that_would_pass_does(tmp_path, format_, precision, help_):
    model, calibration = two_layers("GRU"), RNG.standard_normal((4, 400, 6)).astype(np.float32)
    given = {"formats": [format_], "calibration": calibration, "min_snr": 58}
    message = refusal(tmp_path, model, precisions=[precision], **given)
    assert "of layer 'first'" in message
    assert "layer 'small'" not in message  # Too small to be rounded.
    found = re.search(r"in (\w+) it would pass, with ([\d.]+) dB", message)
    assert found is not None
    assert help_ in (None, found[1])
    bundle = export(model, tmp_path / "x.edge", precisions=[found[1]], **given)
    artifact = next(a for a in bundle.manifest.artifacts if a.precision == found[1])
    assert artifact.parity.snr_db == pytest.approx(float(found[2]), abs=0.06)


@pytest.mark.slow
def test_what_passes_needs_no_explanation(tmp_path):
    results = []
    bundle = export(
        two_layers("GRU"),
        tmp_path / "x.edge",
        ["tflite"],
        ["float32", "dynamic"],
        min_snr=90,
        keep_going=True,
        report=results.append,
    )
    assert isinstance(bundle, Bundle)
    assert [bool(result.explanation) for result in results] == [not result.passed for result in results]
    assert not all(result.passed for result in results)
