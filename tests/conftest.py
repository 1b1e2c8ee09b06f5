"""What holds for every test."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests import seeding


@pytest.fixture(scope="session", autouse=True)
def every_model_is_seeded() -> Generator[None]:
    """Whatever else has fixtures: this one is set up first."""
    with pytest.MonkeyPatch.context() as patch:
        seeding.install(patch)
        yield
