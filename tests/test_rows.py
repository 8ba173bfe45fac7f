"""Examples that are read when they are used: the values of NumPy, without having all of them in memory."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from experiments.dataset import Dataset, Split, arrays, rows
from experiments.dataset.arrays import ArrayFile
from experiments.dataset.rows import NamedRows, Rows
from experiments.dataset.values import Scaling
from experiments.task.reconstruction import ReconstructionHead

BYTES = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)


def in_file(folder: Path, values: npt.NDArray[Any] = BYTES) -> ArrayFile:
    path = folder / "rows.raw"
    path.write_bytes(b"header" + values.tobytes())
    return ArrayFile(path, values.shape, values.dtype, float(values.min()), float(values.max()), offset=6)


@pytest.fixture(params=["memory", "file"])
def examples(request: pytest.FixtureRequest, tmp_path: Path) -> Rows:
    return Rows(BYTES if request.param == "memory" else in_file(tmp_path), Scaling(255.0, integers=True))


@pytest.mark.parametrize(
    "key",
    [
        slice(None), slice(3, 9), slice(-4, None), slice(None, None, 7), slice(60, 70), 5, -1, np.array([9, 2, 2, 40]),
        np.array([], np.int64), np.arange(50) % 3 == 0, (slice(None), 0), (slice(2, 5), slice(None), 1), (3, 1, 2),
    ],
    ids=str,
)  # fmt: skip
def test_every_index_gives_the_scaled_values_of_the_array(examples: Rows, key: Any) -> None:
    scaled = BYTES.astype(np.float32) / np.float32(255)
    read = examples[key]
    assert read.dtype == np.float32
    assert np.array_equal(read, scaled[key])


def test_taken_and_reshaped_rows_are_those_of_the_array(examples: Rows) -> None:
    scaled, places = BYTES.astype(np.float32) / np.float32(255), np.array([7, 3, 30])
    taken = examples.take(np.arange(40)).take(places).reshape((12,))
    assert taken.shape == (3, 12)
    assert np.array_equal(taken[:], scaled[places].reshape(3, 12))
    assert np.array_equal(np.stack(list(taken)), taken[:])


def test_moments_are_those_of_all_examples(examples: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_BYTES", 100)
    scaled = BYTES.astype(np.float64) / 255
    mean, deviation = examples.moments()
    assert np.allclose(mean, scaled.mean(axis=(0, 1)), atol=1e-6)
    assert np.allclose(deviation, scaled.std(axis=(0, 1)), atol=1e-6)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    array = in_file(tmp_path)
    array.path.write_bytes(array.path.read_bytes()[:100])
    with pytest.raises(OSError, match="is shorter than it was"):
        array[:]


def test_a_pass_over_a_file_takes_the_memory_of_a_part(tmp_path: Path) -> None:
    array = in_file(tmp_path, np.zeros((2000, 100, 100), np.uint8))  # 20 MB, 80 MB as float32
    split = Split(Rows(array, Scaling(255.0)), np.zeros(2000, np.int64))
    tracemalloc.start()
    total = sum(float(images.sum()) for images in split.take(np.arange(1999, -1, -1)).x.chunks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 0
    assert peak < 4 * arrays.CHUNK_BYTES


@pytest.mark.tensorflow
def test_training_batches_are_those_of_the_array_in_the_order_of_the_epoch(tmp_path: Path) -> None:
    from experiments.training.loop import _batches

    split = Split(Rows(in_file(tmp_path), Scaling(255.0)), np.arange(50))
    order = np.random.default_rng(1).permutation(50)
    batches = _batches(split, 16, order)
    assert [tuple(each.shape) for each in batches.element_spec] == [(None, 4, 3), (None,)]
    assert int(batches.cardinality()) == 4
    images, targets = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
    assert np.array_equal(images, (BYTES.astype(np.float32) / np.float32(255))[order])
    assert np.array_equal(targets, order)


def test_several_inputs_are_read_apart_without_a_copy_of_all_of_them() -> None:
    parts = {"image": Rows(BYTES, Scaling(255.0)), "table": Rows(np.arange(50.0, dtype=np.float32)[:, np.newaxis])}
    places = np.array([4, 2])
    found = NamedRows(parts=parts).by_name(places)
    assert list(found) == ["image", "table"]
    for name, part in parts.items():
        assert np.array_equal(found[name], part[places])
        assert part.by_name(places).keys() == {""}


@pytest.mark.tensorflow
def test_a_reconstruction_is_trained_on_targets_that_are_read_when_they_are_used(tmp_path: Path) -> None:
    from experiments.training.loop import _batches

    split = Split(Rows(in_file(tmp_path), Scaling(255.0)), np.zeros(50, np.int64))
    data = Dataset(split, split, split, 12)
    training: Any = ReconstructionHead(12).training_data(data).train
    assert training.y is split.x
    for images, targets in _batches(training, 16, np.arange(50)[::-1]).as_numpy_iterator():
        assert np.array_equal(images, targets)


@pytest.mark.tensorflow
@pytest.mark.parametrize("named", [False, True])
def test_calibration_samples_are_read_one_after_the_other(named: bool) -> None:
    from experiments.tflite.static import _Sample

    images = Rows(BYTES, Scaling(255.0))
    (image,) = images[3:4]
    given = NamedRows(parts={"image": images, "table": Rows(np.ones((50, 1), np.float32))}) if named else images
    assert np.array_equal(_Sample(given, 3, "image").copy()["image"], image[np.newaxis])
