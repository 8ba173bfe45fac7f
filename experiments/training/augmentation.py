"""Augmentation: random preprocessing layers of Keras, applied to training batches outside the model.

So no file has them, and models of Keras 2 and 3 are trained on the same images. Random numbers are a function of the
seed, the epoch, the batch and the layer, so that a training that resumes sees the images of one without interruption.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.dataset import Images
from experiments.system.errors import UserError, first_line, suggestion
from experiments.training.named import Named, each_named

# Layers that move the content of an image.
MOVING = (
    "RandomElasticTransform",
    "RandomFlip",
    "RandomPerspective",
    "RandomRotation",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
)
FILL = ("fill_mode", "fill_value", "interpolation")
ARGUMENTS: Mapping[str, Sequence[str]] = {
    "GaussianNoise": ("stddev",),
    "RandomBrightness": ("factor", "value_range"),
    "RandomContrast": ("factor", "value_range"),
    "RandomElasticTransform": ("factor", "scale", *FILL, "value_range"),
    "RandomErasing": ("factor", "scale", "fill_value", "value_range"),
    "RandomFlip": ("mode",),
    "RandomGaussianBlur": ("factor", "kernel_size", "sigma", "value_range"),
    "RandomGrayscale": ("factor",),
    "RandomHue": ("factor", "value_range"),
    "RandomInvert": ("factor", "value_range"),
    "RandomPerspective": ("factor", "scale", "interpolation", "fill_value"),
    "RandomPosterization": ("factor", "value_range"),
    "RandomRotation": ("factor", *FILL),
    "RandomSaturation": ("factor", "value_range"),
    "RandomSharpness": ("factor", "value_range"),
    "RandomShear": ("x_factor", "y_factor", *FILL),
    "RandomTranslation": ("height_factor", "width_factor", *FILL),
    "RandomZoom": ("height_factor", "width_factor", *FILL),
}
REQUIRED: Mapping[str, Sequence[str]] = {  # arguments without a default
    "GaussianNoise": ("stddev",),
    "RandomTranslation": ("height_factor", "width_factor"),
    "RandomZoom": ("height_factor",),
    **dict.fromkeys(
        ("RandomBrightness", "RandomContrast", "RandomHue", "RandomPosterization", "RandomRotation",
         "RandomSaturation", "RandomSharpness"),
        ("factor",),
    ),
}  # fmt: skip
WORDS: Mapping[str, Sequence[str]] = {  # Keras ignores others, or fails while it trains
    "mode": ("horizontal", "vertical", "horizontal_and_vertical"),
    "fill_mode": ("constant", "nearest", "reflect", "wrap"),
    "interpolation": ("bilinear", "nearest"),
}
# Layers that change values require the range of all values, which Keras takes to be 0..255.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
GREY = 3  # axes of grey images without a channel axis, or of series, of which the last axis is the width

Augmented = Callable[[Any, int, int], Any]  # (batches, seed, epoch): batches with other images


def augmentation_of(value: object) -> tuple[Named, ...]:
    """Return the layers that a setting names, with their arguments.

    Raises:
        ValueError: the setting is invalid.
    """
    if not isinstance(value, list | tuple):
        raise ValueError("requires a list, as in [RandomFlip,{RandomRotation: {factor: 0.1}}]")  # noqa: TRY004
    layers = tuple(each_named(value, ARGUMENTS))
    for layer in layers:
        needed = REQUIRED.get(layer.name, ())
        if any(argument not in layer.arguments for argument in needed):
            example = ", ".join(f"{argument}: 0.1" for argument in needed)
            raise ValueError(f"{layer.name} requires {' and '.join(needed)}, as in {{{layer.name}: {{{example}}}}}")
        for argument, given in layer.arguments.items():
            if argument in WORDS and given not in WORDS[argument]:
                raise ValueError(f"{layer.name}: {argument}={given}. {suggestion(str(given), WORDS[argument])}")
    return layers


def check_places(value: object, by_place: bool, key: str = "training") -> None:
    """Check that no layer moves the content, if targets belong to places in the example (Head.by_place).

    Raises:
        UserError: a layer does.
    """
    moving = [layer.name for layer in augmentation_of(value) if layer.name in MOVING]
    if by_place and moving:
        others = ", ".join(name for name in ARGUMENTS if name not in MOVING)
        raise UserError(
            f"{key}.augmentation: {moving[0]} moves the content of an image, but not the targets of this task, which "
            f"say where it is. Use layers that move nothing ({others}), or store moved images with their targets."
        )


def augmentation_for(value: object, sample: Images, key: str = "training") -> Augmented:
    """Return a function that changes the images of a tf.data.Dataset of batches (images, ...), while the model trains.

    Args:
        value: The setting.
        sample: Training images (n, ...) on which the layers are tried.
        key: `training` or `finetune`, whose setting it is.

    Raises:
        UserError: Keras rejects an argument, or the layers do not fit the images or change their shape.
    """
    named = augmentation_of(value)
    if not named:
        return _unchanged
    _check_shape(named, sample, key)
    low, high = float(sample.min()), float(sample.max())
    values = next(((least, most) for least, most in RANGES if least <= low and high <= most), (low, high))
    layers = [_layer(each, values, key) for each in named]

    def change(images: Any, seeds: Any, batch: Any) -> Any:
        from experiments.system.tensorflow import tf

        grey = len(images.shape) == GREY
        changed = images[..., tf.newaxis] if grey else images
        for layer, seed in zip(layers, seeds, strict=True):
            changed = layer(changed, _draws(tf.random.fold_in(seed, batch)))
        return tf.ensure_shape(changed[..., 0] if grey else changed, images.shape)

    def augmented(batches: Any, seed: int, epoch: int) -> Any:
        seeds = _seeds(len(layers), seed, epoch)
        return batches.enumerate().map(lambda batch, each: (change(each[0], seeds, batch), *each[1:])).prefetch(1)

    try:
        change(sample, _seeds(len(layers), 0, 0), np.int64(0))
    except Exception as error:  # Keras and TensorFlow raise errors of any type
        raise UserError(
            f"{key}.augmentation: Keras cannot apply these layers to examples of the shape {sample.shape[1:]} "
            f"({first_line(error)})."
        ) from error
    return augmented


def _unchanged(batches: Any, seed: int, epoch: int) -> Any:
    return batches


def _check_shape(named: Sequence[Named], sample: Images, key: str) -> None:
    for layer in named:
        if layer.name != "GaussianNoise" and not GREY <= sample.ndim <= GREY + 1:
            raise UserError(
                f"{key}.augmentation: {layer.name} requires images (height, width, channels), not examples of the "
                f"shape {sample.shape[1:]}. GaussianNoise accepts any."
            )


def _seeds(layers: int, seed: int, epoch: int) -> Any:
    """Return the seeds of the layers in an epoch, (layers, 2) int64."""
    states = [np.random.SeedSequence([seed, epoch, number]).generate_state(2) for number in range(layers)]
    return np.array(states, np.int64)


def _layer(given: Named, values: tuple[float, float], key: str) -> Callable[[Any, Any], Any]:
    """Return a function that applies a layer to a batch, with random numbers from a generator."""
    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    if given.name == "GaussianNoise":
        stddev = given.arguments["stddev"]
        return lambda images, draws: images + keras.random.normal(keras.ops.shape(images), stddev=stddev, seed=draws)
    ranges = {"value_range": values} if "value_range" in ARGUMENTS[given.name] else {}
    try:
        layer = getattr(keras.layers, given.name)(**{**ranges, **given.arguments})
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}.augmentation={given.typed}: Keras rejects it ({first_line(error)}).") from error

    def apply(images: Any, draws: Any) -> Any:
        transformation = layer.get_random_transformation(images, training=True, seed=draws)
        return layer.transform_images(images, transformation, training=True)

    return apply


def _draws(seed: Any) -> Any:
    """Return a generator of Keras 3 without a state: its numbers follow from the seed, and from their order."""
    from keras.random import SeedGenerator

    class Draws(SeedGenerator):  # type: ignore[misc]  # Keras ships no types
        """Counts the draws while a function is traced."""

        def __init__(self) -> None:
            self.count = 0

        def next(self, ordered: bool = True) -> Any:
            """Return the seed of the next numbers."""
            self.count += 1
            return seed + np.array([0, self.count], np.int64)

    return Draws()
