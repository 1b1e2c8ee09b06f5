"""Networks as TFLite files, written operator by operator."""

from .graph import INTEGER_PRECISIONS, tflite_sequence_graph, tflite_step_graph

__all__ = ["INTEGER_PRECISIONS", "tflite_sequence_graph", "tflite_step_graph"]
