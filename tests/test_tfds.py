"""Data sets of TensorFlow Datasets, with a stand-in for the library, and with the library where it is installed."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.dataset import tfds
from experiments.dataset.tfds import TensorFlowDataset
from experiments.system.errors import UserError

COUNTS = {"train": 12, "test": 4}


class Builder:
    """A builder with random images of a size, or of several sizes."""

    def __init__(self, size: tuple[int | None, int | None] = (6, 8)) -> None:
        self.size = size
        label = SimpleNamespace(names=["cat", "dog"])
        self.info = SimpleNamespace(
            splits={name: SimpleNamespace(num_examples=count) for name, count in COUNTS.items()},
            supervised_keys=("image", "label"),
            features={"image": SimpleNamespace(shape=(*size, 3)), "label": label},
        )

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self, split: str, as_supervised: bool, shuffle_files: bool) -> Any:
        assert as_supervised
        assert not shuffle_files
        rng = np.random.default_rng(0)
        for number in range(COUNTS[split]):
            size = (5 + number, 9) if None in self.size else (6, 8)
            yield rng.integers(0, 256, (*size, 3), np.uint8), number % 2


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tfds, "require", lambda *_: None)
    made = SimpleNamespace(builder=lambda name, data_dir: Builder(), as_numpy=lambda rows: rows)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", made)
    return made


@pytest.mark.tensorflow
@pytest.mark.usefixtures("library")
def test_images_have_the_names_of_their_classes() -> None:
    data = TensorFlowDataset(name="pets", validation_split=0).load()
    assert (len(data.train), len(data.test), data.input_shape) == (12, 4, (6, 8, 3))
    assert data.labels == {0: "cat", 1: "dog"}


@pytest.mark.tensorflow
def test_images_of_several_sizes_require_one(library: Any) -> None:
    library.builder = lambda name, data_dir: Builder((None, None))
    with pytest.raises(UserError, match=r"dataset\.name=pets: has images of several sizes.*dataset\.size=\[96,96\]"):
        TensorFlowDataset(name="pets").load()
    assert TensorFlowDataset(name="pets", size=(4, 4)).load().input_shape == (4, 4, 3)


@pytest.mark.tensorflow
def test_an_error_of_the_library_is_one_message(library: Any) -> None:
    def unknown(name: str, data_dir: object) -> Builder:
        raise ValueError(f"Dataset {name} not found.")

    library.builder = unknown
    with pytest.raises(
        UserError, match=r"dataset\.name=cts: TensorFlow Datasets cannot prepare it \(Dataset cts not found"
    ):
        TensorFlowDataset(name="cts").load()


@pytest.mark.tensorflow
@pytest.mark.usefixtures("library")
def test_images_beyond_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Builder, "as_dataset", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match=r"16 images take 11,175\.9 GiB of memory, and .* GiB are free"):
        TensorFlowDataset(name="pets", size=(500_000, 500_000)).load()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set that the library prepared, without the network."""
    tfds_library = pytest.importorskip("tensorflow_datasets")
    core, features = tfds_library.core, tfds_library.features
    base: Any = core.GeneratorBasedBuilder

    class TinyMarks(base):  # type: ignore[misc]
        """Images with a bright half."""

        VERSION = core.Version("1.0.0")

        def _info(self) -> Any:
            described = {
                "image": features.Image(shape=(8, 8, 3)),
                "label": features.ClassLabel(names=["top", "bottom"]),
            }
            made_of = features.FeaturesDict(described)
            return core.DatasetInfo(builder=self, features=made_of, supervised_keys=("image", "label"))

        def _split_generators(self, downloads: Any) -> Any:
            return {name: self._generate_examples(count, name) for name, count in COUNTS.items()}

        def _generate_examples(self, count: int, name: str) -> Any:
            rng = np.random.default_rng(len(name))
            for number in range(count):
                image = rng.integers(0, 100, (8, 8, 3), np.uint8)
                image[4 * (number % 2) : 4 + 4 * (number % 2)] += 120
                yield number, {"image": image, "label": number % 2}

    folder = tmp_path_factory.mktemp("tfds")
    TinyMarks(data_dir=folder).download_and_prepare()
    return folder


@pytest.mark.tensorflow
def test_the_library_reads_what_it_prepared(prepared: Path) -> None:
    data = TensorFlowDataset(name="tiny_marks", data_dir=prepared, validation_split=0).load()
    assert (len(data.train), len(data.test), data.input_shape, data.warnings) == (12, 4, (8, 8, 3), ())
    bright = data.train.x[:, :4].mean(axis=(1, 2, 3)) > data.train.x[:, 4:].mean(axis=(1, 2, 3))
    assert [data.labels[label] for label in data.train.y.tolist()] == ["top" if each else "bottom" for each in bright]


@pytest.mark.tensorflow
def test_parts_of_the_library_that_overlap_are_a_warning(prepared: Path) -> None:
    data = TensorFlowDataset(name="tiny_marks", data_dir=prepared, test_split="train[:25%]").load()
    assert data.warnings[0].startswith("leakage: 3 of 3 test examples")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "tiny_mark"}, "cannot prepare it"),
        ({"name": "tiny_marks", "test_split": "dev"}, r"Unknown split 'dev'. Should be one of \['train', 'test'\]"),
    ],
)
def test_an_unknown_data_set_is_one_message(prepared: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TensorFlowDataset(data_dir=prepared, **settings).load()
