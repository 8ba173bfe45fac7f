"""Which Keras TensorFlow takes as `tf.keras`: the second, whose models TensorFlow Model Optimization requires.

TensorFlow reads the choice from the environment, when it is imported and when `tf.keras` is first used. So it is made
before TensorFlow, or code of a user that may import it, is loaded; never by importing this package. Keras 3 is the
package `keras` whatever is chosen here, and both are used in one process.
"""

import os
from collections.abc import Iterator
from typing import Any, Literal

Version = Literal[2, 3]


def choose_keras_2() -> None:
    """Let `tf.keras` be Keras 2, and Keras 3 compute with TensorFlow, in this process and its children."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def version_of(value: Any) -> Version:
    """The version of Keras that a model, a layer, or a class of one, belongs to."""
    return 2 if "tf_keras" in _packages(value) else 3


def _packages(value: Any) -> Iterator[str]:
    kind = value if isinstance(value, type) else type(value)
    return (base.__module__.partition(".")[0] for base in kind.__mro__)
