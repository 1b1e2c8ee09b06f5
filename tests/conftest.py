"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests import seeding

# A worker for each core: threads of TensorFlow and OpenBLAS beyond these wait for each other, and count as work.
for _threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# What takes longest begins first, or one worker would still be busy with it when the other has nothing left.
LONGEST = [
    "tests/export/test_zoo.py",
    "tests/devices/test_deploy.py",
    "tests/toolkit/test_train.py",
    "tests/toolkit/test_export_command.py",
    "tests/export/test_read_keras.py",
    "tests/export/test_sequence_graph.py",
    "tests/toolkit/test_check_commands.py",
    "tests/engine/test_kernels.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def every_model_is_seeded() -> Generator[None]:
    """Whatever else has fixtures: this one is set up first."""
    with pytest.MonkeyPatch.context() as patch:
        seeding.install(patch)
        yield
