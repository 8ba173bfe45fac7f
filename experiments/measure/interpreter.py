"""LiteRT's interpreter in this process: with XNNPACK, or LiteRT's own kernels for a file that XNNPACK rejects."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.system.errors import UserError, first_line
from experiments.system.silence import native_stderr_silenced
from experiments.tflite.conversion import TFLiteModel


def load_interpreter(model: TFLiteModel, batch: int | None = None) -> Any:
    """Return a single-threaded interpreter that has run once; `batch` resizes the input.

    Raises:
        UserError: LiteRT cannot run the file, even on its own kernels, or not with this batch size.
    """
    try:
        return _load(model, batch, builtin=False)
    except (RuntimeError, ValueError):  # perhaps only the delegate fails
        try:
            return _load(model, batch, builtin=True)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"LiteRT cannot run the file: {describe_error(error)}") from error


def load_preserving_interpreter(model: TFLiteModel) -> Any:
    """Return an interpreter that keeps the outputs of every op; it has no delegate, which would not keep them."""
    try:
        return _load(model, None, builtin=True, experimental_preserve_all_tensors=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"LiteRT cannot run the file: {describe_error(error)}") from error


def xnnpack_refusal(model: TFLiteModel) -> str:
    """Return why XNNPACK, LiteRT's default CPU delegate, cannot run a file; empty if it can."""
    try:
        _load(model, None, builtin=False)
    except (RuntimeError, ValueError) as error:
        return describe_error(error)
    return ""


def invoke(interpreter: Any, values: Mapping[int, npt.NDArray[np.generic]]) -> None:
    """Run the file on values by the indices of its inputs, after resetting the state of recurrent layers."""
    interpreter.reset_all_variables()
    for index, of_input in values.items():
        interpreter.set_tensor(index, of_input)
    interpreter.invoke()


def ends(interpreter: Any) -> tuple[dict[str, Mapping[str, Any]], dict[str, Mapping[str, Any]]]:
    """Return LiteRT's details of the inputs and outputs of a file, by name; the name of the only one is empty."""
    found = []
    for end, details in (("inputs", interpreter.get_input_details()), ("outputs", interpreter.get_output_details())):
        signatures = list(interpreter._get_full_signature_list().values())
        names = {index: name for name, index in signatures[0][end].items()} if signatures else {}
        found.append({names.get(each["index"], each["name"]) if len(details) > 1 else "": each for each in details})
    return found[0], found[1]


def describe_error(error: BaseException) -> str:
    """Return LiteRT's message as one line; LiteRT puts no space between its sentences."""
    return first_line(error).replace(".Node number", ". Node number")


def _load(model: TFLiteModel, batch: int | None, builtin: bool, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else OpResolverType.AUTO
    with native_stderr_silenced():
        interpreter = Interpreter(
            model_content=model.content, num_threads=1, experimental_op_resolver_type=kernels, **options
        )
        if batch is not None:
            for input_ in interpreter.get_input_details():
                interpreter.resize_tensor_input(input_["index"], (batch, *input_["shape"][1:]))
        interpreter.allocate_tensors()
        for input_ in interpreter.get_input_details():
            if not input_["quantization"][0]:  # ones are valid indices, even as floats, and are not masked like zeros
                interpreter.set_tensor(input_["index"], np.ones(input_["shape"], input_["dtype"]))
        interpreter.invoke()  # some delegate errors occur only here
    return interpreter
