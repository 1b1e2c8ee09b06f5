"""The zoo's models, exported in everything that there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgelstm.export import export
from edgelstm.runtime import Bundle
from edgelstm.runtime.parity import TOLERANCES

from tests.once import once
from tests.zoo import DISCONTINUOUS, zoo_inputs, zoo_model


def zoo_bundle(factory: pytest.TempPathFactory, name: str) -> Bundle:
    """A model in every format, graph and precision; made once for all tests of a run."""

    def make(folder: Path) -> None:
        # Where one bit decides over a jump, quantisation cannot follow; only float32 is promised there.
        precisions = ["float32"] if name in DISCONTINUOUS else list(TOLERANCES)
        export(
            zoo_model(name),
            folder / f"{name}.edge",
            precisions=precisions,
            graphs=["step", "sequence"],
            calibration=np.stack([zoo_inputs(name, 400, 100 + i) for i in range(8)]),
            carry=True,  # Windows have tests of their own.
        )

    return Bundle.open(once(factory, name, make) / f"{name}.edge")
