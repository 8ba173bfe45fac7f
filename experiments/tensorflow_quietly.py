"""TensorFlow and its Keras 2, imported once and without the start-up noise."""

from experiments.quiet import native_stderr_silenced

with native_stderr_silenced():
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()

keras = tf.keras

__all__ = ["keras", "tf"]
