"""Mixed-precision training: layers compute in bfloat16; weights and the last layer stay in float32.

https://www.tensorflow.org/guide/mixed_precision
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from experiments.dataset import Images
from experiments.model.copies import first_difference, kinds_known, other_penalty, take_over_state
from experiments.system.errors import UserError, first_line
from experiments.system.progress import say
from experiments.system.stamp import stamp

if TYPE_CHECKING:
    from tf_keras import Model

Precision = Literal["float32", "mixed_bfloat16"]
TOLERANCE = 0.1  # relative to the largest output: bfloat16 has eight significant bits
FAST_WITH = ("avx512_bf16", "amx_bf16")  # instructions without which bfloat16 is slower than float32


@contextmanager
def in_precision(model: "Model", precision: Precision, images: Images) -> Iterator["Model"]:
    """Yield the model to train: `model` itself, or a copy in that precision whose weights are copied back.

    Raises:
        UserError: the copy gives different outputs on these images.
    """
    if precision == "float32":
        yield model
        return
    _warn_if_slow()
    way_out = "Train with training.precision=float32."
    try:
        twin = _twin(model, precision)
        difference = first_difference(twin, model, images, TOLERANCE) or other_penalty(twin, model, TOLERANCE)
    except TypeError as error:  # a layer does not support it
        raise UserError(
            f"training.precision={precision}: a layer does not support it ({first_line(error)}). {way_out}"
        ) from error
    if difference:
        raise UserError(
            f"training.precision={precision}: the outputs of the model in this precision differ too much from those of "
            f"the model itself: {difference}. Nothing was trained. {way_out}"
        )
    yield twin
    model.set_weights(twin.get_weights())


def _twin(model: "Model", precision: Precision) -> "Model":
    """Return a copy with the same float32 weights whose layers, except the last, compute in `precision`."""
    config = model.get_config()
    ends = {each._keras_history[0].name for each in model.outputs} if len(model.outputs) > 1 else set()
    _set_precision(config, precision, keep={model.layers[-1].name, *ends})
    with kinds_known(model):
        twin = type(model).from_config(config)
    take_over_state(twin, model)
    return twin


def _set_precision(node: Any, precision: Precision, keep: Collection[str]) -> None:
    """Change `dtype` in the configuration of every layer, also wrapped and nested ones, except inputs and `keep`."""
    match node:
        case {"class_name": str(kind), "config": dict(config)}:
            if kind != "InputLayer" and config.get("name") not in keep:
                if config.get("dtype") == "float32":
                    config["dtype"] = precision
                _set_precision(list(config.values()), precision, keep)
        case dict():
            _set_precision(list(node.values()), precision, keep)
        case list() | tuple():
            for part in node:
                _set_precision(part, precision, keep)


def _warn_if_slow() -> None:
    flags = stamp()["cpu_flags"].split()
    if not any(flag in flags for flag in FAST_WITH):
        say(
            "  training.precision=mixed_bfloat16: float32 is faster here, since this CPU has neither "
            f"{' nor '.join(FAST_WITH)}."
        )
