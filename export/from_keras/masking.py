"""Whether Keras's masking of a model is the masking of a stream."""

from __future__ import annotations

from collections.abc import Sequence

from .call import Call

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN")


def check_masking(calls: Sequence[Call], inert: Sequence[bool]) -> None:
    """Refuse a chain whose masking means something else than "a masked timestep leaves every state as it was".

    Args:
        calls: the chain.
        inert: for each call, whether it does nothing outside of training.

    Raises:
        UnsupportedModelError: Masking is not the first layer, or a later layer drops or consumes the mask.
    """
    masked = False
    for position, call in enumerate(calls):
        if call.kind == "Masking":
            if not all(inert[:position]):
                raise call.not_carried(
                    "stands behind another layer, but a stream can tell a masked timestep only by its raw input",
                    "put Masking first in the model",
                )
            masked = True
        elif masked and call.kind in RECURRENT:
            if call.layer.zero_output_for_mask and call.layer.return_sequences:
                raise call.not_carried(
                    "gives zeros for a masked timestep (zero_output_for_mask=True), and a stream repeats its output",
                    "use zero_output_for_mask=False",
                )
            masked = call.layer.return_sequences
        elif masked and _consumes_mask(call.layer):
            raise call.refused(
                "applies the mask of the Masking layer to the features",
                "use Activation('softmax'), which ignores the mask",
            )
        elif masked and not call.layer.supports_masking and any(c.kind in RECURRENT for c in calls[position:]):
            raise call.not_carried(
                "drops the mask, so that later layers would not see which timesteps are masked",
                "put it before the Masking layer or outside of the model",
            )


def _consumes_mask(layer: object) -> bool:
    import keras

    if isinstance(layer, keras.layers.TimeDistributed):
        parts = layer.layer._flatten_layers()
        return any(isinstance(part, keras.layers.Softmax) for part in parts)
    return isinstance(layer, keras.layers.Softmax)
