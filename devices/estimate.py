"""What a model needs of a device: instructions a step, and from them an estimate of its time."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..runtime import elm


@dataclass(frozen=True)
class Work:
    """What a step does.

    Attributes:
        weights: that it multiplies by.
        units: of recurrent layers, whose gates it computes.
        precision: of the largest matrix.
    """

    weights: int
    units: int
    precision: str


@dataclass(frozen=True)
class Cost:
    """Instructions that a core takes, counted under emulation, and the engine's code for it.

    Attributes:
        per_step: whatever the model.
        per_weight: for each weight.
        per_unit: for each unit of a recurrent layer.
        error: the largest relative error of these three among the models that were counted.
        code: bytes of the engine.
        basis: compiler and emulator.
    """

    per_step: float
    per_weight: float
    per_unit: float
    error: float
    code: int
    basis: str

    def instructions(self, work: Work) -> int:
        """Instructions of a step."""
        return round(self.per_step + self.per_weight * work.weights + self.per_unit * work.units)


def work_of(content: bytes) -> Work:
    """What a step of an `.elm` file does."""
    layers = elm.HEADER.unpack_from(content)[4]
    weights, units, largest, precision = 0, 0, -1, "float32"
    for i in range(layers):
        record = elm.RECORD.unpack_from(content, elm.HEADER.size + i * elm.RECORD.size)
        kind, inputs, width, stored = record[:4]
        if kind > elm.DENSE:
            continue
        shapes = elm.shapes_of(kind, inputs, width, elm.PRECISIONS[stored])
        here = sum(shape.gates * shape.units * (shape.a + shape.b) for shape in shapes)
        weights += here
        units += width if kind <= elm.SIMPLE_RNN else 0
        if here > largest:
            largest, precision = here, elm.PRECISIONS[stored]
    return Work(weights, units, precision)


def cost(core: str, precision: str) -> Cost | None:
    """What a core takes, or None where it was not counted."""
    table = _table().get(core)
    if table is None or precision not in table:
        return None
    return Cost(**table[precision], basis=f"{table['compiler']}; {table['emulator']}")


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files("edgelstm.devices") / "instructions.toml").read_text(encoding="utf-8"))
