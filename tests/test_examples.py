"""Images, series and features in their stored forms: scaled values, shapes that fit the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset
from experiments.dataset.archive import read_archive
from experiments.dataset.npz import Npz
from experiments.dataset.shapes import image_shape, shape_for
from experiments.dataset.values import Scale
from experiments.system.errors import UserError

BYTES = np.array([0, 51, 255]).reshape(3, 1) * np.ones((1, 4), int)
UNIT = [0.0, 51 / 255, 1.0]


def loaded(folder: Path, x: Any, scale: Scale = "auto") -> Dataset:
    y = np.array([0, 1, 1])
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return Npz(path=folder / "data.npz", validation_split=0, scale=scale).load()


@pytest.mark.parametrize(
    ("stored", "scale", "seen"),
    [
        (BYTES.astype(np.uint8), "auto", UNIT),
        (BYTES.astype(np.uint8), "none", [0, 51, 255]),
        (BYTES.astype(np.uint8), "unit", UNIT),
        (BYTES.astype(np.uint8), "symmetric", [-1, 2 * UNIT[1] - 1, 1]),
        (BYTES.astype(np.int64), "auto", UNIT),
        (BYTES.astype(np.int16), "auto", UNIT),
        (BYTES.astype(np.uint32), "auto", UNIT),
        (BYTES.astype(np.uint16) * 257, "auto", UNIT),
        (BYTES - 100, "none", [-100, -49, 155]),
        (BYTES > 100, "auto", [0, 0, 1]),
        (np.minimum(BYTES, 1), "auto", [0, 1, 1]),
        (BYTES.astype(float), "auto", [0, 51, 255]),
        (BYTES.astype(float), "unit", UNIT),
        (BYTES.astype(float), "symmetric", [-1, 2 * UNIT[1] - 1, 1]),
        ((BYTES / 255).astype(np.float64), "unit", UNIT),
        ((BYTES / 255).astype(np.float64), "symmetric", [-1, 2 * UNIT[1] - 1, 1]),
        (np.array([-2, 0.5, 3]).reshape(3, 1).astype(np.float16), "auto", [-2, 0.5, 3]),
    ],
)
def test_stored_values_are_scaled_for_the_model(tmp_path: Path, stored: Any, scale: Scale, seen: list[float]) -> None:
    x = loaded(tmp_path, stored, scale).train.x
    assert x.dtype == np.float32
    assert x[:, 0].tolist() == pytest.approx(seen, abs=1e-6)


def test_scaling_can_be_undone(tmp_path: Path) -> None:
    data = loaded(tmp_path, BYTES.astype(np.uint8), "symmetric")
    assert data.scaling.undo(data.train.x[:]) == pytest.approx(BYTES, abs=1e-3)


@pytest.mark.parametrize(
    ("stored", "note"),
    [
        (BYTES, "x_train has int64 from 0 to 255, divided by 255 like 8-bit images"),
        (BYTES > 100, "x_train has bool, used as 0 and 1"),
        (
            BYTES.reshape(3, 4, 1).astype(np.float32),
            "x_train has floats from 0 to 255, used unscaled; dataset.scale=unit divides them by 255",
        ),
        (np.minimum(BYTES, 1), "x_train has int64 of 0 and 1 only, used unscaled"),
        (
            np.minimum(BYTES, 1).astype(np.uint8),
            "x_train has uint8 of 0 and 1 only, divided by 255; type dataset.scale=none to use them unscaled",
        ),
    ],
)
def test_assumptions_about_values_are_reported(tmp_path: Path, stored: Any, note: str) -> None:
    assert loaded(tmp_path, stored).notes == (note,)


def test_scaling_is_part_of_the_data_digest(tmp_path: Path) -> None:
    scaled, plain = (loaded(tmp_path, BYTES.astype(np.uint8), scale) for scale in ("auto", "none"))
    assert scaled.test_fingerprint != plain.test_fingerprint


def test_floats_outside_a_scale_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.scale=unit: .* floats .* -100 to 155.*dataset\.scale=none"):
        loaded(tmp_path, (BYTES - 100).astype(float), "unit")


@pytest.mark.parametrize(
    ("wanted", "stored", "taken"),
    [
        ((28, 28, 1), (28, 28), (28, 28, 1)),  # grey images, and a Conv2D
        ((28, 28), (28, 28, 1), (28, 28)),  # a Flatten or an LSTM over rows
        ((64, 3), (64, 3), (64, 3)),  # series, and a Conv1D
        ((64, 1), (64,), (64, 1)),
        ((30,), (30,), (30,)),
        ((784,), (28, 28), (784,)),
        ((None, None, 3), (32, 24, 3), (32, 24, 3)),
        ((None, 3), (64, 3), (64, 3)),
        ((3, 32, 32), (3, 32, 32), (3, 32, 32)),  # channels first
    ],
)
def test_examples_are_reshaped_for_an_existing_model(wanted: Any, stored: Any, taken: tuple[int, ...]) -> None:
    assert shape_for(wanted, stored) == taken


def test_bundled_architectures_get_grey_images_with_a_channel_axis() -> None:
    assert (image_shape((28, 28)), image_shape((28, 28, 3)), image_shape((30,))) == ((28, 28, 1), (28, 28, 3), (30,))


@pytest.mark.parametrize(
    ("wanted", "stored", "line"),
    [
        ((32, 32, 3), (3, 32, 32), "x_train=x_train.transpose(0, 2, 3, 1)"),
        ((3, 32, 32), (32, 32, 3), "x_train=x_train.transpose(0, 3, 1, 2)"),
        ((64, 3), (3, 64), "x_train=x_train.transpose(0, 2, 1)"),
        ((8, 8, 3), (192,), "x_train=x_train.reshape(-1, 8, 8, 3)"),
        ((28, 28, 3), (28, 28), "x_train=np.repeat(x_train[..., None], 3, axis=-1)"),
        ((28, 28, 1), (28, 28, 3), "x_train=x_train.mean(axis=-1, keepdims=True).astype(x_train.dtype)"),
        ((96, 96, 3), (32, 32, 3), "x_train=tf.image.resize(x_train, (96, 96)).numpy()"),
        ((30,), (31,), "Use the data set that the model was trained on"),
    ],
)
def test_unsuitable_shape_is_rejected_with_code_to_convert_it(wanted: Any, stored: Any, line: str) -> None:
    with pytest.raises(UserError) as refusal:
        shape_for(wanted, stored)
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["X_train", "Y_train", "X_test", "Y_test"], "x_train=a['X_train'], y_train=a['Y_train'], x_test=a['X_test']"),
        (["x_train", "y_train", "x_val", "y_val"], "x_test=a['x_val'], y_test=a['y_val']"),
        (["trainImages", "trainLabels", "testImages", "testLabels"], "y_test=a['testLabels']"),
        (["images", "labels"], "x_train=a['images'][~test], y_train=a['labels'][~test], x_test=a['images'][test]"),
    ],
)
def test_arrays_with_other_names_are_rejected_with_code_to_rename_them(
    tmp_path: Path, names: list[str], line: str
) -> None:
    np.savez(tmp_path / "data.npz", **{name: np.zeros(3) for name in names})  # type: ignore[arg-type]
    with pytest.raises(UserError) as refusal:
        read_archive(tmp_path / "data.npz", "dataset.path")
    assert line in str(refusal.value)


def test_folder_is_rejected_with_code_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"requires a \.npz file, not a folder.*image_dataset_from_directory"):
        Npz(path=tmp_path).check()


def test_invalid_arrays_are_rejected_before_the_run(tmp_path: Path) -> None:
    y = np.array([0, 1, 1])
    np.savez(tmp_path / "data.npz", x_train=np.full((3, 4), np.nan), y_train=y, x_test=np.zeros((3, 4)), y_test=y)
    with pytest.raises(UserError, match="not finite"):
        Npz(path=tmp_path / "data.npz").check_targets(None)
