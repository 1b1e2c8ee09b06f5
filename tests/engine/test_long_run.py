"""Ten million steps: no drift away from double precision, no growth in memory."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.runtime.network import LSTM

from tests.engine.models import network, write
from tests.engine.toolchain import HERE, compile_engine, link, require, run

STEPS = 10_000_000


@pytest.mark.engine
def test_ten_million_steps_neither_drift_nor_grow(tmp_path):
    require("gcc")
    name = "LSTM 8 32 32 4"
    layers = network(name).layers
    units = [layer.units for layer in layers if isinstance(layer, LSTM)]
    shape = np.array([len(units), network(name).features, *units, network(name).outputs], np.uint32)
    weights = tmp_path / "weights.bin"
    with weights.open("wb") as file:
        file.write(shape.tobytes())
        for layer in layers:
            if isinstance(layer, LSTM):
                file.write(layer.kernel.tobytes() + layer.recurrent_kernel.tobytes() + layer.bias.tobytes())
            else:
                file.write(layer.kernel.tobytes() + layer.bias.tobytes())
    left_out = ("-DEDGELSTM_NO_INT8", "-DEDGELSTM_NO_FLOAT16", "-DEDGELSTM_NO_FUNCTIONS")
    objects = compile_engine(tmp_path, "gcc", "-O3", *left_out)
    # The reference may be fast and loose: in double precision that makes no difference here.
    program = link(
        tmp_path / "check_drift", "gcc", HERE / "check_drift.c", objects, "-O3", "-march=native", "-ffast-math"
    )
    model, _, _ = write(tmp_path, name, "float32", 10)
    difference, growth = map(float, run(program, model, weights, STEPS).split())
    assert difference < 1e-5
    assert growth < 256  # As far as the system's own count is off; a byte for every step would be 8,800.
