"""TensorFlow and its Keras 2, imported once and without the start-up noise.

Modules that import TensorFlow Model Optimization import this one first.
"""

from experiments.system.errors import UserError
from experiments.system.keras_version import choose_keras_2
from experiments.system.silence import native_stderr_silenced

choose_keras_2()
with native_stderr_silenced():
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()

keras = tf.keras
if not keras.Model.__module__.startswith("tf_keras."):  # it was used before, and TensorFlow decides only once
    raise UserError(
        "TensorFlow is already loaded in this process with Keras 3, and TensorFlow Model Optimization requires "
        "Keras 2. Set TF_USE_LEGACY_KERAS=1 in the environment before Python starts, or import "
        "experiments.system.tensorflow before anything that uses tensorflow.keras."
    )


def use_threads(count: int) -> None:
    """Let TensorFlow compute on so many threads; possible before its first computation only."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


__all__ = ["keras", "tf", "use_threads"]
