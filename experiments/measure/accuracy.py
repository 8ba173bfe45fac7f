"""What a model answers on the test split, for the Keras model and the TFLite file alike."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import Images
from experiments.machine import usable_cores
from experiments.progress import bar
from experiments.quiet import native_stderr_silenced
from experiments.tflite import TFLiteModel

if TYPE_CHECKING:
    from tf_keras import Model

Logits = npt.NDArray[np.float32]

KERAS_BATCH = 500
CHUNK = 50  # images that a thread takes at a time: small enough for a smooth progress bar


def keras_logits(model: "Model", images: Images) -> Logits:
    """Outputs (n, classes) float32 of the Keras model."""
    from experiments.tensorflow_quietly import keras

    batches = -(-len(images) // KERAS_BATCH)
    with bar("Keras model on the test images", total=batches) as advance:
        callback = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda _batch, _logs: advance(1))
        return np.asarray(model.predict(images, batch_size=KERAS_BATCH, verbose=0, callbacks=[callback]), np.float32)


def tflite_logits(model: TFLiteModel, images: Images, threads: int | None = None) -> Logits:
    """Outputs (n, classes) float32 of the file in LiteRT's interpreter, one image a call, as it is used on a device.

    Each of `threads`, by default one for each core, has an interpreter of its own. That is as fast as batching on the
    article's model, and the results are those of the plain loop by construction, where batches would have to be shown
    to give the same.
    """
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    workers = min(threads or usable_cores(), len(chunks))
    interpreters = [_interpreter(model) for _ in range(workers)]
    stopped = Event()
    with bar("TFLite model on the test images", total=len(images)) as advance:

        def answer(worker: int) -> list[Logits]:
            answers: list[Logits] = []
            for chunk in chunks[worker::workers]:
                if stopped.is_set():
                    break
                answers.append(_invoke(interpreters[worker], chunk))
                advance(len(chunk))
            return answers

        with ThreadPoolExecutor(workers) as pool:
            try:
                shares = list(pool.map(answer, range(workers)))
            except BaseException:
                stopped.set()  # or Ctrl-C would wait for all images
                raise
    return np.concatenate([shares[i % workers][i // workers] for i in range(len(chunks))])


def _interpreter(model: TFLiteModel) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with native_stderr_silenced():
        interpreter = Interpreter(model_content=model.content, num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _invoke(interpreter: Any, images: Images) -> Logits:
    """Answers to the images, quantized on the way in and dequantized on the way out where the file asks for it."""
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in quantized(images, entry):
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(exit_["index"])[0])
    return dequantized(np.stack(answers), exit_)


def input_of(model: TFLiteModel) -> Any:
    """What LiteRT says of the file's input: index, shape, dtype, quantization."""
    return _interpreter(model).get_input_details()[0]


def quantized(values: Images, tensor: Mapping[str, Any]) -> npt.NDArray[np.generic]:
    """Values as the tensor's type: q = round(x / scale) + zero point, saturated."""
    if not np.issubdtype(tensor["dtype"], np.integer):
        return values
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    steps: Images = np.round(values / np.float32(scale)) + np.float32(zero)
    return np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])


def dequantized(values: npt.NDArray[np.generic], tensor: Mapping[str, Any]) -> Logits:
    """The real values that a tensor's integers stand for: x = (q - zero point) * scale."""
    if not np.issubdtype(values.dtype, np.integer):
        return np.asarray(values, np.float32)
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
