"""Data sets: labelled images, split three ways, and one option for each place they come from.

The test split is touched by the measurements only; calibration samples come from the training split.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.labels import Label, class_numbers, output_numbers, read_labels, renumbering, unseen
from experiments.dataset.saving import saving
from experiments.dataset.shapes import Shape, image_shape, shape_for
from experiments.dataset.values import Scale, Scaling, check_images, scaling_of
from experiments.system.errors import UserError
from experiments.system.options import OPTION

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Which images a subset holds must not depend on the run's seed: seeds are compared on the same data.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Split:
    """Images (n, ...) float32 and their labels (n,) int64."""

    x: Images
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: npt.NDArray[np.int64]) -> "Split":
        """The images at these positions, in this order."""
        return Split(self.x[index], self.y[index])

    def arranged(self, shape: Shape) -> "Split":
        """The same images with an axis of 1 more or less, or in one row: (n, *shape)."""
        return Split(self.x.reshape(len(self), *shape), self.y)

    def numbered(self, numbers: Labels) -> "Split":
        """The same images, their labels (n,) exchanged: label i becomes numbers[i]."""
        return Split(self.x, numbers[self.y])

    def sample(self, size: int) -> "Split":
        """So many images, the same whenever it is asked; of all classes, also where the file holds them in turn."""
        if size >= len(self):
            return self
        return self.take(np.random.default_rng(SUBSET_SEED).permutation(len(self))[:size])


@dataclass(frozen=True)
class Dataset:
    """A classification task: three splits that share no image."""

    train: Split
    validation: Split
    test: Split
    classes: int  # labels run from 0 to classes - 1
    labels: Mapping[int, str] = field(default_factory=dict)  # what each class is called where the data come from
    scaling: Scaling = field(default_factory=Scaling)  # of what is stored
    notes: tuple[str, ...] = ()  # what was assumed of the arrays, for the user

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.train.x.shape[1:]

    @cached_property
    def training_fingerprint(self) -> str:
        """SHA-256 of all that training sees; the test split has no part in it."""
        return _digest(self.train, self.validation)

    @cached_property
    def test_fingerprint(self) -> str:
        """SHA-256 of what accuracies are measured on."""
        return _digest(self.test)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 that stands for all three splits."""
        return hashlib.sha256(f"{self.training_fingerprint} {self.test_fingerprint}".encode()).hexdigest()

    def calibration(self, samples: int, seed: int) -> Images:
        """A random sample of the training images, for the converter's calibration: at most `samples`."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.train))
        return self.train.x[order[:samples]]


@dataclass(frozen=True)
class Examples:
    """Three splits before a model is known: images in the shape that is stored; `y` are positions in `labels`."""

    train: Split
    validation: Split
    test: Split
    labels: tuple[Label, ...]  # of both parts of the source, sorted
    of_training: tuple[Label, ...]  # those of all its training examples
    of_test: tuple[Label, ...]
    scaling: Scaling
    missing: str  # what is said of test labels that no training example has; empty where there are none

    @property
    def input_shape(self) -> Shape:
        """Shape of one example as it is stored."""
        return self.train.x.shape[1:]

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    def for_new_model(self) -> Dataset:
        """For a model that is built for this shape and these classes.

        Raises:
            UserError: a test label that no training example has, or one class only.
        """
        numbers = class_numbers(self.of_training, self.of_test)
        return self._as(image_shape(self.input_shape), numbers, len(numbers))

    def for_model(self, input_shape: tuple[int | None, ...], outputs: int) -> Dataset:
        """For a model that is given, as it takes images and with labels that index its outputs.

        Raises:
            UserError: images or labels do not fit.
        """
        numbers = output_numbers(self.of_training, self.of_test, outputs)
        data = self._as(shape_for(input_shape, self.input_shape), numbers, len(self.labels))
        return replace(data, notes=(*data.notes, self.missing)) if self.missing else data

    def _as(self, shape: Shape, numbers: Mapping[Label, int], classes: int) -> Dataset:
        table = np.array([numbers.get(label, 0) for label in self.labels], np.int64)
        train, validation, test = (
            split.arranged(shape).numbered(table) for split in (self.train, self.validation, self.test)
        )
        in_a_row = f"the model takes images {self.input_shape} in one row of {shape[0]} values"
        notes = (
            self.scaling.assumed,
            in_a_row if len(shape) == 1 < len(self.input_shape) else "",
            renumbering(numbers),
        )
        return Dataset(
            train,
            validation,
            test,
            classes,
            labels={number: str(label) for label, number in numbers.items()},
            scaling=self.scaling,
            notes=tuple(note for note in notes if note),
        )


@dataclass(frozen=True)
class Raw:
    """What a source holds, as it stands there: images and labels of any dtype that `Source` accepts."""

    x_train: npt.NDArray[np.generic]
    y_train: npt.NDArray[np.generic]
    x_test: npt.NDArray[np.generic]
    y_test: npt.NDArray[np.generic]


@option(frozen=True, config=OPTION, kw_only=True)
class Source(ABC):
    """What all data set options have in common; a new kind of source defines `read`."""

    loads_once: ClassVar[tuple[str, ...]] = ()  # modules that several runs share when they are loaded before

    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    validation_split: Annotated[float, Field(ge=0, lt=1)] = 0.1
    scale: Scale = "auto"  # what becomes of the values of images: see values.scaling_of

    def check(self) -> None:
        """Raise UserError where the images cannot be had; called before TensorFlow is imported, where a run is made."""

    def check_for_new_model(self) -> None:
        """Raise UserError where the labels cannot be those of a model that is built for them, as far as that shows."""

    @abstractmethod
    def read(self) -> Raw:
        """All images and labels of the source; raises UserError where they cannot be had."""

    def load(self) -> Dataset:
        """The checked data set for a model that is built to fit it; see `examples` and Examples.for_new_model."""
        return self.examples().for_new_model()

    def examples(self) -> Examples:
        """What the source holds, checked, scaled and cut to `train_samples` and `test_samples`; validation held out.

        Raises:
            UserError: the arrays cannot be had, or are no images with labels.
        """
        raw = self.read()
        x_train, x_test = raw.x_train, raw.x_test
        check_images(x_train, "train")
        check_images(x_test, "test")
        if x_train.shape[1:] != x_test.shape[1:]:
            raise UserError(
                f"Images of x_train have the shape {x_train.shape[1:]}, those of x_test {x_test.shape[1:]}: "
                "both need the same."
            )
        y_train = read_labels(raw.y_train, len(x_train), "train")
        y_test = read_labels(raw.y_test, len(x_test), "test")
        scaling = scaling_of(x_train, x_test, self.scale)
        of_training, of_test = (tuple(np.unique(y).tolist()) for y in (y_train, y_test))
        labels = _together(y_train, y_test)
        places = [np.searchsorted(labels, y).astype(np.int64) for y in (y_train, y_test)]
        train = _subset(x_train, places[0], self.train_samples, "train", scaling)
        test = _subset(x_test, places[1], self.test_samples, "test", scaling)
        return Examples(
            *_held_out(train, self.validation_split),
            test,
            tuple(labels.tolist()),
            of_training,
            of_test,
            scaling,
            unseen(of_training, y_test),
        )


def _together(train: npt.NDArray[np.generic], test: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The distinct labels of both parts, sorted.

    Raises:
        UserError: one part holds strings, and the other numbers.
    """
    if train.dtype.kind != test.dtype.kind:
        kinds = {"U": "strings", "i": "numbers"}
        raise UserError(
            f"y_train holds {kinds[train.dtype.kind]} such as {train[0]}, and y_test {kinds[test.dtype.kind]} such as "
            f"{test[0]}: both need the same labels. {saving(y='{}.astype(str)')}"
        )
    return np.unique(np.concatenate([np.unique(train), np.unique(test)]))


def _subset(images: npt.NDArray[np.generic], labels: Labels, samples: int | None, part: str, scaling: Scaling) -> Split:
    """The first step that computes with images: those that are not taken cost nothing."""
    if samples is None:
        return Split(scaling.applied(images), labels)
    if samples > len(labels):
        raise UserError(
            f"dataset.{part}_samples={samples}: the data set holds {len(labels)} images; give at most that, or null "
            "for all."
        )
    taken = _choice(samples, len(labels))
    return Split(scaling.applied(images[taken]), labels[taken])


def _held_out(train: Split, share: float) -> tuple[Split, Split]:
    held = np.zeros(len(train), bool)
    held[_choice(round(len(train) * share), len(train))] = True
    if held.all():
        raise UserError(
            f"dataset.validation_split={share} of {len(train)} training images leaves none to train on; "
            "give a smaller share or more dataset.train_samples."
        )
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


def _choice(samples: NonNegativeInt, total: int) -> npt.NDArray[np.int64]:
    """`samples` positions of `total`, drawn without replacement, always the same, in the order of the file."""
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(total)[:samples])


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.x, split.y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
