"""Loading Keras models: from a file of Keras 2 or 3, or as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A Keras model and where it comes from.

    Attributes:
        model: the `keras.Model`.
        name: the file's stem, or the model's own name.
        path: the file, if it was one.
        keras_version: the version of Keras that wrote it.
    """

    model: Any
    name: str
    path: Path | None
    keras_version: str


def load(source: Any) -> LoadedModel:
    """Load."""
    import keras

    if isinstance(source, keras.Model):
        return LoadedModel(source, source.name, None, keras.__version__)
    path = Path(source)
    return LoadedModel(keras.models.load_model(path, compile=False), path.stem, path, keras.__version__)
