"""HDF5 files that the HDF5 library itself dies of."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from edgelstm.export import read_keras
from edgelstm.export.from_keras import hdf5_trial
from edgelstm.runtime import InputError

# Three bytes changed in what Keras 3 saved: HDF5 1.14 reads an attribute beyond its memory.
KILLS = Path(__file__).with_name("kills_hdf5.h5")
WHOLE = Path(__file__).parents[1] / "export" / "keras2" / "gru_and_activation_layers.h5"


def test_a_file_that_the_library_dies_of(tmp_path):
    path = Path(shutil.copy(KILLS, tmp_path / "m.h5"))
    with pytest.raises(InputError, match=r"m\.h5: is damaged") as raised:  # Whatever a later library makes of it.
        read_keras(path)
    print(raised.value)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGXCPU])
def test_its_death_is_said(monkeypatch, number):
    monkeypatch.setattr(hdf5_trial, "_read_all", lambda _: os.kill(os.getpid(), number))
    words = rf"the HDF5 library died of it \({number.name}\), in a process of its own"
    with pytest.raises(InputError, match=words):
        read_keras(WHOLE)


def test_what_can_be_read_is_read_to_the_end(monkeypatch, tmp_path):
    """The child reads every attribute and every number, and writes nothing."""
    done = tmp_path / "done"
    real = hdf5_trial._read_all
    monkeypatch.setattr(hdf5_trial, "_read_all", lambda weights: (real(weights), done.touch()))
    before = WHOLE.read_bytes()
    hdf5_trial.survive(WHOLE, WHOLE)
    assert done.exists()
    assert WHOLE.read_bytes() == before


def test_one_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(hdf5_trial, "_TIMEOUT", 0.2)
    monkeypatch.setattr(hdf5_trial, "_read_all", lambda _: signal.pause())
    with pytest.raises(InputError, match=r"never came to an end"):
        read_keras(WHOLE)
