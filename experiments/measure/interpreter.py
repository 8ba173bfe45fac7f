"""LiteRT's interpreter in this process: on XNNPACK, or on LiteRT's own kernels for a file that XNNPACK refuses."""

from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.system.errors import UserError, first_line
from experiments.system.silence import native_stderr_silenced
from experiments.tflite.conversion import TFLiteModel


def ready(model: TFLiteModel, batch: int | None = None) -> Any:
    """An interpreter with one thread that has run once, for so many images a call where the file can be resized.

    Raises:
        UserError: LiteRT cannot run the file, on its own kernels either, or not with this batch.
    """
    try:
        return _tried(model, batch, builtin=False)
    except (RuntimeError, ValueError):  # the file, or the delegate alone
        try:
            return _tried(model, batch, builtin=True)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"LiteRT cannot run the file: {one_line(error)}") from error


def keeping_all(model: TFLiteModel) -> Any:
    """An interpreter that keeps what every op puts out, which a delegate would not."""
    try:
        return _tried(model, None, builtin=True, experimental_preserve_all_tensors=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"LiteRT cannot run the file: {one_line(error)}") from error


def xnnpack_refusal(model: TFLiteModel) -> str:
    """Why XNNPACK, LiteRT's default delegate for CPUs, cannot run a file; empty where it can."""
    try:
        _tried(model, None, builtin=False)
    except (RuntimeError, ValueError) as error:
        return one_line(error)
    return ""


def invoke(interpreter: Any, values: npt.NDArray[np.generic]) -> None:
    """Run the file on values for its one input; a recurrent layer begins anew, and not where the last image left it."""
    interpreter.reset_all_variables()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()


def one_line(error: BaseException) -> str:
    """What LiteRT says, without a line break; it puts its sentences one behind another."""
    return first_line(error).replace(".Node number", ". Node number")


def _tried(model: TFLiteModel, batch: int | None, builtin: bool, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else OpResolverType.AUTO
    with native_stderr_silenced():
        interpreter = Interpreter(
            model_content=model.content, num_threads=1, experimental_op_resolver_type=kernels, **options
        )
        if batch is not None:
            (entry,) = interpreter.get_input_details()
            interpreter.resize_tensor_input(entry["index"], (batch, *entry["shape"][1:]))
        interpreter.allocate_tensors()
        interpreter.invoke()  # the delegate may refuse as late as here
    return interpreter
