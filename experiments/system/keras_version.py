"""Which Keras TensorFlow takes: the second, the only one whose models TensorFlow Model Optimization accepts.

TensorFlow reads the choice from the environment, when it is imported and when `tf.keras` is first used. So it is made
before TensorFlow, or code of a user that may import it, is loaded; never by importing this package.
"""

import os


def choose_keras_2() -> None:
    """Let TensorFlow be Keras 2 in this process and its children, and silent about its start."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
