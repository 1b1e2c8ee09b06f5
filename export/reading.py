"""Keras models in the form in which they can be exported: as a network whose state is carried, or as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import UnsupportedModelError
from ..runtime.network import Network
from .converters import SequenceModel, WindowModel
from .from_keras.call import NotCarriedError
from .from_keras.file import load
from .from_keras.reader import network_of

if TYPE_CHECKING:
    import keras


def read_model(
    source: str | Path | keras.Model, name: str | None = None, window: int | None = None
) -> Network | WindowModel:
    """Read a Keras model to be streamed: as a network, whose state can be carried, or else as one for windows alone.

    Args:
        source: a `.keras` or `.h5` file of Keras 2 or 3, or a `keras.Model`.
        name: what to call it; by default the file's stem or the model's name.
        window: timesteps of a window, where the model leaves their number open.

    Raises:
        InputError: there is no such file, or it is damaged or not a Keras file.
        UnsupportedModelError: the model can be streamed neither way; the message names the layer and the remedy.
    """
    loaded = load(source)
    try:
        return network_of(loaded, name)
    except NotCarriedError as refused:
        return WindowModel.of(loaded, name, window, refused)


def read_for_sequences(source: str | Path | keras.Model, name: str | None = None) -> Network | SequenceModel:
    """Read a Keras model for sequence graphs, as `read_model` does one to be streamed."""
    loaded = load(source)
    try:
        return network_of(loaded, name)
    except UnsupportedModelError:
        return SequenceModel.of(loaded, name)
