"""Why no state can be carried through a layer of Keras, and what to do instead."""

from __future__ import annotations

from .call import Call, NotCarriedError

_BACKWARD = "half of it begins at the end of the sequence, so that no answer is known before the last timestep"
_WINDOW = "it looks at several timesteps at once, which a carried state does not keep"
_ATTENTION = "it looks at the whole sequence at once, which a carried state does not keep"
_POOL = "it makes one value of all timesteps of a sequence, and a stream has no end"
_FEWER = "it gives one value for several timesteps, and a step gives one output per input"
_MORE = "it gives several timesteps for one, and a step gives one output per input"
_LENGTH = "it changes how many timesteps there are, and a step gives one output per input"
_SHAPE = "it changes the shape of the sequence, and a step gives one output per input"
_INTEGERS = "it takes whole numbers or text, and a step takes float features"
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
        "it makes a sequence of the last output, as an encoder-decoder does, anew for every answer",
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
    "Discretization": ("it gives whole numbers, and a step computes with floats", _BEFORE),
    "Lambda": (
        "it runs Python code, which cannot be read",
        "replace it by a layer of Keras such as Rescaling or Activation",
    ),
    **dict.fromkeys(
        ("UnitNormalization", "RMSNormalization", "GroupNormalization", "SpectralNormalization", "EinsumDense"),
        (_OTHER, "train it with LayerNormalization, BatchNormalization or Dense in its place"),
    ),
}
_CONVOLUTIONS = ("Conv1D", "Convolution1D", "SeparableConv1D", "DepthwiseConv1D")


def refusal(call: Call) -> NotCarriedError:
    """The error for a layer that no reader takes."""
    return call.not_carried(*reason_and_remedy(call))


def reason_and_remedy(call: Call) -> tuple[str, str]:
    """Why no state can be carried through a layer that no reader takes, and what to do instead."""
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
    layer = call.layer
    if ours and call.kind in _CONVOLUTIONS:
        if layer.kernel_size == (1,):  # Looks at one timestep alone, and skips some, or takes the features in groups.
            reason, remedy = (_FEWER, _WITHOUT) if layer.strides != (1,) else (_OTHER, _USE_DENSE)
    elif ours and call.kind in ("AveragePooling1D", "MaxPooling1D") and layer.strides == (1,):
        reason = _WINDOW
    return reason, remedy
