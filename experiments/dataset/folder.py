"""Folders of files by class: DIR/train/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/*, which are split."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar
from unicodedata import category

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source, choice
from experiments.dataset.decoding import SHOWN, Decoded, Decoder, decoded, describe_broken
from experiments.dataset.labels import list_labels
from experiments.dataset.leakage import leakage_warning
from experiments.dataset.place import in_names
from experiments.dataset.splitting import held_out
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.system.files import UserPath
from experiments.system.options import OPTION

KEY = "dataset.path"
UNREAD = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".jp2",
    ".svg",
    ".raw",
    ".dng",
    ".cr2",
    ".nef",
    ".mp3",
    ".flac",
    ".ogg",
    ".opus",
    ".m4a",
    ".aac",
    ".aiff",
    ".aif",
    ".webm",
    ".npy",
)  # of images and recordings that are not read
NAMES = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}


@dataclass(frozen=True)
class Files:
    """The files of one part, with the class and, if they are grouped, the group of each."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    others: Mapping[str, int] = field(default_factory=dict)  # files of other kinds, by suffix

    def take(self, places: Sequence[int]) -> "Files":
        """Return the files at these positions."""
        return replace(
            self,
            paths=tuple(self.paths[place] for place in places),
            classes=tuple(self.classes[place] for place in places),
        )


@option(frozen=True, config=OPTION, kw_only=True)
class Folder(Source):
    """The base class of data sets in folders; a new kind defines `suffixes`, `kind` and `decoder`."""

    suffixes: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]  # what the files are, plural
    shaped_by: ClassVar[str]  # what to type for examples of another shape

    path: UserPath
    # The cache for decoded examples, which decides no result.
    cache: UserPath = field(default=Path("cache"), compare=False)
    cache_gib: PositiveFloat = field(default=10, compare=False)
    stratify: bool = True
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # of a folder without train/ and test/
    split_seed: NonNegativeInt = 0
    group: str | None = None  # a regular expression for paths; equal matches are never in different splits
    skip_broken: bool = False

    def check(self) -> None:
        """Check that the folder has files by class."""
        self.listed()

    def check_for_new_model(self) -> None:
        """Check the classes of both parts."""
        train, test = self.listed()
        first, second = set(train.classes), set(test.classes)
        if len(first) == 1:
            raise UserError(
                f"{KEY}={self.path}: has only the class {train.classes[0]}. Classification requires two or more: one "
                "folder for each."
            )
        if unknown := sorted(second - first):
            raise UserError(
                f"{KEY}={self.path}: the test part has {_classes(unknown)}, of which the training part has no "
                f"{self.kind}. Every class requires training examples. Add them, or remove the "
                f"{'folder' if len(unknown) == 1 else 'folders'} from the test part."
            )

    def read(self) -> Raw:
        """Return the examples in the cache, decoded there first if they are new."""
        listed = dict(zip(("train", "test"), self.listed(), strict=True))
        names = {part: sorted(set(files.classes)) for part, files in listed.items()}
        samples = {"train": self.train_samples, "test": self.test_samples}
        chosen = {part: self._chosen(files, samples[part], part) for part, files in listed.items()}
        paths = {part: files.paths for part, files in chosen.items()}
        cache, decoder = Cache(dir=self.cache, gib=self.cache_gib), self.decoder(paths["train"] + paths["test"])
        found = decoded(cache, self.path, paths, decoder, self.skip_broken)
        kept = {part: files.take(found.places[part].tolist()) for part, files in chosen.items()}
        labels = {part: _labels(files.classes, names) for part, files in kept.items()}
        return Raw(
            found.arrays["train"],
            labels["train"],
            found.arrays["test"],
            labels["test"],
            chosen=True,
            labels=(_labels(names["train"], names), _labels(names["test"], names)),
            groups=np.array(self._groups(kept["train"])) if self.group else None,
            notes=(*self.notes(found), *_unread(listed)),
            warnings=tuple(self._warnings(kept, found, names)),
            preprocessing=self.preprocessing(found),
            place=in_names(self.path),
            shaped_by=self.shaped_by,
        )

    def read_unlabelled(self) -> Raw:
        """Return the examples with 0 for the class of the training part, which is the normal one, and 1 for others."""
        normal = sorted(set(self.listed()[0].classes))
        if len(normal) > 1:
            raise UserError(
                f"{KEY}={self.path}: the training part has {_classes(normal)}; task=reconstruction learns from normal "
                f"{self.kind} only, which are in one folder. It requires train/normal/, test/normal/ and, with "
                "anomalies, test/ANOMALY/."
            )
        raw = self.read()
        anomalies = (raw.y_test.astype(np.str_) != normal[0]).astype(np.int64)
        return replace(raw, y_train=np.zeros(len(raw.y_train), np.int64), y_test=anomalies, labels=None)

    @abstractmethod
    def decoder(self, paths: Sequence[Path]) -> Decoder:
        """Return what decodes these files; raise UserError if they differ from each other in a way that matters."""

    def preprocessing(self, found: Decoded) -> dict[str, Any]:
        """Return what the device has to do to a file before the model's own scaling."""
        return {}

    def notes(self, found: Decoded) -> tuple[str, ...]:
        """Return what a user should know about the files."""
        broken = (f"left out: {describe_broken(found.broken)[:-1]}",) if found.broken else ()
        return (
            *broken,
            *(f"{self.kind} that {remark}: {count}" for remark, count in sorted(found.remarks.items())),
            *(f"not used: {folder}; validation examples are taken from train" for folder in self._unused()),
        )

    def _unused(self) -> list[Path]:
        """Return the folders beside those for training and for the test."""
        if not self._part("train"):
            return []
        used = (self._part("train"), self._part("test"))
        folders = (each for each in self.path.iterdir() if each.is_dir() and not each.name.startswith("."))
        return sorted(each for each in folders if each not in used)

    def _part(self, part: str) -> Path | None:
        """Return the folder for training or for the test, if there is one."""
        folders = {each.name.lower(): each for each in sorted(self.path.iterdir(), reverse=True) if each.is_dir()}
        return next((folders[name] for name in NAMES[part] if name in folders), None)

    def listed(self) -> tuple[Files, Files]:
        """Return the files for training and for the test.

        Raises:
            UserError: there is no such folder, it has other files, or the pattern of the groups does not match.
        """
        if not self.path.is_dir():
            why = "requires a folder, not a file" if self.path.exists() else "no such folder"
            raise UserError(f"{KEY}={self.path}: {why}. It requires {self._layout()}.")
        parts = {part: self._part(part) for part in NAMES}
        match parts["train"], parts["test"]:
            case Path() as train, Path() as test:
                return self._by_class(train), self._by_class(test)
            case None, None:
                return self._split(self._by_class(self.path))
        only = next(name for name, folder in parts.items() if folder)
        other = "test" if only == "train" else "train"
        raise UserError(
            f"{KEY}={self.path}: has {parts[only]} and no {other} folder. It requires {self._layout()}. To split one "
            f"folder of classes: {KEY}={parts[only]}."
        )

    def _layout(self) -> str:
        return f"train/CLASS/ and test/CLASS/ with {self.kind} ({', '.join(self.suffixes)}), or CLASS/ to be split"

    def _by_class(self, folder: Path) -> Files:
        """Return the files of a folder that has a folder for each class, in sorted order."""
        classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
        if not classes:
            raise UserError(f"{KEY}={self.path}: {folder} has no folders. It requires {self._layout()}.")
        for each in classes:
            if any(category(letter) in ("Cc", "Cs") for letter in each.name):
                raise UserError(
                    f"{KEY}={self.path}: the folder {each.name!r} requires a name without control characters, in "
                    "UTF-8. Rename it."
                )
        numbers: dict[int, str] = {}
        for name in filter(str.isdecimal, (each.name for each in classes)):
            if (other := numbers.setdefault(int(name), name)) != name:
                raise UserError(f"{KEY}={self.path}: the folders {other} and {name} have the same number. Rename one.")
        paths: list[Path] = []
        names: list[str] = []
        others: Counter[str] = Counter()
        for each in classes:
            files = sorted(self._files_in(each, set()))
            fitting = [path for path in files if path.suffix.lower() in self.suffixes]
            if not fitting:
                other = ", ".join(sorted({path.suffix or path.name for path in files})[:SHOWN])
                raise UserError(
                    f"{KEY}={self.path}: {each} has no {self.kind} ({', '.join(self.suffixes)})"
                    f"{f', only {other}' if other else ', it is empty'}. Add some, or remove the folder."
                )
            others.update(path.suffix.lower() for path in files if path.suffix.lower() in UNREAD)
            paths += fitting
            names += [each.name] * len(fitting)
        return Files(tuple(paths), tuple(names), others)

    def _files_in(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
        """Yield the files of a folder and of those inside it, through links, each folder once, but no hidden ones.

        Raises:
            UserError: a folder cannot be read, or a link to a file leads nowhere and `skip_broken` is not set.
        """
        try:
            status = folder.stat()
            found = sorted(folder.iterdir())
        except OSError as error:
            raise UserError(f"{KEY}={self.path}: {folder} cannot be read ({error.strerror}).") from error
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        for path in found:
            if path.name.startswith("."):  # such as .ipynb_checkpoints, which has copies
                continue
            if path.is_file():
                yield path
            elif path.is_dir():
                yield from self._files_in(path, seen)
            elif path.is_symlink() and path.suffix.lower() in self.suffixes and not self.skip_broken:
                raise UserError(
                    f"{KEY}={self.path}: {path} is a link to a file that is not there. Remove such links, or type "
                    "dataset.skip_broken=true to leave them out."
                )

    def _split(self, files: Files) -> tuple[Files, Files]:
        groups = np.array(self._groups(files)) if self.group else None
        classes = np.array(files.classes) if self.stratify else np.zeros(len(files.paths))
        held = held_out(classes, self.test_share, self.split_seed, groups)
        if held.all() or not held.any():
            raise UserError(
                f"dataset.test_share={self.test_share}: leaves one part of {len(held)} {self.kind}"
                f"{f' in {len(set(groups.tolist()))} groups' if groups is not None else ''} empty. Use another share."
            )
        return files.take(np.flatnonzero(~held).tolist()), files.take(np.flatnonzero(held).tolist())

    def _groups(self, files: Files) -> list[str]:
        """Return the group of each file: what the first group of the pattern, or all of it, matches in its path."""
        try:
            pattern = re.compile(self.group or "")
        except re.error as error:
            raise UserError(f"dataset.group={self.group}: not a regular expression ({error}).") from error
        groups = []
        for path in files.paths:
            name = path.relative_to(self.path).as_posix()
            if (found := pattern.search(name)) is None:
                raise UserError(
                    f"dataset.group={self.group}: matches nothing in {name}. Every file requires a group, such as "
                    r"dataset.group='/([^/_]+)_' for CLASS/ANNA_1.wav."
                )
            groups.append((found.group(1) if pattern.groups else found.group(0)) or "")
        return groups

    def _chosen(self, files: Files, samples: int | None, part: str) -> Files:
        chosen = choice(samples, len(files.paths), part)
        return files if chosen is None else files.take(chosen.tolist())

    def _warnings(self, kept: dict[str, Files], found: Decoded, names: dict[str, list[str]]) -> "list[str]":
        warnings = []
        if found.equal:
            one, other = found.equal[0]
            pair = (kept["test"].paths[other], kept["train"].paths[one])
            example = " equals ".join(path.relative_to(self.path).as_posix() for path in pair)
            warnings.append(leakage_warning(len(found.equal), len(kept["test"].paths), example))
        if missing := sorted(set(names["train"]) - set(names["test"])):
            warnings.append(f"untested classes: the test part has no {self.kind} of {_classes(missing)}.")
        return warnings


def _unread(listed: Mapping[str, Files]) -> tuple[str, ...]:
    """Return a note on files of formats that are not read."""
    counts = sum((Counter(files.others) for files in listed.values()), Counter())
    listing = ", ".join(f"{suffix} ({count})" for suffix, count in sorted(counts.items()))
    return (f"not read, since their format is not supported: {listing}",) if listing else ()


def _classes(names: Sequence[str]) -> str:
    return f"the {'class' if len(names) == 1 else 'classes'} {list_labels(names)}"


def _labels(classes: Sequence[str], names: dict[str, list[str]]) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
    """Return class names as labels; as integers if all of them are, since '10' would sort before '2'."""
    numbers = all(re.fullmatch(r"\d{1,18}", name) for part in names.values() for name in part)
    return np.array(classes, np.int64 if numbers else np.str_)
