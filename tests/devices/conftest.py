"""Boards of every kind, wheels for them, and what is deployed."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from edgelstm.export import export

from tests import wheel
from tests.devices.boards import DIST, EMULATED, started
from tests.engine.models import network

NAME = "LSTM 8 32 32 4"
KINDS = ["here", *(pytest.param(kind, marks=pytest.mark.devices) for kind in EMULATED)]  # See also `boards.on`.


@pytest.fixture(params=KINDS)
def kind(request):
    """This machine, or the architecture of an emulated one."""
    return request.param


@pytest.fixture(scope="module")
def own_wheel(tmp_path_factory):
    """A wheel for this machine."""
    return wheel.own_wheel(tmp_path_factory)


@pytest.fixture
def wheels(kind, request):
    """A folder with a wheel for the board."""
    return request.getfixturevalue("own_wheel").parent if kind == "here" else DIST


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two models of one name, and one that does not compute what its golden vectors say."""
    folder = tmp_path_factory.mktemp("bundles")
    first = export(network(NAME), folder / "first.edge", ["native"], ["float32", "int8"], name="pump").path
    second = export(network(NAME), folder / "second.edge", ["native"], ["float16"], name="pump").path
    wrong = folder / "wrong.edge"
    _falsify(first, wrong)
    return {"first": first, "second": second, "wrong": wrong}


def _falsify(source, to):
    """As if the board's arithmetic were broken: the golden outputs are other ones, and the manifest says so."""
    import hashlib
    import io

    with zipfile.ZipFile(source) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    golden = dict(np.load(io.BytesIO(content["golden.npz"])))
    golden["outputs"] = golden["outputs"] + np.float32(0.01)
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    content["golden.npz"] = buffer.getvalue()
    manifest = json.loads(content["manifest.json"])
    manifest["golden"] |= {"size": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    content["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.fixture
def board(kind, tmp_path):
    with started(kind, tmp_path / "board") as running:
        yield running
