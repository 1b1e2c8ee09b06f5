"""A Keras file on disk, a bundle of it, and the command line called within this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from edgelstm.toolkit.cli import main

FEATURES, OUTPUTS = 3, 2


@dataclass(frozen=True)
class Done:
    """What became of a call: exit status and what was printed."""

    status: int
    out: str
    err: str


def call(*arguments: object, main: Callable[[list[str]], int] = main) -> Done:
    """`edgelstm ARGUMENTS`. Whatever is not an error of the command line comes out as an exception."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory) -> Path:
    import keras

    from tests.zoo import with_large_weights

    keras.utils.set_random_seed(2024)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            layers.LSTM(24, return_sequences=True, name="lstm"),
            layers.LSTM(16, return_sequences=True, name="top"),
            layers.Dense(OUTPUTS),
        ]
    )
    path = tmp_path_factory.mktemp("keras") / "pump.keras"
    with_large_weights(model).save(path)
    return path


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """A recording as CSV, its columns in another order than the model's and with one more."""
    path = tmp_path_factory.mktemp("data") / "recorded.csv"
    rows = np.random.default_rng(4).standard_normal((600, 4)).round(4)
    path.write_text("c,note,b,a\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def bundle(keras_file, recorded, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "pump.edge"
    done = call(
        *("export", keras_file, "-o", path, "--precision", "all", "--graph", "step,sequence"),
        *("--calibration", recorded, "--features", "a,b,c", "--outputs", "u,v", "--window", 20, "--carry"),
    )
    assert done.status == 0, done.err
    return path
