"""Keras models as networks, and Keras itself as the reference that their exports are proved against."""

from .reader import read_keras

__all__ = ["read_keras"]
