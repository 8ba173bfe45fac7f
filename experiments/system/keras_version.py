"""Make `tf.keras` Keras 2, as TensorFlow Model Optimization requires, and distinguish objects of Keras 2 and 3.

TensorFlow reads the version from the environment, when it is imported and when `tf.keras` is first used. So it must be
set before TensorFlow, or user code that may import it, is loaded; importing this package does not set it. The package
`keras` is always Keras 3; one process can use both.
"""

import os
from collections.abc import Iterator
from typing import Any, Literal

Version = Literal[2, 3]


def choose_keras_2() -> None:
    """Make `tf.keras` Keras 2 and TensorFlow the backend of Keras 3, in this process and its children."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def version_of(value: Any) -> Version:
    """Return the Keras version of a model, a layer, or one of their classes."""
    return 2 if "tf_keras" in _packages(value) else 3


def _packages(value: Any) -> Iterator[str]:
    kind = value if isinstance(value, type) else type(value)
    return (base.__module__.partition(".")[0] for base in kind.__mro__)
