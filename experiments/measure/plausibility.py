"""Check whether a baseline is plausible, from its predictions and its input.

Each warning is a text `remark: finding, and what to type`; tables show only the remark.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from experiments.dataset import Dataset, Images
from experiments.dataset.saving import save_line
from experiments.statistics.bootstrap import difference_over_seeds
from experiments.statistics.estimates import mcnemar
from experiments.task import Head
from experiments.task.classification import ClassHead, Outputs, function_of

if TYPE_CHECKING:
    from tf_keras import Model

NOT_BETTER = 0.05  # above this p-value, an accuracy is not significantly better than predicting the largest class
SAMPLE = 200  # training examples to test other forms of the input
SAMPLE_BYTES = 32 * 2**20  # limit for large examples
GOOD = 0.9  # from this accuracy on, no other form of the input is tested
CLEAR = 0.001  # below this p-value, another input form is clearly better
LEAST_GAIN = 0.1  # minimum gain of accuracy to report another form
SUSPICIOUS = (0.02, 20.0)  # standard deviations of a network's input; outside, it was scaled twice or not at all
PLAUSIBLE = (0.05, 5.0)  # standard deviations that another form must give
BYTE = np.float32(255)

Predict = Callable[[Images], Outputs]  # returns a model's outputs (n, outputs) for images


def output_warnings(
    predictions: npt.NDArray[np.int64], data: Dataset, head: ClassHead, epochs: int, explained: bool = False
) -> Iterator[str]:
    """Yield warnings about the baseline's predictions (n,) for the test images; `epochs` counts its training here.

    If they are `explained` by a warning about the input, they refer to it instead of giving advice.
    """
    truth, names = data.test.y, data.labels
    values = prod(data.input_shape)
    if head.outputs == values and head.outputs > data.classes:
        yield (
            f"no classes: the model has {head.outputs} outputs for {data.classes} classes, as many as its input has "
            "values, like an autoencoder. Accuracy and agreement have no meaning. Use a classifier: model.path=FILE."
        )
        return
    unlabelled = [int(number) for number in np.unique(predictions) if names and int(number) not in names]
    share = float(np.isin(predictions, unlabelled).mean())
    if share > 0.5:
        yield (
            f"no classes: {100 * share:.0f} % of the predictions are outputs without a label, such as {unlabelled[0]} "
            f"of 0 to {head.classes - 1}. Either the model was never trained, or the labels are not indices of its "
            "outputs. Save indices: " + save_line(y="np.array([names.index(label) for label in {}])")
        )
        return
    counts = np.bincount(truth)
    most_frequent, correct = int(counts.argmax()), int((predictions == truth).sum())
    advice = (
        "Use the data that it was trained on, with the same scale (dataset.scale=none, unit or symmetric) and labels "
        "in the order of its outputs. A model that was never trained requires training, such as epochs=20."
        if epochs == 0
        else "Train longer (training.epochs) or with another training.learning_rate, and check the labels."
    )
    if explained:
        advice = "The warning about the input explains this."
    if len(np.unique(predictions)) == 1 and len(np.unique(truth)) > 1:
        only = int(predictions[0])
        yield (
            f"one class: the float model predicts {_named(only, names)} for all {len(truth)} test examples. {advice}"
        )
    elif stats.binom.sf(correct - 1, len(truth), counts[most_frequent] / len(truth)) > NOT_BETTER:
        yield (
            f"at chance: the accuracy of the float model is {100 * correct / len(truth):.1f} % on {len(truth)} test "
            f"examples; always predicting {_named(most_frequent, names)} would give "
            f"{100 * counts[most_frequent] / len(truth):.1f} %. {advice}"
        )


def score_warnings(outputs: Outputs, data: Dataset, head: Head, epochs: int) -> Iterator[str]:
    """Yield a warning if the baseline's outputs are not significantly better than the best constant ones."""
    constant, metric = head.constant(data), head.metric
    if constant is None or metric is None:
        return
    own, best = (metric.replicates(each, data.test) for each in (outputs, constant))
    difference, p = difference_over_seeds(own[np.newaxis], best[np.newaxis], len(data.test))
    if p < NOT_BETTER and (difference.value > 0) == (metric.better == "higher"):
        return
    advice = (
        "Use the data that it was trained on, with the same scale. A model that was never trained requires training, "
        "such as epochs=20."
        if epochs == 0
        else "Train longer (training.epochs) or with another training.learning_rate, and scale large targets."
    )
    yield (
        f"at chance: the {metric.title} of the float model is {own[0]:.4g} on {len(data.test)} test examples; always "
        f"predicting the same value would give {best[0]:.4g}. {advice}"
    )


def _named(number: int, names: Mapping[int, str]) -> str:
    name = names.get(number, str(number))
    return f"class {number}" if name == str(number) else f"class {number} ({name})"


@dataclass(frozen=True)
class Form:
    """A form of the input: the conversion from the current form, and what to type to use it."""

    name: str
    convert: Callable[[Images], Images]
    command: str
    remark: str = "input scale"


STANDARDIZED = "each channel standardized"
UNCHANGED = Form("nothing changed", lambda images: images, "")


def input_warnings(model: "Model", data: Dataset, head: ClassHead, predict: Predict) -> Iterator[str]:
    """Yield a warning if an existing model is clearly better with another scale or channel order of its input.

    Other forms are tested on training examples, never on the test split. A simple form is preferred to a complex one,
    unless the latter is clearly better.
    """
    sample = data.train.sample(max(20, min(SAMPLE, SAMPLE_BYTES // max(1, data.train.x[:1].nbytes))))
    images = sample.x[:]

    def correct_with(changed: Images) -> npt.NDArray[np.bool_]:
        return np.asarray(head.predict(predict(changed)) == sample.y)

    current = correct_with(images)
    if current.mean() >= GOOD:
        return
    scales = _scales(data, images)
    expected = _expected_form(model, images, scales)
    has_colors = images.ndim == 4 and images.shape[-1] == 3
    tiers = [
        scales,
        [_reversed_channels(form) for form in (UNCHANGED, *scales)] if has_colors else [],
        [*(_imagenet(data, images) if has_colors else ()), _standardized(data)],
    ]
    best, correct = UNCHANGED, {UNCHANGED: current}
    for forms in tiers:
        if correct[best].mean() >= GOOD:
            break
        for form in forms:
            correct[form] = correct_with(form.convert(images))
        for form in forms:
            higher = correct[form].mean() > correct[best].mean()
            if _clearly_better(correct[form], correct[best], sample.y) or (best in forms and higher):
                best = form
    if best is not UNCHANGED:
        why = f"{_preprocessing(model, images)} another range, and " if expected and expected.name in best.name else ""
        yield (
            f"{best.remark}: {why}the accuracy on {len(sample)} training examples is {_percent(current)} with the "
            f"current input ({_range(images)}), and {_percent(correct[best])} with {best.name}. {_advice(best, data)}"
        )
    elif expected and not _clearly_better(current, correct[expected], sample.y):
        yield (
            f"input scale: {_preprocessing(model, images)} another range than that of the images "
            f"({_range(images)}). {_advice(expected, data)}"
        )


def _advice(form: Form, data: Dataset) -> str:
    """Return what to type for a form; code changes arrays, which only some sources are made of."""
    if data.place.arrays or not form.command.startswith("np."):
        return f"Type: {form.command}"
    if form.name == STANDARDIZED and data.place.standardize:
        return f"Type: {data.place.standardize}"
    return f"Save arrays for dataset=npz: {form.command}"


def _clearly_better(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], truth: npt.NDArray[np.int64]) -> bool:
    """Whether one form is significantly better than another, and better than a constant prediction."""
    share = np.bincount(truth).max() / len(truth)
    return bool(
        one.mean() - other.mean() >= LEAST_GAIN
        and mcnemar(one, other) < CLEAR
        and stats.binom.sf(int(one.sum()) - 1, len(truth), share) < CLEAR
    )


def _percent(correct: npt.NDArray[np.bool_]) -> str:
    return f"{100 * correct.mean():.0f} %"


def _range(images: Images) -> str:
    return f"{images.min():.3g} to {images.max():.3g}"


def _scales(data: Dataset, images: Images) -> list[Form]:
    """Return the other scales that the model may expect."""
    scaling = data.scaling
    low, high = _stored_range(data, images)
    if scaling.integers or (low >= 0 and high <= BYTE):
        unit = _unit(data, images)
        plain = Form("dataset.scale=none", scaling.undo, "dataset.scale=none")
        if not scaling.integers and high <= 1:
            plain = Form("0..255 instead of 0..1", lambda x: unit(x) * BYTE, save_line(x="{} * 255."))
        forms = [
            plain,
            Form("dataset.scale=unit", unit, "dataset.scale=unit"),
            Form(
                "dataset.scale=symmetric", lambda x: unit(x) * np.float32(2) - np.float32(1), "dataset.scale=symmetric"
            ),
        ]
    elif low >= -1 and high <= 1:
        forms = [
            Form("0..1 instead of -1..1", lambda x: (x + np.float32(1)) / np.float32(2), save_line(x="({} + 1) / 2")),
            Form(
                "0..255 instead of -1..1",
                lambda x: (x + np.float32(1)) * BYTE / np.float32(2),
                save_line(x="({} + 1) * 127.5"),
            ),
        ]
    else:
        forms = []
    return [form for form in forms if not np.allclose(form.convert(images[:8]), images[:8], atol=1e-4)]


def _stored_range(data: Dataset, images: Images) -> tuple[float, float]:
    stored = data.scaling.undo(images)
    return float(stored.min()), float(stored.max())


def _unit(data: Dataset, images: Images) -> Callable[[Images], Images]:
    """Return a function that converts the current input to 0..1."""
    scaling, (_, high) = data.scaling, _stored_range(data, images)
    divisor = np.float32(scaling.divisor if scaling.divisor != 1 else BYTE if high > 1 else 1)
    return lambda x: np.asarray(scaling.undo(x) / divisor, np.float32)


def _reversed_channels(form: Form) -> Form:
    """Return the form with the three channels reversed."""
    name = "the three channels reversed (RGB and BGR)"
    line = save_line(x="{}[..., ::-1]")
    if form is UNCHANGED:
        return Form(name, lambda x: x[..., ::-1], line, "channel order")
    both = f"{line} and {form.command}"
    if form.command.startswith("np."):
        both = f"{form.command}, with [..., ::-1] after both image arrays"
    return Form(f"{name} and {form.name}", lambda x: form.convert(x)[..., ::-1], both, "channel order")


def _imagenet(data: Dataset, images: Images) -> list[Form]:
    """Return the input forms of keras.applications: BGR minus a mean, and standardized RGB."""
    unit, (low, high) = _unit(data, images), _stored_range(data, images)
    if low < 0 or high > BYTE:
        return []
    bgr = np.array([103.939, 116.779, 123.68], np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    as_bytes = "{}.astype(np.float32)" if high > 1 else "({} * 255.)"
    conversions: Mapping[str, Callable[[Images], Images]] = {
        "caffe": lambda x: np.asarray((unit(x) * BYTE)[..., ::-1] - bgr, np.float32),
        "torch": lambda x: np.asarray((unit(x) - mean) / deviation, np.float32),
    }
    return [
        Form(
            f"preprocess_input(mode='{mode}')",
            convert,
            save_line(x=f"tf.keras.applications.imagenet_utils.preprocess_input({as_bytes}, mode='{mode}')"),
        )
        for mode, convert in conversions.items()
    ]


def _standardized(data: Dataset) -> Form:
    """Return the form with each channel or feature standardized over the training examples."""
    axes = tuple(range(data.train.x.ndim - 1))
    mean, deviation = (np.asarray(values, np.float32) for values in data.train.x.moments())
    deviation += np.float32(1e-7)
    line = f"({{}} - x_train.mean(axis={axes})) / x_train.std(axis={axes})"
    return Form(STANDARDIZED, lambda x: np.asarray((x - mean) / deviation, np.float32), save_line(x=line))


def _expected_form(model: "Model", images: Images, forms: list[Form]) -> Form | None:
    """Return the form for which the model's scaling layers give a plausible range; None if the current input does."""
    if not _preprocessing(model, images) or not images.std():
        return None
    low, high = SUSPICIOUS
    if low <= _spread(model, images) <= high:
        return None
    low, high = PLAUSIBLE
    return next((form for form in forms if low <= _spread(model, form.convert(images)) <= high), None)


def _spread(model: "Model", images: Images) -> float:
    """Return the standard deviation, within channels, of the output of a model's scaling layers."""
    values = _preprocessed(model, images)[1]
    return float(values.std(axis=tuple(range(values.ndim - 1))).mean())


def _preprocessing(model: "Model", images: Images) -> str:
    """Return the beginning of a sentence on the layers that scale a model's input; empty if there are none."""
    names = _preprocessed(model, images[:1])[0]
    if len(names) > 1:
        return f"its first layers ({', '.join(names)}) expect"
    return f"its first layer ({names[0]}) expects" if names else ""


SCALING_LAYERS = ("Rescaling", "Normalization")
SCALING_OPS = ("truediv", "divide", "multiply", "subtract", "add", "_add_dispatch", "_truediv", "_sub", "_mul_dispatch")
IGNORED_LAYERS = (
    "InputLayer",
    "Resizing",
    "CenterCrop",
    "Reshape",
    "Cast",
    "cast",
    "identity",
    "Dropout",
    "ZeroPadding2D",
)


def _preprocessed(model: Any, images: Any) -> tuple[list[str], Any]:
    """Return the names of the layers that scale a model's input first, and their output for images."""
    names: list[str] = []
    last = None
    for layer in model.layers:
        if hasattr(layer, "layers"):  # a nested model
            inner, values = _preprocessed(layer, _up_to(model, last, images))
            return [*names, *inner], values
        kind = function_of(layer)
        scales = kind in SCALING_LAYERS or (type(layer).__name__ == "TFOpLambda" and kind in SCALING_OPS)
        if not scales and kind not in IGNORED_LAYERS and not kind.startswith("Random"):
            break
        if scales:
            names.append(layer.name)
        if kind != "InputLayer":
            last = layer
    return names, _up_to(model, last, images)


def _up_to(model: Any, layer: Any, images: Any) -> Any:
    """Return the output of a layer for images; None stands for the model's input."""
    if layer is None:
        return images
    from experiments.system.tensorflow import keras_of

    return np.asarray(keras_of(model).Model(model.inputs, layer.output)(images, training=False))
