"""Networks as ONNX files."""

from .graph import int8_products, onnx_step_graph

__all__ = ["int8_products", "onnx_step_graph"]
