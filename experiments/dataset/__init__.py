"""Data sets: examples with targets in three splits, and one option for each source.

Only measurements use the test split; calibration samples come from the training split.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.arrays import Stored
from experiments.dataset.labels import (
    Label,
    class_numbers,
    describe_renumbering,
    describe_unseen,
    output_numbers,
    read_labels,
)
from experiments.dataset.rows import Rows, rows_of
from experiments.dataset.saving import save_line
from experiments.dataset.shapes import Shape, image_shape, shape_for
from experiments.dataset.splitting import held_out
from experiments.dataset.targets import Kind, kind_of, read_targets
from experiments.dataset.values import Scale, Scaling, check_images, scaling_of
from experiments.system.errors import UserError
from experiments.system.options import OPTION

Images = npt.NDArray[np.float32]
ImageRows = Images | Rows  # in memory, or read in parts
Labels = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

# Subsets do not depend on the run's seed: seeds are compared on the same data.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Split:
    """Images (n, ...) float32, read when they are used, and their targets (n, ...).

    For classification, targets are class numbers (n,) int64.
    """

    x: Rows
    y: Array

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: npt.NDArray[np.int64]) -> "Split":
        """Return the images at these positions, in this order."""
        return Split(self.x.take(index), self.y[index])

    def reshape(self, shape: Shape) -> "Split":
        """Return the same images in another shape, (n, *shape)."""
        return Split(self.x.reshape(shape), self.y)

    def renumber(self, numbers: Labels) -> "Split":
        """Return the same images with label i replaced by numbers[i]."""
        return Split(self.x, numbers[self.y])

    def sample(self, size: int) -> "Split":
        """Return a random sample of at most `size` images, always the same one."""
        if size >= len(self):
            return self
        return self.take(np.random.default_rng(SUBSET_SEED).permutation(len(self))[:size])


@dataclass(frozen=True)
class Dataset:
    """A data set for one model: three disjoint splits."""

    train: Split
    validation: Split
    test: Split
    classes: int  # labels run from 0 to classes - 1; for other targets, the outputs that a new model requires
    labels: Mapping[int, str] = field(default_factory=dict)  # the name of each class in the source
    scaling: Scaling = field(default_factory=Scaling)  # of the stored values
    notes: tuple[str, ...] = ()  # assumptions about the arrays, for the user
    warnings: tuple[str, ...] = ()  # what makes results doubtful: 'remark: finding, and what to do'
    kind: Kind = "classes"  # of the targets
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # see Raw

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.train.x.shape[1:]

    @cached_property
    def training_fingerprint(self) -> str:
        """SHA-256 of the training and validation splits."""
        return _digest(self.train, self.validation)

    @cached_property
    def test_fingerprint(self) -> str:
        """SHA-256 of the test split."""
        return _digest(self.test)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all three splits."""
        return hashlib.sha256(f"{self.training_fingerprint} {self.test_fingerprint}".encode()).hexdigest()

    def calibration(self, samples: int, seed: int) -> Rows:
        """Return a random sample of at most `samples` training images for the converter's calibration."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.train))
        return self.train.x.take(order[:samples])


@dataclass(frozen=True)
class Examples:
    """Three splits, independent of a model: images in their stored shape.

    Of classes, `y` are indices into `labels`. Targets of another `kind` have no labels.
    """

    train: Split
    validation: Split
    test: Split
    labels: tuple[Label, ...]  # of both parts of the source, sorted
    training_labels: tuple[Label, ...]  # of all training examples of the source
    test_labels: tuple[Label, ...]
    scaling: Scaling
    missing: str  # note about test labels that no training example has; empty if there are none
    notes: tuple[str, ...] = ()  # of the source
    warnings: tuple[str, ...] = ()
    kind: Kind = "classes"
    why: str = ""  # what shows the kind, if the task did not say it
    ignored: int | None = None  # class of pixels that do not count, for which a model requires no output
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # see Raw

    @property
    def input_shape(self) -> Shape:
        """Stored shape of one example."""
        return self.train.x.shape[1:]

    @property
    def classes(self) -> int:
        """Number of distinct labels; of other targets, the number of outputs that a model requires."""
        match self.kind:
            case "classes":
                return len(self.labels)
            case "maps":
                counted = (each.y[each.y != self.ignored] for each in (self.train, self.validation, self.test))
                return 1 + max((int(y.max()) for y in counted if y.size), default=0)
            case "boxes":
                return 1 + max(int(each.y[..., 0].max(initial=0)) for each in (self.train, self.validation, self.test))
            case "anomalies":
                return prod(self.input_shape)
        return prod(self.train.y.shape[1:])

    def for_new_model(self) -> Dataset:
        """Return the data set for a model that is built for this shape and these classes.

        Raises:
            UserError: a test label has no training example, or there is only one class.
        """
        if self.kind != "classes":
            return self._unlabelled(image_shape(self.input_shape))
        numbers = class_numbers(self.training_labels, self.test_labels)
        return self._as(image_shape(self.input_shape), numbers, len(numbers))

    def for_model(self, input_shape: tuple[int | None, ...], outputs: int) -> Dataset:
        """Return the data set for an existing model: images in its input shape, labels as indices of its outputs.

        Raises:
            UserError: the images or labels do not fit the model.
        """
        if self.kind != "classes":
            return self._unlabelled(shape_for(input_shape, self.input_shape))
        numbers = output_numbers(self.training_labels, self.test_labels, outputs)
        data = self._as(shape_for(input_shape, self.input_shape), numbers, len(self.labels))
        return replace(data, notes=(*data.notes, self.missing)) if self.missing else data

    def _as(self, shape: Shape, numbers: Mapping[Label, int], classes: int) -> Dataset:
        table = np.array([numbers.get(label, 0) for label in self.labels], np.int64)
        train, validation, test = (
            split.reshape(shape).renumber(table) for split in (self.train, self.validation, self.test)
        )
        notes = (*self._notes(shape), describe_renumbering(numbers))
        return Dataset(
            train,
            validation,
            test,
            classes,
            labels={number: str(label) for label, number in numbers.items()},
            scaling=self.scaling,
            notes=tuple(note for note in notes if note),
            warnings=self.warnings,
            preprocessing=self.preprocessing,
        )

    def _unlabelled(self, shape: Shape) -> Dataset:
        train, validation, test = (split.reshape(shape) for split in (self.train, self.validation, self.test))
        notes = tuple(note for note in self._notes(shape) if note)
        return Dataset(
            train,
            validation,
            test,
            self.classes,
            scaling=self.scaling,
            notes=notes,
            warnings=self.warnings,
            preprocessing=self.preprocessing,
            kind=self.kind,
        )

    def _notes(self, shape: Shape) -> tuple[str, ...]:
        """Return notes on the images; some may be empty."""
        flattened = f"images of shape {self.input_shape} are flattened to {shape[0]} values for the model"
        return (*self.notes, self.scaling.assumed, flattened if len(shape) == 1 < len(self.input_shape) else "")


@dataclass(frozen=True)
class Raw:
    """The unprocessed arrays of a source: images, in memory or in files, and targets of any dtype that `Source` takes.

    A source of many files reads only the chosen examples, and then gives the labels that both parts have in all.
    """

    x_train: Stored
    y_train: npt.NDArray[np.generic]
    x_test: Stored
    y_test: npt.NDArray[np.generic]
    chosen: bool = False  # whether they are `train_samples` and `test_samples` already
    labels: tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]] | None = None  # of both parts in all
    groups: npt.NDArray[np.generic] | None = None  # of the training examples; none is in both train and validation
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # 'remark: finding, and what to do'
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # what a device has to do before the scaling


@option(frozen=True, config=OPTION, kw_only=True)
class Source(ABC):
    """The base class of all data set options; a new kind of source defines `read`."""

    loads_once: ClassVar[tuple[str, ...]] = ()  # modules to load once for several runs

    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    validation_split: Annotated[float, Field(ge=0, lt=1)] = 0.1
    stratify: bool = False  # whether the validation split has the same share of each class
    scale: Scale = "auto"  # the scaling of image values, see values.scaling_of

    def check(self) -> None:
        """Raise UserError if the images are not available; called before TensorFlow is imported."""

    def check_targets(self, kind: Kind | None) -> None:
        """Raise UserError if the targets are not of this kind (None: any); may skip data that take long to read."""

    def check_for_new_model(self) -> None:
        """Raise UserError if no model can be built for these classes; may skip data that take long to read."""

    @abstractmethod
    def read(self) -> Raw:
        """Return all images and targets of the source; raise UserError if they are not available."""

    def read_unlabelled(self) -> Raw:
        """Return all images, and 0 as targets where the source has none; for reconstruction."""
        return self.read()

    def load(self) -> Dataset:
        """Return the checked data set for a new model; see `examples` and Examples.for_new_model."""
        return self.examples().for_new_model()

    def examples(self, kind: Kind | None = None) -> Examples:
        """Return checked and scaled examples, at most `train_samples` and `test_samples`, with a validation split.

        `kind` is that of the targets; None: what they show.

        Raises:
            UserError: the arrays are not available, or are not images with targets of this kind.
        """
        raw = self.read_unlabelled() if kind == "anomalies" else self.read()
        x_train, x_test = raw.x_train, raw.x_test
        check_images(x_train, "train")
        check_images(x_test, "test")
        if x_train.shape[1:] != x_test.shape[1:]:
            raise UserError(
                f"x_train and x_test: require images of the same shape, not {x_train.shape[1:]} and {x_test.shape[1:]}."
            )
        shown, why = (kind, "") if kind else kind_of(raw.y_train, raw.y_test)
        if shown != "classes":
            return self._with_targets(raw, shown, why)
        y_train = read_labels(raw.y_train, len(x_train), "train")
        y_test = read_labels(raw.y_test, len(x_test), "test")
        scaling = scaling_of(x_train, x_test, self.scale)
        all_labels = raw.labels or (y_train, y_test)
        training_labels, test_labels = (tuple(np.unique(y).tolist()) for y in all_labels)
        labels = _distinct_labels(*all_labels)
        places = [np.searchsorted(labels, y).astype(np.int64) for y in (y_train, y_test)]
        return Examples(
            *self._splits(raw, places[0], places[1], scaling),
            tuple(labels.tolist()),
            training_labels,
            test_labels,
            scaling,
            describe_unseen(training_labels, y_test),
            raw.notes,
            raw.warnings,
            why=why,
            preprocessing=raw.preprocessing,
        )

    def _with_targets(self, raw: Raw, kind: Kind, why: str) -> Examples:
        """Return examples with targets of a kind other than classes."""
        if self.stratify and kind != "anomalies":  # of which training has none
            raise UserError(
                f"dataset.stratify=true: requires classes, not targets of the kind {kind}. Type dataset.stratify=false."
            )
        targets = read_targets(raw.y_train, raw.y_test, (len(raw.x_train), len(raw.x_test)), kind)
        scaling = scaling_of(raw.x_train, raw.x_test, self.scale)
        splits = self._splits(raw, targets.train, targets.test, scaling)
        return Examples(
            *splits, (), (), (), scaling, "", raw.notes, raw.warnings, kind, why, preprocessing=raw.preprocessing
        )

    def _splits(self, raw: Raw, y_train: Array, y_test: Array, scaling: Scaling) -> tuple[Split, Split, Split]:
        """Select and scale the examples of the three splits."""
        samples = (None, None) if raw.chosen else (self.train_samples, self.test_samples)
        chosen = choice(samples[0], len(raw.x_train), "train")
        train = _subset(raw.x_train, y_train, chosen, scaling)
        test = _subset(raw.x_test, y_test, choice(samples[1], len(raw.x_test), "test"), scaling)
        groups = None if raw.groups is None else raw.groups if chosen is None else raw.groups[chosen]
        return *_hold_out(train, self.validation_split, self.stratify, groups), test


def _distinct_labels(train: npt.NDArray[np.generic], test: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the distinct labels of both parts, sorted.

    Raises:
        UserError: one part has strings, and the other numbers.
    """
    if train.dtype.kind != test.dtype.kind:
        kinds = {"U": "strings", "i": "numbers"}
        raise UserError(
            f"y_train and y_test: require labels of the same type, not {kinds[train.dtype.kind]} such as {train[0]} "
            f"and {kinds[test.dtype.kind]} such as {test[0]}. {save_line(y='{}.astype(str)')}"
        )
    return np.unique(np.concatenate([np.unique(train), np.unique(test)]))


def _subset(images: Stored, labels: Array, chosen: Labels | None, scaling: Scaling) -> Split:
    """Select images; those that are not selected are never read."""
    split = Split(rows_of(images, scaling), labels)
    return split if chosen is None else split.take(chosen)


def _hold_out(train: Split, share: float, stratify: bool, groups: npt.NDArray[Any] | None) -> tuple[Split, Split]:
    if share and (stratify or groups is not None):
        held = held_out(train.y if stratify else np.zeros(len(train)), share, SUBSET_SEED, groups)
    else:
        held = np.zeros(len(train), bool)
        held[_choice(round(len(train) * share), len(train))] = True
    if held.all():
        raise UserError(
            f"dataset.validation_split={share}: leaves none of {len(train)} images for training. Use a smaller share, "
            "or more dataset.train_samples."
        )
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


def choice(samples: int | None, total: int, part: str) -> Labels | None:
    """Return the positions of `samples` of `total` images, always the same ones, sorted; None for all.

    Raises:
        UserError: there are fewer images.
    """
    if samples is None:
        return None
    if samples > total:
        raise UserError(
            f"dataset.{part}_samples={samples}: requires at most {total}, the number of images in the data set, "
            "or null for all."
        )
    return _choice(samples, total)


def _choice(samples: NonNegativeInt, total: int) -> Labels:
    """Draw `samples` positions of `total` without replacement, always the same ones, sorted."""
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(total)[:samples])


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(f"{split.x.dtype.str}{split.x.shape}".encode())
        for images in split.x.chunks():
            digest.update(np.ascontiguousarray(images).data)
        digest.update(f"{split.y.dtype.str}{split.y.shape}".encode())
        digest.update(np.ascontiguousarray(split.y).data)
    return digest.hexdigest()
