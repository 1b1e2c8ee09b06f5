"""What a precision costs: how much of a model's answers each of its rounded matrices loses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.backends import open_artifact
from ..runtime.golden import Golden
from ..runtime.model import replay
from ..runtime.network import Network
from ..runtime.parity import Tolerance
from ..runtime.stream import Stream
from .calibration import Calibration
from .exact import in_float64, run
from .products import Product, is_integer, is_large, products
from .rounding import round_network
from .to_tflite import INTEGER_PRECISIONS, tflite_step_graph

# Beyond so many timesteps to learn from, more of them change little.
ENOUGH_CALIBRATION = 1000
# Matrices that a message names.
_NAMED = 3


@dataclass(frozen=True)
class Cost:
    """What one matrix costs.

    Attributes:
        product: which.
        snr_db: signal-to-noise ratio in dB of the model's answers if it alone is rounded.
    """

    product: Product
    snr_db: float

    def __str__(self) -> str:
        return f"{self.product} {self.snr_db:.1f} dB"


def costs(
    network: Network,
    format_: str,
    precision: str,
    calibration: Calibration | None,
    golden: Golden,
    tolerance: Tolerance,
) -> list[Cost]:
    """What each matrix that a precision rounds to int8 costs, the worst first; none where it rounds none.

    Args:
        network: what was exported.
        format_: `tflite`, `onnx` or `native`.
        precision: of the artifact.
        calibration: what it was made with.
        golden: inputs, and Keras's answers to them.
        tolerance: how these are compared.
    """
    found: list[Cost] = []
    for product in _rounded(network, format_, precision):
        if precision in INTEGER_PRECISIONS and format_ == "tflite":
            got = _integer_alone(network, precision, calibration, golden, product)
        else:
            rounded = round_network(network, [product], format_ != "tflite", calibration)
            rows = run(in_float64(rounded), list(golden.sequences() if golden.window is None else golden.windows()))
            got = np.concatenate(rows if golden.window is None else [row[-1:] for row in rows])
        found.append(Cost(product, tolerance.compare(got, golden.outputs).snr_db))
    return sorted(found, key=lambda cost: cost.snr_db)


def in_words(found: list[Cost], calibration: Calibration | None) -> str:
    """What a list of costs tells, in a sentence; empty where there is nothing to tell."""
    if not found:
        return ""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    said = f"rounded alone, each matrix would leave: {', '.join(map(str, found[:_NAMED]))}{more}"
    if calibration is None:
        return said
    count = calibration.of(found[0].product).count
    if count < ENOUGH_CALIBRATION:
        said += f"; only {count} timesteps of the calibration data were there to learn from, give some thousands"
    return said


def _rounded(network: Network, format_: str, precision: str) -> list[Product]:
    if format_ == "onnx":
        from .to_onnx import int8_products

        return list(int8_products(network)) if precision == "dynamic" else []
    if format_ == "native":
        return (
            [p for layer in network.layers if is_large(layer) for p in products(layer)] if precision == "int8" else []
        )
    if precision not in ("dynamic", *INTEGER_PRECISIONS):
        return []
    return [product for layer in network.layers for product in products(layer) if is_integer(product)]


def _integer_alone(
    network: Network, precision: str, calibration: Calibration | None, golden: Golden, product: Product
) -> npt.NDArray[np.float32]:
    """The answers of a TFLite file in which this product alone is integer."""
    content = tflite_step_graph(network, precision, {}, calibration, integer=lambda other: other.key == product.key)
    opened = open_artifact("tflite", content, network.name)
    return replay(Stream(opened, b"", network.name, golden.window), golden)
