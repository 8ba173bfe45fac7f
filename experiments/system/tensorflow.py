"""TensorFlow and its Keras 2, imported once and without the start-up noise."""

from experiments.system.silence import native_stderr_silenced

with native_stderr_silenced():
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()

keras = tf.keras


def use_threads(count: int) -> None:
    """Let TensorFlow compute on so many threads; possible before its first computation only."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


__all__ = ["keras", "tf", "use_threads"]
