"""Keras models of any kind, by others' converters: as graphs of a whole window, or of sequences of any length."""

from .sequences import SequenceModel
from .windows import WindowModel

__all__ = ["SequenceModel", "WindowModel"]
