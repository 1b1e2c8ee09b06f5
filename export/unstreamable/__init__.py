"""Models that cannot be streamed, as sequence graphs by TensorFlow's converter and tf2onnx."""

from .model import UnstreamableModel

__all__ = ["UnstreamableModel"]
