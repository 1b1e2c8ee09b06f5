"""Why a layer of Keras cannot be streamed, and what to do instead."""

from __future__ import annotations

from ...runtime.errors import UnsupportedModelError
from .call import SEQUENCE_HINT, Call

_BACKWARD = "half of it begins at the end of the sequence, so that no answer is known before the last timestep"
_WINDOW = "it looks at several timesteps at once, which a stream of single timesteps does not keep"
_ATTENTION = "it looks at the whole sequence at once, which a stream of single timesteps does not keep"
_POOL = "it makes one value of all timesteps of a sequence, and a stream has no end"
_FEWER = "it gives one value for several timesteps, and a stream gives one output per input"
_MORE = "it gives several timesteps for one, and a stream gives one output per input"
_LENGTH = "it changes how many timesteps there are, and a stream gives one output per input"
_SHAPE = "it changes the shape of the sequence, and a stream gives one output per input"
_INTEGERS = "it takes whole numbers or text, and a stream takes float features"
_SPACE = "it works on images or volumes, and a timestep is a vector of features"
_OTHER = "it is not implemented for a single timestep"

_USE_FORWARD = "train the model with the forward layer alone"
_USE_LAST = "train it with the recurrent layer's last output (return_sequences=False) in its place"
_USE_RECURRENT = "train it with recurrent and per-step layers alone"
_USE_DENSE = "train it with Dense, or Conv1D of kernel size 1, in its place"
_BEFORE = "do this outside of the model"
_WITHOUT = "train it without this layer"

REASONS: dict[str, tuple[str, str]] = {
    "Bidirectional": (_BACKWARD, _USE_FORWARD),
    **dict.fromkeys(
        ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        (
            _SPACE,
            "compute the features of each image by a model of its own, and stream LSTM, GRU or SimpleRNN over them",
        ),
    ),
    **dict.fromkeys(
        (
            "Conv1D",
            "Convolution1D",
            "SeparableConv1D",
            "DepthwiseConv1D",
            "STFTSpectrogram",
            "MelSpectrogram",
        ),
        (_WINDOW, f"{_BEFORE}, or {_USE_RECURRENT}"),
    ),
    **dict.fromkeys(("Conv1DTranspose", "Convolution1DTranspose", "UpSampling1D"), (_MORE, _USE_RECURRENT)),
    **dict.fromkeys(("ZeroPadding1D", "Cropping1D"), (_LENGTH, _WITHOUT)),
    **dict.fromkeys(
        ("MultiHeadAttention", "Attention", "AdditiveAttention", "GroupQueryAttention"), (_ATTENTION, _USE_RECURRENT)
    ),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalMaxPooling1D"), (_POOL, _USE_LAST)),
    **dict.fromkeys(
        ("AveragePooling1D", "MaxPooling1D", "AdaptiveAveragePooling1D", "AdaptiveMaxPooling1D"), (_FEWER, _WITHOUT)
    ),
    "Flatten": ("it joins all timesteps of the sequence into one vector", _USE_LAST),
    "RepeatVector": (
        "it makes a sequence of the last output, which an encoder-decoder needs and a stream does not have",
        _USE_RECURRENT,
    ),
    "Reshape": (_SHAPE, _WITHOUT),
    "Permute": ("it exchanges timesteps and features", _WITHOUT),
    **dict.fromkeys(
        (
            "Embedding",
            "CategoryEncoding",
            "Hashing",
            "HashedCrossing",
            "IntegerLookup",
            "StringLookup",
            "TextVectorization",
        ),
        (_INTEGERS, _BEFORE),
    ),
    "Discretization": ("it gives whole numbers, and a stream computes with floats", _BEFORE),
    "Lambda": (
        "it runs Python code, which cannot be read",
        "replace it by a layer of Keras such as Rescaling or Activation",
    ),
    **dict.fromkeys(
        ("UnitNormalization", "RMSNormalization", "GroupNormalization", "SpectralNormalization", "EinsumDense"),
        (_OTHER, "train it with LayerNormalization, BatchNormalization or Dense in its place"),
    ),
}
# What tf2onnx has no operator for.
_TFLITE_HINT = SEQUENCE_HINT.replace(")", " --format tflite)")
_CONVOLUTIONS = ("Conv1D", "Convolution1D", "SeparableConv1D", "DepthwiseConv1D")


def refusal(call: Call, sequence: bool = True) -> UnsupportedModelError:
    """The error for a layer that no reader takes.

    Args:
        call: the layer's.
        sequence: whether a sequence graph can be made of such a model.
    """
    import keras

    ours = type(call.layer) is getattr(keras.layers, call.kind, None)
    if not ours:
        base = next(
            (b.__name__ for b in type(call.layer).__mro__ if b is getattr(keras.layers, b.__name__, None)), None
        )
        of = f" derived from {base}" if base not in (None, "Layer") else ""
        reason, remedy = f"is a custom layer{of}, whose code cannot be read", "replace it by layers of Keras"
    else:
        reason, remedy = REASONS.get(call.kind, (_OTHER, _USE_RECURRENT))
    layer, hint = call.layer, SEQUENCE_HINT
    if ours and call.kind in _CONVOLUTIONS:
        if layer.kernel_size == (1,):  # Looks at one timestep alone, and skips some, or takes the features in groups.
            reason, remedy = (_FEWER, _WITHOUT) if layer.strides != (1,) else (_OTHER, _USE_DENSE)
        if getattr(layer, "groups", 1) != 1:
            hint = _TFLITE_HINT
    elif ours and call.kind in ("AveragePooling1D", "MaxPooling1D") and layer.strides == (1,):
        reason = _WINDOW
    elif call.kind == "Discretization":
        hint = _TFLITE_HINT
    return call.refused(reason, f"{remedy}, or {hint}" if sequence else remedy)
