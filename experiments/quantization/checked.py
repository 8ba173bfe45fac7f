"""Whether a copy that a strategy made answers like the model that it was made from, seen before it is trained."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from experiments.model.copies import first_difference, is_wrapper, other_penalty
from experiments.quantization.engines import engine_of
from experiments.system.errors import UserError
from experiments.tflite.conversion import Calibration

if TYPE_CHECKING:
    from tf_keras import Model

IMAGES = 32  # of the training split


def checked(copy: "Model", model: "Model", calibration: Calibration) -> "Model":
    """The copy, once it is seen to answer as the model does while fake quantization and clustering are off.

    Raises:
        UserError: it answers differently; the message names the first layer that does.
    """
    with _wrappers_idle(copy):
        difference = first_difference(copy, model, calibration(IMAGES)) or other_penalty(copy, model)
    if difference:
        raise UserError(
            f"The copy of the model that this strategy trains does not answer as the model itself does: {difference}. "
            "Nothing was trained. Quantize the model itself, as with strategy=ptq_int8; or replace the layer by one of "
            "Keras' own and save the model again."
        )
    return copy


def stripped(plain: "Model", trained: "Model", calibration: Calibration) -> "Model":
    """The plain model that a trained one was stripped to, once it is seen to answer as that does.

    Raises:
        UserError: it answers differently; the message names the first layer that does.
    """
    if difference := first_difference(plain, trained, calibration(IMAGES)):
        raise UserError(
            f"The model without the wrappers of the training does not answer as the trained one does: {difference}."
        )
    return plain


def _wrappers_idle(copy: "Model") -> AbstractContextManager[None]:
    if not any(is_wrapper(layer) for layer in copy.layers):
        return nullcontext()  # no engine has to be loaded
    return engine_of(copy).wrappers_idle()
