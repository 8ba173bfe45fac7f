"""Training in a shorter float: bfloat16 where a layer computes, float32 where weights are kept and classes told apart.

https://www.tensorflow.org/guide/mixed_precision
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from experiments.progress import say
from experiments.stamp import stamp

if TYPE_CHECKING:
    from tf_keras import Model

Precision = Literal["float32", "mixed_bfloat16"]
FAST_WITH = ("avx512_bf16", "amx_bf16")  # instructions without which bfloat16 is slower than float32


@contextmanager
def in_precision(model: "Model", precision: Precision) -> Iterator["Model"]:
    """The model to train, which is `model` itself or a twin in that precision; the twin's weights return to `model`."""
    if precision == "float32":
        yield model
        return
    _warn_if_slow()
    twin = _twin(model, precision)
    yield twin
    model.set_weights(twin.get_weights())


def _twin(model: "Model", precision: Precision) -> "Model":
    """The same architecture and weights (float32), its layers but the last computing in `precision`."""
    config = model.get_config()
    _set_precision(config, precision, keep=model.layers[-1].name)
    twin = type(model).from_config(config)
    twin.set_weights(model.get_weights())
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
