"""Why a layer of Keras cannot be streamed, and what to do instead."""

from __future__ import annotations

from ...runtime.errors import UnsupportedModelError
from .chain import SEQUENCE_HINT, Call

_FUTURE = "an output of it needs inputs from the future"
_WINDOW = "it looks at several timesteps at once, which a stream of single timesteps does not keep"
_POOL = "it sums up all timesteps of a sequence, and a stream has no end"
_SHAPE = "it changes the shape of the sequence, and a stream gives one output per input"
_INTEGERS = "it takes whole numbers or text, and a stream takes float features"
_SPACE = "it works on images or volumes, and a timestep is a vector of features"
_OTHER = "it is not implemented for a single timestep"

_USE_FORWARD = "train the model with the forward layer alone"
_USE_LAST = "take the recurrent layer's last output (return_sequences=False)"
_USE_RECURRENT = "use recurrent and per-step layers alone"
_BEFORE = "do this outside of the model"

_REASONS: dict[str, tuple[str, str]] = {
    "Bidirectional": (_FUTURE, _USE_FORWARD),
    "ConvLSTM1D": (_SPACE, _USE_RECURRENT),
    "ConvLSTM2D": (_SPACE, _USE_RECURRENT),
    "ConvLSTM3D": (_SPACE, _USE_RECURRENT),
    **dict.fromkeys(
        (
            "Conv1D",
            "Conv1DTranspose",
            "Convolution1D",
            "Convolution1DTranspose",
            "SeparableConv1D",
            "DepthwiseConv1D",
            "ZeroPadding1D",
            "Cropping1D",
            "UpSampling1D",
            "STFTSpectrogram",
            "MelSpectrogram",
        ),
        (_WINDOW, f"{_BEFORE} or {_USE_RECURRENT}"),
    ),
    **dict.fromkeys(
        ("MultiHeadAttention", "Attention", "AdditiveAttention", "GroupQueryAttention"), (_WINDOW, _USE_RECURRENT)
    ),
    **dict.fromkeys(
        (
            "GlobalAveragePooling1D",
            "GlobalMaxPooling1D",
            "AveragePooling1D",
            "MaxPooling1D",
            "AdaptiveAveragePooling1D",
            "AdaptiveMaxPooling1D",
        ),
        (_POOL, _USE_LAST),
    ),
    "Flatten": ("it joins all timesteps of the sequence into one vector", _USE_LAST),
    "RepeatVector": (
        "it makes a sequence of the last output, which an encoder-decoder needs and a stream does not have",
        _USE_RECURRENT,
    ),
    **dict.fromkeys(("Reshape", "Permute"), (_SHAPE, _USE_RECURRENT)),
    **dict.fromkeys(
        (
            "Embedding",
            "CategoryEncoding",
            "Discretization",
            "Hashing",
            "HashedCrossing",
            "IntegerLookup",
            "StringLookup",
            "TextVectorization",
        ),
        (_INTEGERS, _BEFORE),
    ),
    "Lambda": (
        "it runs Python code, which cannot be read",
        "replace it by a layer of Keras such as Rescaling or Activation",
    ),
    **dict.fromkeys(
        ("UnitNormalization", "RMSNormalization", "GroupNormalization", "SpectralNormalization", "EinsumDense"),
        (_OTHER, "use LayerNormalization, BatchNormalization or Dense"),
    ),
}


def refusal(call: Call) -> UnsupportedModelError:
    """The error for a layer that no reader takes."""
    import keras

    ours = type(call.layer) is getattr(keras.layers, call.kind, None)
    if not ours:
        base = next(
            (b.__name__ for b in type(call.layer).__mro__ if b is getattr(keras.layers, b.__name__, None)), None
        )
        of = f" derived from {base}" if base not in (None, "Layer") else ""
        return call.refused(
            f"is a custom layer{of}, whose code cannot be read", f"replace it by layers of Keras, or {SEQUENCE_HINT}"
        )
    reason, remedy = _REASONS.get(call.kind, (_OTHER, _USE_RECURRENT))
    return call.refused(reason, f"{remedy}, or {SEQUENCE_HINT}")
