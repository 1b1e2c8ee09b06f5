"""Every model in a test has its weights from a seed: with others, a test would pass or fail by chance.

An initialiser or a Dropout of Keras without a seed of its own draws one from Python's generator when its layer is made.
`install` lets that happen only while the function that last called `keras.utils.set_random_seed` runs: behind its end
the weights would depend on whatever has been called since. Layers that the package itself makes while it reads,
converts or trains a model are its own affair, and what Keras loads from a file gets its weights from there.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import CodeType, FrameType

import pytest

ROOT = Path(__file__).parents[1]
TESTS = Path(__file__).parent
_DRAWS, _SEEDS = "keras.src.random.seed_generator", "keras.src.utils.rng_utils"


class UnseededError(AssertionError):
    """A test makes a layer whose weights are others each time."""


def install(patch: pytest.MonkeyPatch) -> None:
    """Watch over Python's generator, so that nothing has to be imported for it."""
    seeded: list[CodeType] = []
    draw, seed = random.randint, random.seed

    def watched_draw(a: int, b: int) -> int:
        asks = sys._getframe(1)
        if asks.f_globals.get("__name__") == _DRAWS:
            _require_seed(asks, seeded)
        return draw(a, b)

    def watched_seed(*arguments: object) -> None:
        asks = sys._getframe(1)
        if asks.f_globals.get("__name__") == _SEEDS and asks.f_back is not None:
            seeded[:] = [asks.f_back.f_code]
        seed(*arguments)  # pyright: ignore[reportArgumentType]

    patch.setattr(random, "randint", watched_draw)
    patch.setattr(random, "seed", watched_seed)


def _require_seed(asks: FrameType, seeded: list[CodeType]) -> None:
    stack: list[FrameType] = []
    frame: FrameType | None = asks
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    for maker in stack:
        path = Path(maker.f_code.co_filename)
        if "/keras/src/saving/" in path.as_posix():
            return
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            break
    else:
        return
    if path.is_relative_to(TESTS) and not any(frame.f_code in seeded for frame in stack):
        where = f"{path.relative_to(ROOT)}:{maker.f_lineno}"
        raise UnseededError(f"{where} makes a layer with random weights: call keras.utils.set_random_seed before")
