"""Networks as ONNX files."""

from .graph import onnx_step_graph

__all__ = ["onnx_step_graph"]
