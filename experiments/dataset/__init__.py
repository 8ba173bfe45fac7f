"""Data sets: labelled images, split three ways, and one card for each place they come from.

The test split is touched by the measurements only; calibration samples come from the training split.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.errors import UserError

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
class Raw:
    """What a source holds, as it stands there: images of any dtype, labels of any integer dtype."""

    x_train: npt.NDArray[np.generic]
    y_train: npt.NDArray[np.generic]
    x_test: npt.NDArray[np.generic]
    y_test: npt.NDArray[np.generic]


@card(frozen=True, config=CARD, kw_only=True)
class Source(ABC):
    """What all data set cards have in common; a new kind of source defines `read`."""

    loads_once: ClassVar[tuple[str, ...]] = ()  # modules that several runs share when they are loaded before

    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    validation_split: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def check(self) -> None:
        """Raise UserError where the images cannot be had; called before TensorFlow is imported, where a run is made."""

    @abstractmethod
    def read(self) -> Raw:
        """All images and labels of the source; raises UserError where they cannot be had."""

    def load(self) -> Dataset:
        """The checked data set, cut to `train_samples` and `test_samples`, its validation split held out."""
        raw = self.read()
        x_train, x_test = _checked(raw.x_train, "train"), _checked(raw.x_test, "test")
        if x_train.shape[1:] != x_test.shape[1:]:
            raise UserError(
                f"Images of x_train have the shape {x_train.shape[1:]}, those of x_test {x_test.shape[1:]}: "
                "both need the same."
            )
        if x_train.dtype != x_test.dtype and "u" in (x_train.dtype.kind, x_test.dtype.kind):
            raise UserError(
                f"x_train has the dtype {x_train.dtype}, and x_test {x_test.dtype}: unsigned integers are scaled by "
                "their own largest value and floats are not, so both need the same."
            )
        y_train = _class_labels(raw.y_train, len(x_train), "train")
        y_test = _class_labels(raw.y_test, len(x_test), "test")
        classes = _classes(y_train)
        if y_test.max() >= classes:
            raise UserError(
                f"y_test holds the label {y_test.max()}, but the training labels run from 0 to "
                f"{classes - 1}: a model cannot know a class that it was never shown."
            )
        train = _subset(x_train, y_train, self.train_samples, "train")
        test = _subset(x_test, y_test, self.test_samples, "test")
        return Dataset(*_held_out(train, self.validation_split), test, classes)


def _checked(images: npt.NDArray[np.generic], part: str) -> npt.NDArray[np.generic]:
    """The images as they came, grey ones with a channel axis."""
    if images.ndim < 2:
        raise UserError(
            f"x_{part} has the shape {images.shape}: it needs one axis for the images and one or more for "
            "each image, such as (n, height, width) or (n, height, width, channels)."
        )
    if images.dtype.kind not in "uf":
        raise UserError(
            f"x_{part} has the dtype {images.dtype}: images are unsigned integers, which are scaled to 0..1, "
            "or floats, which are used as they are."
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise UserError(f"x_{part} holds values that are not finite (NaN or infinity).")
    return images[..., np.newaxis] if images.ndim == 3 else images


def _scaled(images: npt.NDArray[np.generic]) -> Images:
    """Integers of b bits become 0..1; floats stay as they are."""
    if images.dtype.kind == "u":
        scaled: Images = images.astype(np.float32) / np.float32(2 ** (8 * images.dtype.itemsize) - 1)
        return scaled
    return np.asarray(images, np.float32)


def _class_labels(labels: npt.NDArray[np.generic], images: int, part: str) -> Labels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(
            f"y_{part} has the shape {labels.shape}: labels are class numbers of the shape (n,). "
            "For one-hot labels give labels.argmax(axis=1)."
        )
    if len(labels) != images:
        raise UserError(f"x_{part} holds {images} images and y_{part} {len(labels)} labels: they must be as many.")
    if images == 0:
        raise UserError(f"x_{part} holds no image.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"y_{part} has the dtype {labels.dtype}: labels are integers, 0 to classes - 1.")
    if int(labels.min()) < 0:
        raise UserError(f"y_{part} holds the label {labels.min()}: labels run from 0 to classes - 1.")
    return np.asarray(labels, np.int64)


def _classes(labels: Labels) -> int:
    """How many classes there are: every number from 0 on has to occur, or one stray label would make many."""
    present = np.unique(labels)
    if len(present) != present[-1] + 1:
        gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise UserError(
            f"y_train holds the label {present[-1]}, and no image of the class {gap}: labels run from 0 to classes - 1 "
            "without gaps."
        )
    if len(present) == 1:
        raise UserError("y_train holds the label 0 only: with one class every answer is right. Give two or more.")
    return len(present)


def _subset(images: npt.NDArray[np.generic], labels: Labels, samples: int | None, part: str) -> Split:
    """The first step that computes with images: those that are not taken cost nothing."""
    if samples is None:
        return Split(_scaled(images), labels)
    if samples > len(labels):
        raise UserError(
            f"dataset.{part}_samples={samples}: the data set holds {len(labels)} images; give at most that, or null "
            "for all."
        )
    taken = _choice(samples, len(labels))
    return Split(_scaled(images[taken]), labels[taken])


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
