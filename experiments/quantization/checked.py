"""Check that a strategy's copy of a model gives the same outputs, before it is trained."""

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
    """Return the copy if its outputs equal those of the model, with fake quantization and clustering off.

    Raises:
        UserError: the outputs differ; the message names the first layer that differs.
    """
    with _wrappers_idle(copy):
        difference = first_difference(copy, model, calibration(IMAGES)[:]) or other_penalty(copy, model)
    if difference:
        raise UserError(
            f"The outputs of the copy that this strategy trains differ from those of the model: {difference}. "
            "Nothing was trained. Quantize the model after training, as with strategy=ptq_int8, or replace the layer "
            "by one of Keras and save the model again."
        )
    return copy


def stripped(plain: "Model", trained: "Model", calibration: Calibration) -> "Model":
    """Return the model without wrappers if its outputs equal those of the trained one.

    Raises:
        UserError: the outputs differ; the message names the first layer that differs.
    """
    if difference := first_difference(plain, trained, calibration(IMAGES)[:]):
        raise UserError(
            f"The outputs of the model without training wrappers differ from those of the trained model: {difference}."
        )
    return plain


def _wrappers_idle(copy: "Model") -> AbstractContextManager[None]:
    if not any(is_wrapper(layer) for layer in copy.layers):
        return nullcontext()  # avoids loading an engine
    return engine_of(copy).wrappers_idle()
