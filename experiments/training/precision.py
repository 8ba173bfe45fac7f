"""Training in a shorter float: bfloat16 where a layer computes, float32 where weights are kept and classes told apart.

https://www.tensorflow.org/guide/mixed_precision
"""

from collections.abc import Iterator
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
TOLERANCE = 0.1  # of the greatest output: bfloat16 holds eight bits of each value
FAST_WITH = ("avx512_bf16", "amx_bf16")  # instructions without which bfloat16 is slower than float32


@contextmanager
def in_precision(model: "Model", precision: Precision, images: Images) -> Iterator["Model"]:
    """The model to train, which is `model` itself or a twin in that precision; the twin's weights return to `model`.

    Raises:
        UserError: the twin does not answer on these images as the model does.
    """
    if precision == "float32":
        yield model
        return
    _warn_if_slow()
    way_out = "Train with training.precision=float32."
    try:
        twin = _twin(model, precision)
        difference = first_difference(twin, model, images, TOLERANCE) or other_penalty(twin, model, TOLERANCE)
    except TypeError as error:  # a layer that cannot compute in it
        raise UserError(
            f"training.precision={precision}: a layer cannot compute in it ({first_line(error)}). {way_out}"
        ) from error
    if difference:
        raise UserError(
            f"training.precision={precision}: the copy of the model in this precision does not answer as the model "
            f"itself does: {difference}. Nothing was trained. {way_out}"
        )
    yield twin
    model.set_weights(twin.get_weights())


def _twin(model: "Model", precision: Precision) -> "Model":
    """The same architecture and weights (float32), its layers but the last computing in `precision`."""
    config = model.get_config()
    _set_precision(config, precision, keep=model.layers[-1].name)
    with kinds_known(model):
        twin = type(model).from_config(config)
    take_over_state(twin, model)
    return twin


def _set_precision(node: Any, precision: Precision, keep: str) -> None:
    """Change `dtype` in the configuration of every layer, wrapped and nested ones too, but inputs and `keep`."""
    match node:
        case {"class_name": str(kind), "config": dict(config)}:
            if kind != "InputLayer" and config.get("name") != keep:
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
            f"  training.precision=mixed_bfloat16: this CPU has none of {', '.join(FAST_WITH)}; float32 is faster here."
        )
