"""What a model answers on the test split, for the Keras model and the TFLite file alike."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import Images
from experiments.measure.interpreter import invoke, ready
from experiments.system.errors import UserError
from experiments.system.machine import usable_cores
from experiments.system.progress import bar
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import input_details

if TYPE_CHECKING:
    from tf_keras import Model

Logits = npt.NDArray[np.float32]

KERAS_BATCH = 500
BATCH = 8  # images a call, where that gives the same bits; more fit no better into the processor's caches
CHUNK = 10 * BATCH  # images that a thread takes at a time: small enough for a smooth progress bar


def keras_logits(model: "Model", images: Images) -> Logits:
    """Outputs (n, classes) float32 of the Keras model, whose `predict` gives the same bits and takes longer."""
    from experiments.system.tensorflow import tf

    forward = tf.function(partial(model, training=False))
    batches = [images[i : i + KERAS_BATCH] for i in range(0, len(images), KERAS_BATCH)]
    answers = []
    with bar("Keras model on the test images", total=len(batches)) as advance:
        for batch in batches:
            answers.append(forward(batch).numpy())
            advance(1)
    return np.concatenate(answers).astype(np.float32, copy=False)


def tflite_logits(model: TFLiteModel, images: Images, threads: int | None = None) -> Logits:
    """Outputs (n, classes) float32 of the file in LiteRT's interpreter: those of one image a call, bit for bit.

    Each of `threads`, by default one for each core, has an interpreter of its own, which takes several images a call
    where the file allows it and the first images get the same answers as one by one.
    """
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    workers = min(threads or usable_cores(), len(chunks))
    in_batches = answers_in_batches(model, images)
    interpreters = [ready(model, BATCH if in_batches else None) for _ in range(workers)]
    stopped = Event()
    with bar("TFLite model on the test images", total=len(images)) as advance:

        def answer(worker: int) -> list[Logits]:
            answers: list[Logits] = []
            for chunk in chunks[worker::workers]:
                if stopped.is_set():
                    break
                answers.append((_invoke_in_batches if in_batches else _invoke)(interpreters[worker], chunk))
                advance(len(chunk))
            return answers

        with ThreadPoolExecutor(workers) as pool:
            try:
                shares = list(pool.map(answer, range(workers)))
            except BaseException:
                stopped.set()  # or Ctrl-C would wait for all images
                raise
    return np.concatenate([shares[i % workers][i // workers] for i in range(len(chunks))])


def answers_in_batches(model: TFLiteModel, images: Images) -> bool:
    """Whether several images a call give the same bits as one a call, as far as the first and the last ones show."""
    sample = np.concatenate([images[:BATCH], images[-BATCH:]])
    try:
        together = _invoke_in_batches(ready(model, BATCH), sample)
    except (UserError, RuntimeError, ValueError):  # ops whose shapes are fixed in the file: LiteRT says so here
        return False
    return together.tobytes() == _invoke(ready(model), sample).tobytes()


def _invoke(interpreter: Any, images: Images) -> Logits:
    """Answers to the images one by one, quantized on the way in and dequantized on the way out where the file asks."""
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in quantized(images, entry):
        invoke(interpreter, image[np.newaxis])
        answers.append(interpreter.get_tensor(exit_["index"])[0])
    return dequantized(np.stack(answers), exit_)


def _invoke_in_batches(interpreter: Any, images: Images) -> Logits:
    """Answers to the images, BATCH of them a call; the last ones are filled up with copies."""
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    values = quantized(images, entry)
    full = np.concatenate([values, np.repeat(values[-1:], -len(values) % BATCH, axis=0)])
    answers = []
    for start in range(0, len(full), BATCH):
        invoke(interpreter, full[start : start + BATCH])
        answers.append(interpreter.get_tensor(exit_["index"]))
    return dequantized(np.concatenate(answers)[: len(values)], exit_)


def input_of(model: TFLiteModel) -> Mapping[str, Any]:
    """The shape, dtype and quantization of the file's one input, as LiteRT would name them; nothing of it is run.

    Raises:
        UserError: it is no TFLite file, or has not one input.
    """
    return input_details(model.content)


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
