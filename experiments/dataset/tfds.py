"""Image data sets of TensorFlow Datasets (extra: tfds), downloaded or prepared earlier in dataset.data_dir."""

from collections.abc import Iterator, Sequence
from dataclasses import field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.dataset.image_folder import Fit, resized
from experiments.dataset.leakage import leakage_warnings
from experiments.dataset.place import in_splits
from experiments.system.errors import UserError, first_line
from experiments.system.extras import require
from experiments.system.files import UserPath
from experiments.system.options import OPTION


@option(frozen=True, config=OPTION, kw_only=True)
class TensorFlowDataset(Source):
    """Images (n, height, width, channels) uint8 and labels of a data set with supervised keys."""

    name: str  # as in tfds.load: NAME, NAME/CONFIG or NAME:VERSION
    data_dir: UserPath | None = field(default=None, compare=False)  # null: ~/tensorflow_datasets
    train_split: str = "train"  # as in tfds.load, such as train[:80%]
    test_split: str = "test"
    size: tuple[PositiveInt, PositiveInt] | None = None  # height, width; null: that of all images
    fit: Fit = "stretch"

    def sources(self) -> Sequence[Path]:
        """Return the prepared files, which decide a result; the folder with all data sets does not."""
        name, _, rest = self.name.partition(":")[0].partition("/")
        folder = (self.data_dir or Path.home() / "tensorflow_datasets") / name
        prepared = folder / rest if rest and (folder / rest).is_dir() else folder
        return sorted(path for path in prepared.rglob("*") if path.is_file() and "incomplete" not in str(path))

    def check(self) -> None:
        """Check that the extra is installed."""
        require("tfds", f"dataset.name={self.name}")

    def read(self) -> Raw:
        """Return images and labels, after Keras 2 has become TensorFlow's."""
        self.check()
        import tensorflow_datasets as tfds

        from experiments.system import tensorflow  # noqa: F401  # before TensorFlow Datasets imports it

        where = f"dataset.name={self.name}"
        try:
            builder = tfds.builder(self.name, data_dir=self.data_dir)
            builder.download_and_prepare()
            parts = {split: builder.info.splits[split].num_examples for split in (self.train_split, self.test_split)}
        except Exception as error:  # the library raises many kinds, for names, versions, splits and the network
            raise UserError(f"{where}: TensorFlow Datasets cannot prepare it ({first_line(error)}).") from error
        keys = builder.info.supervised_keys
        if keys is None or len(keys) != 2:
            raise UserError(f"{where}: has no supervised keys (image, label). Use dataset=npz.")
        shape, names = builder.info.features[keys[0]].shape, getattr(builder.info.features[keys[1]], "names", None)
        if shape is None or len(shape) != 3:
            raise UserError(f"{where}: requires images (height, width, channels), not {shape}. Use dataset=npz.")
        form = (*(self.size or shape[:2]), shape[2])
        if None in form:
            raise UserError(f"{where}: has images of several sizes. To resize them: dataset.size=[96,96]")
        needed = prod(form) * sum(parts.values())
        if needed > (free := psutil.virtual_memory().available):
            raise UserError(
                f"{where}: {sum(parts.values()):,} images take {needed / 2**30:,.1f} GiB of memory, and "
                f"{free / 2**30:,.1f} GiB are free. Use a smaller dataset.size, dataset.train_split='train[:10%]', or "
                "save the images in a folder for dataset=image_folder."
            )
        arrays: list[npt.NDArray[Any]] = []
        for split, count in parts.items():
            rows = tfds.as_numpy(builder.as_dataset(split=split, as_supervised=True, shuffle_files=False))
            arrays += self._arrays(iter(rows), count, form, names)
        x_train, y_train, x_test, y_test = arrays
        splits = {"train": self.train_split, "test": self.test_split}
        warnings = leakage_warnings(x_train, x_test, lambda part, place: f"image {place} of {splits[part]}")
        return Raw(x_train, y_train, x_test, y_test, warnings=warnings, place=in_splits(*splits.values()))

    def _arrays(
        self, rows: Iterator[tuple[npt.NDArray[Any], Any]], count: int, form: tuple[int, ...], names: list[str] | None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        images, labels = np.empty((count, *form), np.uint8), []
        for place, (image, label) in zip(range(count), rows, strict=True):
            images[place] = resized(image, (form[0], form[1]), self.fit)
            labels.append(names[int(label)] if names else label)
        return images, np.array(labels)
