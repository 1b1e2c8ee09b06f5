"""Fuzzing in Python: seeded damage for as long as is asked, each case its own seed, which a failure names.

`EDGELSTM_FUZZ_SECONDS` sets the seconds of each fuzzer; `make fuzz` gives each ten minutes. `EDGELSTM_FUZZ_SEED` begins
elsewhere, so that a failure can be seen again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest
from edgelstm.runtime.errors import EdgeLSTMError

SECONDS = float(os.environ.get("EDGELSTM_FUZZ_SECONDS", "3"))
FIRST = int(os.environ.get("EDGELSTM_FUZZ_SEED", "0"))
_EDGES = (0, 1, 9, 10, 13, 34, 45, 48, 57, 91, 92, 123, 125, 127, 128, 254, 255)
_WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 0x7FC00000, 0x7F800000)
_LEAST = 20  # Cases, however slow the machine.


def fuzz(case: Callable[[np.random.Generator], object]) -> int:
    """Call a case with one seed after another; how many of them were taken for good.

    Whatever it raises that is no error of ours fails the test.
    """
    end, seed, good = time.monotonic() + SECONDS, FIRST, 0
    while time.monotonic() < end or seed < FIRST + _LEAST:
        try:
            case(np.random.default_rng(seed))
            good += 1
        except EdgeLSTMError:
            pass
        except Exception as error:
            pytest.fail(f"EDGELSTM_FUZZ_SEED={seed}: {type(error).__name__}: {str(error)[:500]}")
        seed += 1
    print(f"{seed - FIRST} cases, {good} of them good")
    return good


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes or words changed, or a piece cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 4, 16]))):
        at, kind = int(rng.integers(len(data) + 1)), int(rng.integers(8))
        size = int(rng.choice([1, 2, 4, 8, 64]))
        if kind <= 2:
            data[at : at + 1] = bytes([int(rng.choice(_EDGES) if kind else rng.integers(256))])
        elif kind == 3:
            data[at : at + 4] = int(rng.choice(_WORDS)).to_bytes(4, "little")
        elif kind == 4:
            del data[at : at + size]
        elif kind == 5:
            data[at:at] = data[at : at + size]
        elif kind == 6:
            other = int(rng.integers(len(data) + 1))
            data[at : at + size] = data[other : other + size]
        elif rng.integers(8) == 0:
            del data[at:]
    return bytes(data)


# What stands in for any value of a JSON text.
VALUES = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30, "", "x",
    "native", "../x", "\ud800", "\x1b[2J", "a\0b", "x" * 5000, [], [[]], {}, {"a": 1}, [None], [1, 2],
)  # fmt: skip


def rearranged(value: object, rng: np.random.Generator) -> object:
    """Parsed JSON with one value in it, at any depth, changed, taken away, doubled or put elsewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        found, key = dict(value), list(value)[int(rng.integers(len(value)))]
        kind = int(rng.integers(10))
        if kind == 0:
            del found[key]
        elif kind == 1:
            found[f"{key}x"] = found[key]
        elif kind == 2:
            found[key] = found[list(found)[int(rng.integers(len(found)))]]
        else:
            found[key] = rearranged(found[key], rng)
        return found
    if isinstance(value, list) and value and rng.random() < 0.9:
        items, at = list(value), int(rng.integers(len(value)))
        if rng.integers(6) == 0:
            items.append(items[at])
        else:
            items[at] = rearranged(items[at], rng)
        return items
    return VALUES[int(rng.integers(len(VALUES)))]
