"""Data sets: examples with targets in three splits, and one option for each source.

Only measurements use the test split; calibration samples come from the training split.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.arrays import Stored, parts_of
from experiments.dataset.entries import (
    Scales,
    check_inputs,
    check_names,
    check_scales,
    count,
    forms,
    integer_scaling,
    named_rows,
    pairs,
    pick,
    refuse_single,
    scale_of,
    scaling_for,
)
from experiments.dataset.labels import (
    Label,
    class_numbers,
    describe_renumbering,
    describe_unseen,
    list_labels,
    output_numbers,
    read_labels,
)
from experiments.dataset.place import ARRAYS, Place
from experiments.dataset.rows import NamedRows, Rows, rows_of
from experiments.dataset.saving import save_line
from experiments.dataset.shapes import Entries, Shape, channel_warnings, image_shape, shape_for
from experiments.dataset.splitting import held_out
from experiments.dataset.targets import PARTS, Kind, Targets, kind_of, largest_class, read_targets
from experiments.dataset.values import Scaling, range_warnings, scaling_of
from experiments.system.errors import UserError, suggestion
from experiments.system.options import OPTION

Images = npt.NDArray[np.float32]
ImageRows = Images | Rows  # in memory, or read in parts
Labels = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

RARE = 4  # times as many classes as occur are refused
# Subsets do not depend on the run's seed: seeds are compared on the same data.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Split:
    """Images (n, ...) float32, read when they are used, and their targets (n, ...).

    Examples with several inputs are structured, (n,). For classification, targets are class numbers (n,) int64. Classes
    of pixels are Rows, since they may be larger than memory.
    """

    x: Rows
    y: Array

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: npt.NDArray[np.int64]) -> "Split":
        """Return the images at these positions, in this order."""
        y: Any = self.y
        return Split(self.x.take(index), cast(Array, y.take(index) if isinstance(y, Rows) else y[index]))

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
    output: str = ""  # of a model with several, the one that has these targets
    further: Mapping[str, "Dataset"] = field(default_factory=dict)  # the same examples with targets of other outputs
    place: Place = ARRAYS

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.train.x.shape[1:]

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """Scaling of each of several inputs, by name; that of the only input has the name ''."""
        x = self.train.x
        return (
            {name: rows.scaling for name, rows in x.parts.items()} if isinstance(x, NamedRows) else {"": self.scaling}
        )

    @cached_property
    def training_fingerprint(self) -> str:
        """SHA-256 of the training and validation splits."""
        return self._with_further(_digest(self.train, self.validation), "training_fingerprint")

    @cached_property
    def test_fingerprint(self) -> str:
        """SHA-256 of the test split."""
        return self._with_further(_digest(self.test), "test_fingerprint")

    def _with_further(self, own: str, name: str) -> str:
        """Return a digest that covers the targets of other outputs too."""
        others = [f"{output} {getattr(data, name)}" for output, data in sorted(self.further.items())]
        return hashlib.sha256(" ".join([own, *others]).encode()).hexdigest() if others else own

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
    labels: tuple[Label, ...] = ()  # of both parts of the source, sorted
    training_labels: tuple[Label, ...] = ()  # of all training examples of the source
    test_labels: tuple[Label, ...] = ()
    scaling: Scaling = field(default_factory=Scaling)
    missing: str = ""  # note about test labels that no training example has; empty if there are none
    notes: tuple[str, ...] = ()  # of the source
    warnings: tuple[str, ...] = ()
    kind: Kind = "classes"
    why: str = ""  # what shows the kind, if the task did not say it
    ignored: int | None = None  # class of pixels that do not count, for which a model requires no output
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # see Raw
    output: str = ""  # the name of the output that has these targets; empty if the source has no names
    further: Mapping[str, "Examples"] = field(default_factory=dict)  # the same examples with targets of other outputs
    stored: Mapping[str, tuple[Stored, Stored]] = field(default_factory=dict)  # both parts of several inputs
    scale: Scales = "auto"  # of these inputs
    place: Place = ARRAYS
    shaped_by: str = ""  # see Raw

    @property
    def input_shape(self) -> Shape:
        """Stored shape of one example."""
        return self.train.x.shape[1:]

    @property
    def stored_shapes(self) -> Mapping[str, Shape]:
        """Stored shape of one example of each of several inputs, by name."""
        return {name: array.shape[1:] for name, (array, _) in self.stored.items()}

    @property
    def classes(self) -> int:
        """Number of distinct labels; for other targets, the number of outputs that a model requires."""
        match self.kind:
            case "classes":
                return len(self.labels)
            case "maps":
                return 1 + max(largest_class(each.y, self.ignored) for each in (self.train, self.validation, self.test))
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
        if self.stored or self.further:
            named = "inputs" if self.stored else "outputs"
            raise UserError(
                f"dataset: has several {named} ({', '.join(self.stored or (self.output, *self.further))}), and the "
                "bundled architectures have one. Use your own model: model=keras_file model.path=FILE.keras"
            )
        shaped = self._shaped(image_shape(self.input_shape))
        shaped = replace(shaped, warnings=(*shaped.warnings, *channel_warnings(self.input_shape)))
        if self.kind != "classes":
            self._check_numbering()
            return replace(shaped, notes=(*shaped.notes, *self._idle_classes()))._unlabelled()
        numbers = class_numbers(self.training_labels, self.test_labels, self.place)
        return shaped._as(numbers, len(numbers))

    def _check_numbering(self) -> None:
        """Refuse classes of pixels most of which do not occur, such as 0 and 255: each would become an output."""
        if self.kind != "maps":
            return
        each = [np.unique(part) for _, split in self._splits() for part in parts_of(split.y)]
        found = np.unique(np.concatenate(each))
        found = found[found != self.ignored]
        if len(found) and RARE * len(found) < found[-1] + 1:
            listed = list_labels(tuple(found.tolist()))
            raise UserError(
                f"y_train and y_test: require classes of pixels numbered from 0, not {listed}. Number them: "
                f"{save_line(y='np.searchsorted(np.unique(y_train), {})')}. If {found[-1]} marks pixels that do not "
                f"count: task=segmentation task.ignored={found[-1]}"
            )

    def _idle_classes(self) -> tuple[str, ...]:
        """Return a note on boxes whose classes are numbered from 1: the model has scores for the class 0, too."""
        if self.kind != "boxes":
            return ()
        numbers = np.concatenate([split.y[..., 0].ravel() for _, split in self._splits()])
        least = int(numbers[numbers >= 0].min(initial=self.classes))
        if least == 0 or least >= self.classes:
            return ()
        return (f"boxes have classes from {least} to {self.classes - 1}; the model also learns scores of class 0",)

    def for_model(self, entries: tuple[int | None, ...] | Entries, outputs: int | Mapping[str, int]) -> Dataset:
        """Return the data set for an existing model: images in its input shape, labels as indices of its outputs.

        Args:
            entries: The shape of the model's only input, or all its inputs by name.
            outputs: The number of outputs for an example, or the numbers of several outputs by name.

        Raises:
            UserError: the images or labels do not fit the model.
        """
        names = outputs if isinstance(outputs, Mapping) else {"": outputs}
        self._check_outputs(names)
        output = self.output if len(names) > 1 else ""
        formed = self._in_form(entries)
        data = formed._for_output(names[output] if output else next(iter(names.values())))
        others = {name: each._beside(formed)._for_output(names[name]) for name, each in self.further.items()}
        return replace(data, output=output, further=others)

    def _beside(self, first: "Examples") -> "Examples":
        """Return these targets with the examples of others."""
        pairs = [(own, getattr(first, name)) for name, own in self._splits()]
        train, validation, test = (Split(shaped.x, own.y) for own, shaped in pairs)
        return replace(self, train=train, validation=validation, test=test, scaling=first.scaling)

    def _splits(self) -> tuple[tuple[str, Split], ...]:
        return ("train", self.train), ("validation", self.validation), ("test", self.test)

    def _check_outputs(self, names: Iterable[str]) -> None:
        """Check that targets with names are those of the model's outputs."""
        known = tuple(names)
        if known == ("",):
            return
        if not self.output and len(known) > 1:
            raise UserError(
                f"task.output: is required, since the model has the outputs {', '.join(known)}, and {self.place.train} "
                f"does not say which one it is for. Type task.output={known[0]}"
                f"{self.place.code(', or save targets by name: ', f'y_train/{known[0]}')}."
            )
        for name in filter(None, (self.output, *self.further)):
            if name not in known:
                raise UserError(f"y_train/{name}: the model has no output {name}. {suggestion(name, known)}")

    def _for_output(self, outputs: int) -> Dataset:
        """Return the data set for one output of a model, whose input has the shape of the examples."""
        if self.kind != "classes":
            return self._unlabelled()
        numbers = output_numbers(self.training_labels, self.test_labels, outputs, self.place)
        data = self._as(numbers, len(self.labels))
        return replace(data, notes=(*data.notes, self.missing)) if self.missing else data

    def _in_form(self, entries: tuple[int | None, ...] | Entries) -> "Examples":
        """Return the examples in the form of a model's inputs."""
        if not isinstance(entries, Mapping):
            return self._shaped(shape_for(entries, self.input_shape, shaped_by=self.shaped_by))
        if not self.stored:
            if len(entries) > 1:
                raise refuse_single(entries)
            (entry,) = entries.values()
            shaped = self._shaped(shape_for(entry.shape, self.input_shape, shaped_by=self.shaped_by))
            x, tests = self.train.x, self.test.x
            scaling = integer_scaling((x.stored, tests.stored), entry, place=self.place)
            return shaped if scaling is None else shaped._scaled({"": scaling})
        check_names(self.stored, entries)
        scalings = {
            name: scaling_for(self.stored[name], entry, name, scale_of(self.scale, name))
            for name, entry in entries.items()
        }
        shapes = forms(entries, self.stored_shapes)
        return self._scaled(scalings, dict(zip(entries, shapes, strict=True)))

    def _scaled(self, scalings: Mapping[str, Scaling], shapes: Mapping[str, Shape] | None = None) -> "Examples":
        """Return the examples with other scalings, and shapes, of their inputs, in this order."""

        def changed(split: Split) -> Split:
            held = split.x.parts if isinstance(split.x, NamedRows) else {"": split.x}
            parts = {name: replace(held[name], scaling=scaling) for name, scaling in scalings.items()}
            parts = {name: rows.reshape(shapes[name]) if shapes else rows for name, rows in parts.items()}
            return Split(NamedRows(parts=parts) if len(parts) > 1 else next(iter(parts.values())), split.y)

        train, validation, test = (changed(split) for _, split in self._splits())
        only = next(iter(scalings.values())) if len(scalings) == 1 else Scaling()
        notes = tuple(filter(None, (scaling.assumed for scaling in scalings.values())))
        return replace(self, train=train, validation=validation, test=test, scaling=only, notes=(*self.notes, *notes))

    def _shaped(self, shape: Shape) -> "Examples":
        """Return the examples of one input in this shape, with notes on them."""
        train, validation, test = (split.reshape(shape) for _, split in self._splits())
        flat = f"examples of shape {self.input_shape} are flattened to {shape[0]} values for the model"
        noted = (*self.notes, self.scaling.assumed, flat if len(shape) == 1 < len(self.input_shape) else "")
        return replace(self, train=train, validation=validation, test=test, notes=tuple(note for note in noted if note))

    def _as(self, numbers: Mapping[Label, int], classes: int) -> Dataset:
        table = np.array([numbers.get(label, 0) for label in self.labels], np.int64)
        train, validation, test = (split.renumber(table) for split in (self.train, self.validation, self.test))
        notes = (*self.notes, describe_renumbering(numbers))
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
            place=self.place,
        )

    def _unlabelled(self) -> Dataset:
        return Dataset(
            self.train,
            self.validation,
            self.test,
            self.classes,
            scaling=self.scaling,
            notes=self.notes,
            warnings=self.warnings,
            preprocessing=self.preprocessing,
            kind=self.kind,
            place=self.place,
        )


@dataclass(frozen=True)
class Raw:
    """The unprocessed arrays of a source: images, in memory or in files, and targets of any dtype that `Source` takes.

    Several inputs are a mapping of arrays by the names of the model's inputs, and targets of several outputs one by
    those of its outputs.

    A source of many files reads only the chosen examples, and then gives the labels that both parts have in all.
    """

    x_train: Any  # Inputs
    y_train: Any  # an array, or a mapping of arrays
    x_test: Any
    y_test: Any
    chosen: bool = False  # whether they are `train_samples` and `test_samples` already
    labels: tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]] | None = None  # of both parts in all
    groups: npt.NDArray[np.generic] | None = None  # of the training examples; none is in both train and validation
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # 'remark: finding, and what to do'
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # what a device has to do before the scaling
    place: Place = ARRAYS
    shaped_by: str = ""  # what to type for examples of another shape; empty if only the user can change them


@option(frozen=True, config=OPTION, kw_only=True)
class Source(ABC):
    """The base class of all data set options; a new kind of source defines `read`."""

    loads_once: ClassVar[tuple[str, ...]] = ()  # modules to load once for several runs

    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    validation_split: Annotated[float, Field(ge=0, lt=1)] = 0.1
    stratify: bool = False  # whether the validation split has the same share of each class
    scale: Annotated[Scales, BeforeValidator(pairs)] = "auto"  # of image values, see values.scaling_of; or by input

    def check(self) -> None:
        """Raise UserError if the images are not available; called before TensorFlow is imported."""

    def check_targets(self, kind: Kind | None, output: str | None = None) -> None:
        """Raise UserError if the targets are not of this kind (None: any); may skip data that take long to read."""

    def check_for_new_model(self) -> None:
        """Raise UserError if no model can be built for these classes; may skip data that take long to read."""

    @abstractmethod
    def read(self) -> Raw:
        """Return all images and targets of the source; raise UserError if they are not available."""

    def read_unlabelled(self) -> Raw:
        """Return all images, and 0 as targets where the source has none; for reconstruction."""
        return self.read()

    def read_for(self, kind: Kind | None) -> Raw:
        """Return the images, and targets of this kind (None: any), which may decide how they are split."""
        return self.read_unlabelled() if kind == "anomalies" else self.read()

    def load(self) -> Dataset:
        """Return the checked data set for a new model; see `examples` and Examples.for_new_model."""
        return self.examples().for_new_model()

    def examples(self, kind: Kind | None = None, output: str | None = None) -> Examples:
        """Return checked and scaled examples, at most `train_samples` and `test_samples`, with a validation split.

        Args:
            kind: Of the targets that judge the model; None: what they show.
            output: The output that has these targets, of a model with several; None: the only one that has targets.

        Raises:
            UserError: the arrays are not available, or are not images with targets of this kind.
        """
        raw = self.read_for(kind)
        check_inputs(raw.x_train, raw.x_test, raw.place)
        train, test = raw.y_train, raw.y_test
        if isinstance(train, Mapping) != isinstance(test, Mapping):
            raise UserError("y_train and y_test: require targets of the same outputs, but only one has several.")
        if not isinstance(train, Mapping):
            assert not isinstance(test, Mapping)
            return self._examples(raw, train, test, kind, output or "")
        assert isinstance(test, Mapping)
        if set(train) != set(test):
            raise UserError(
                "y_train and y_test: require targets of the same outputs, not "
                f"{', '.join(train) or 'none'} and {', '.join(test) or 'none'}."
            )
        judged = pick(train, output)
        by = read_labels(train[judged], count(raw.x_train), f"train/{judged}") if self.stratify else None
        first = self._examples(raw, train[judged], test[judged], kind, judged, by)
        further = {
            name: self._examples(raw, train[name], test[name], None, name, by) for name in train if name != judged
        }
        return replace(first, further=further)

    def _examples(
        self, raw: Raw, train: Array, test: Array, kind: Kind | None, output: str, by: Array | None = None
    ) -> Examples:
        """Return examples with the targets of one output; `by` are the classes that the splits are stratified by."""
        shown, why = (kind, "") if kind else kind_of(train, test)
        if shown != "classes":
            if self.stratify and by is None and shown != "anomalies":  # of which training has none
                raise UserError(
                    f"dataset.stratify=true: requires classes, not targets of the kind {shown}. Type "
                    "dataset.stratify=false."
                )
            targets = read_targets(train, test, (count(raw.x_train), count(raw.x_test)), shown, output, raw.place)
            return self._with_splits(raw, targets, by, kind=shown, why=why, output=output)
        end = f"/{output}" if output else ""
        y_train = read_labels(train, count(raw.x_train), f"train{end}", raw.place)
        y_test = read_labels(test, count(raw.x_test), f"test{end}", raw.place)
        all_labels = raw.labels or (y_train, y_test)
        training_labels, test_labels = (tuple(np.unique(y).tolist()) for y in all_labels)
        labels = _distinct_labels(all_labels[0], all_labels[1], raw.place)
        places = [np.searchsorted(labels, y).astype(np.int64) for y in (y_train, y_test)]
        return self._with_splits(
            raw,
            Targets(places[0], places[1]),
            by,
            labels=tuple(labels.tolist()),
            training_labels=training_labels,
            test_labels=test_labels,
            missing=describe_unseen(training_labels, y_test, raw.place),
            why=why,
            output=output,
        )

    def _with_splits(self, raw: Raw, targets: Targets, by: Array | None, **described: Any) -> Examples:
        """Return the selected examples of the three splits, scaled, with what else is `described` of them.

        The scaling of several inputs depends on the model.
        """
        warnings = list(raw.warnings)
        samples = (None, None) if raw.chosen else (self.train_samples, self.test_samples)
        places = [
            choice(size, count(inputs), part)
            for size, inputs, part in zip(samples, (raw.x_train, raw.x_test), PARTS, strict=True)
        ]
        if isinstance(raw.x_train, Mapping) and isinstance(raw.x_test, Mapping):
            check_scales(self.scale, raw.x_train)
            stored = {name: (array, raw.x_test[name]) for name, array in raw.x_train.items()}
            described |= {"stored": stored, "scale": self.scale}
            scaling: Scaling = Scaling()
            rows: tuple[Rows, Rows] = (named_rows(raw.x_train), named_rows(raw.x_test))
        else:
            check_scales(self.scale, ())
            assert not isinstance(raw.x_train, Mapping) and not isinstance(raw.x_test, Mapping)
            scaling = scaling_of(raw.x_train, raw.x_test, scale_of(self.scale, ""), place=raw.place)
            warnings += range_warnings(raw.x_train, raw.x_test, raw.place)
            rows = rows_of(raw.x_train, scaling), rows_of(raw.x_test, scaling)
        train, test = (
            _subset(Split(inputs, y), chosen)
            for inputs, y, chosen in zip(rows, (targets.train, targets.test), places, strict=True)
        )
        groups, by = (_chosen(each, places[0]) for each in (raw.groups, by))
        held = train.y if by is None else by
        training, validation = _hold_out(train, self.validation_split, held if self.stratify else None, groups)
        return Examples(
            training,
            validation,
            test,
            scaling=scaling,
            notes=raw.notes,
            warnings=tuple(warnings),
            preprocessing=raw.preprocessing,
            place=raw.place,
            shaped_by=raw.shaped_by,
            **described,
        )


def _distinct_labels(
    train: npt.NDArray[np.generic], test: npt.NDArray[np.generic], place: Place
) -> npt.NDArray[np.generic]:
    """Return the distinct labels of both parts, sorted.

    Raises:
        UserError: one part has strings, and the other numbers.
    """
    if train.dtype.kind != test.dtype.kind:
        kinds = {"U": "strings", "i": "numbers"}
        raise UserError(
            f"{place.train} and {place.test} require labels of the same type, not {kinds[train.dtype.kind]} such as "
            f"{train[0]} and {kinds[test.dtype.kind]} such as {test[0]}. {place.unify}"
        )
    return np.unique(np.concatenate([np.unique(train), np.unique(test)]))


def _subset(split: Split, chosen: Labels | None) -> Split:
    """Select images; those that are not selected are never read."""
    return split if chosen is None else split.take(chosen)


def _chosen(values: Array | None, places: Labels | None) -> Array | None:
    return values if values is None or places is None else values[places]


def _hold_out(train: Split, share: float, by: Array | None, groups: Array | None) -> tuple[Split, Split]:
    if share and (by is not None or groups is not None):
        held = held_out(np.zeros(len(train)) if by is None else by, share, SUBSET_SEED, groups)
    else:
        held = np.zeros(len(train), bool)
        held[_choice(round(len(train) * share), len(train))] = True
    if held.all():
        raise UserError(
            f"dataset.validation_split={share}: leaves none of {len(train)} examples for training. Use a smaller "
            "share, or more dataset.train_samples."
        )
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


def choice(samples: int | None, total: int, part: str) -> Labels | None:
    """Return the positions of `samples` of `total` examples, always the same ones, sorted; None for all.

    Raises:
        UserError: there are fewer examples.
    """
    if samples is None:
        return None
    if samples > total:
        raise UserError(
            f"dataset.{part}_samples={samples}: requires at most {total}, the number of examples in the data set, "
            "or null for all."
        )
    return _choice(samples, total)


def _choice(samples: NonNegativeInt, total: int) -> Labels:
    """Draw `samples` positions of `total` without replacement, always the same ones, sorted."""
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(total)[:samples])


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        named = split.x.parts if isinstance(split.x, NamedRows) else {"": split.x}
        for name, rows in sorted(named.items()):  # the order of the inputs of a file differs from that of the model
            digest.update(f"{name}{rows.dtype.str}{rows.shape}".encode())
            for images in rows.chunks():
                digest.update(np.ascontiguousarray(images).data)
        digest.update(f"{split.y.dtype.str}{split.y.shape}".encode())
        for targets in parts_of(split.y):
            digest.update(targets.data)
    return digest.hexdigest()
