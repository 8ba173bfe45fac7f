"""The outputs of Keras models and TFLite files for images."""

from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import ImageRows, Images
from experiments.dataset.named import apart, is_named, together, under
from experiments.dataset.rows import at_once
from experiments.measure.interpreter import ends, invoke, load_interpreter
from experiments.model.ends import compute_outputs
from experiments.system.errors import UserError
from experiments.system.machine import usable_cores
from experiments.system.progress import bar
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import input_details, inputs_of, tensors

if TYPE_CHECKING:
    from tf_keras import Model

Logits = npt.NDArray[np.float32]

KERAS_BATCH = 500
BATCH = 8  # images per call, if the outputs are bit-identical; larger batches are not faster
CHUNK = 10 * BATCH  # images per task of a thread; small enough for a smooth progress bar
AHEAD = 2  # such tasks for each thread, so that none waits until the outputs of an earlier one are taken


def keras_logits(model: "Model", images: ImageRows) -> Logits:
    """Return the outputs (n, classes) float32 of a Keras model; bit-identical to `predict`, but faster."""
    return traced(model)(images)


def traced(model: "Model") -> Callable[[ImageRows], Logits]:
    """Return `keras_logits` of a model as a function, which is traced once for each number of images."""
    in_parts = traced_parts(model)
    return lambda images: np.concatenate(list(in_parts(images)))


def traced_parts(model: "Model") -> Callable[[ImageRows], Generator[Logits]]:
    """Return a function that yields the outputs of `keras_logits` for some images after the other."""
    from experiments.system.tensorflow import tf

    forward = tf.function(partial(model, training=False))

    def parts(images: ImageRows) -> Generator[Logits]:
        size = at_once(images, KERAS_BATCH, output_bytes(model) or 0)
        starts = range(0, len(images), size)
        with bar("Keras model on the test examples", total=len(starts)) as advance:
            for start in starts:
                found = compute_outputs(model, forward, images[start : start + size])
                advance(1)
                yield found if is_named(found) else found.astype(np.float32, copy=False)

    return parts


def output_bytes(model: "Model") -> int | None:
    """Return the size of the outputs for an image as float32; None if the model does not say their shape."""
    shapes = [tuple(each.shape[1:]) for each in model.outputs]
    return None if any(None in shape for shape in shapes) else sum(map(_float_bytes, shapes))


def _float_bytes(shape: tuple[int, ...]) -> int:
    return np.dtype(np.float32).itemsize * prod(map(int, shape))


def file_output_bytes(model: TFLiteModel) -> int | None:
    """Return the size of the outputs of a file for an image as float32; None if the file does not say their shape."""
    shapes = [tuple(each["shape"][1:]) for each in tensors(model.content)[1]]
    return None if any(min(shape, default=1) < 0 for shape in shapes) else sum(map(_float_bytes, shapes))


def tflite_logits(model: TFLiteModel, images: ImageRows, threads: int | None = None) -> Logits:
    """Return the outputs (n, classes) float32 of a file in LiteRT, bit-identical to those of one image per call.

    Each of `threads` (default: one per core) has its own interpreter. It runs several images per call if the file
    allows it and the outputs for a sample of images are bit-identical.
    """
    return np.concatenate(list(tflite_parts(model, images, threads)))


def tflite_parts(model: TFLiteModel, images: ImageRows, threads: int | None = None) -> Generator[Logits]:
    """Yield the outputs of `tflite_logits` for some images after the other."""
    in_batches = can_batch(model, images)
    first = load_interpreter(model, BATCH if in_batches else None)
    most = threads or usable_cores()
    of_image = sum(_float_bytes(tuple(each["shape"][1:])) for each in ends(first)[1].values())
    size = at_once(images, CHUNK, AHEAD * most * of_image)
    starts = range(0, len(images), size)
    workers = min(most, len(starts))
    free: SimpleQueue[Any] = SimpleQueue()
    for interpreter in (first, *(load_interpreter(model, BATCH if in_batches else None) for _ in range(workers - 1))):
        free.put(interpreter)
    with bar("TFLite model on the test examples", total=len(images)) as advance:

        def run_chunk(start: int) -> Logits:
            chunk, interpreter = images[start : start + size], free.get()
            try:
                return (_invoke_in_batches if in_batches else _invoke)(interpreter, chunk)
            finally:
                free.put(interpreter)
                advance(len(chunk))

        with ThreadPoolExecutor(workers) as pool:
            running: deque[Future[Logits]] = deque()
            try:
                for start in starts:
                    if len(running) == AHEAD * workers:
                        yield running.popleft().result()
                    running.append(pool.submit(run_chunk, start))
                while running:
                    yield running.popleft().result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # otherwise Ctrl-C would wait for all images
                raise


def can_batch(model: TFLiteModel, images: ImageRows) -> bool:
    """Whether batches give bit-identical outputs to single images, tested on the first and last images."""
    sample = np.concatenate([images[:BATCH], images[-BATCH:]])
    try:
        together = _invoke_in_batches(load_interpreter(model, BATCH), sample)
    except (UserError, RuntimeError, ValueError):  # the file has ops with fixed shapes
        return False
    return together.tobytes() == _invoke(load_interpreter(model), sample).tobytes()


def _invoke(interpreter: Any, images: Images) -> Logits:
    """Run images one by one; quantizes inputs and dequantizes outputs if the file requires it."""
    values, outputs = tensors_for(interpreter, images), _Outputs(interpreter)
    for place in range(len(images)):
        invoke(interpreter, {index: each[place : place + 1] for index, each in values.items()})
        outputs.read(1)
    return outputs.joined()


def _invoke_in_batches(interpreter: Any, images: Images) -> Logits:
    """Run BATCH images per call; the last batch is padded with copies."""
    full = np.concatenate([images, np.repeat(images[-1:], -len(images) % BATCH, axis=0)])
    values, outputs = tensors_for(interpreter, full), _Outputs(interpreter)
    for start in range(0, len(full), BATCH):
        invoke(interpreter, {index: each[start : start + BATCH] for index, each in values.items()})
        outputs.read(BATCH)
    return outputs.joined()[: len(images)]


def tensors_for(interpreter: Any, images: Images) -> dict[int, npt.NDArray[np.generic]]:
    """Return the values of each input, (n, ...), in its type, by the index of its tensor."""
    entries = ends(interpreter)[0]
    return {entries[name]["index"]: quantize(values, entries[name]) for name, values in apart(images).items()}


class _Outputs:
    """Collects the outputs of a file."""

    def __init__(self, interpreter: Any) -> None:
        self.interpreter, self.exits = interpreter, ends(interpreter)[1]
        self.read_values: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in self.exits}

    def read(self, count: int) -> None:
        """Read the outputs for the `count` images of the last call."""
        for name, details in self.exits.items():
            self.read_values[name].append(self.interpreter.get_tensor(details["index"])[:count])

    def joined(self) -> Logits:
        """Return all outputs, dequantized; if there are several, with a field for each."""
        parts = {
            name: dequantize(np.concatenate(values), self.exits[name]) for name, values in self.read_values.items()
        }
        return together(parts) if len(parts) > 1 else next(iter(parts.values()))


def in_order(model: TFLiteModel, images: Images) -> list[npt.NDArray[np.generic]]:
    """Return the values of each input of a file, (n, ...), in its types and order, without running the file."""
    if not is_named(images):
        return [quantize(images, input_of(model))]
    return [quantize(under(name, images), details) for name, details in inputs_of(model.content).items()]


def input_of(model: TFLiteModel) -> Mapping[str, Any]:
    """Return shape, dtype and quantization of the file's input, with LiteRT's keys, without running the file.

    Raises:
        UserError: the content is not a TFLite file, or does not have exactly one input.
    """
    return input_details(model.content)


def quantize(values: Images, tensor: Mapping[str, Any]) -> npt.NDArray[np.generic]:
    """Quantize values to the tensor's type: q = round(x / scale) + zero point, saturated.

    tracking/litert_model.py has copies of this function and the next, since it must run without this package.
    """
    if not np.issubdtype(tensor["dtype"], np.integer):
        return values
    scale, zero = tensor["quantization"]
    if not scale:  # integers such as numbers of words, not quantized ones
        return values.astype(tensor["dtype"], copy=False)
    limits = np.iinfo(tensor["dtype"])
    steps: Images = np.round(values / np.float32(scale)) + np.float32(zero)
    return np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(values: npt.NDArray[np.generic], tensor: Mapping[str, Any]) -> Logits:
    """Dequantize a tensor's integers: x = (q - zero point) * scale."""
    if not np.issubdtype(values.dtype, np.integer):
        return np.asarray(values, np.float32)
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
