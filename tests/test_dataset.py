"""Data sets: reading, splits, and the messages for invalid files."""

import io
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from experiments.dataset import Split, archive
from experiments.dataset.archive import read_archive
from experiments.dataset.arrays import ArrayFile
from experiments.dataset.keras_datasets import KerasDataset
from experiments.dataset.mnist import FILE, Mnist
from experiments.dataset.npz import Npz
from experiments.dataset.rows import Rows
from experiments.system.errors import UserError
from tests.hostile import break_member

ARRAYS: dict[str, Any] = {
    "x_train": np.zeros((20, 4, 4), np.uint8),
    "y_train": np.arange(20) % 2,
    "x_test": np.zeros((6, 4, 4), np.uint8),
    "y_test": np.arange(6) % 2,
}


def saved(folder: Path, **changes: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **{name: value for name, value in {**ARRAYS, **changes}.items() if value is not None})
    return path


def test_bundled_mnist_is_the_original() -> None:
    data = Mnist(validation_split=0).load()
    assert (len(data.train), len(data.test), data.input_shape, data.classes) == (60_000, 10_000, (28, 28, 1), 10)


def test_images_are_scaled_to_one() -> None:
    data = Mnist(train_samples=100, test_samples=100).load()
    assert data.test.x.dtype == np.float32
    assert (data.test.x[:].min(), data.test.x[:].max()) == (0, 1)


def test_default_validation_split_is_that_of_the_article() -> None:
    data = Mnist(train_samples=1000, test_samples=10).load()
    assert (len(data.train), len(data.validation)) == (900, 100)


def test_the_three_splits_share_no_image(tmp_path: Path) -> None:
    numbered = {
        "x_train": np.arange(20, dtype=np.float32).reshape(20, 1, 1),
        "x_test": np.arange(100, 106, dtype=np.float32).reshape(6, 1, 1),
    }
    data = Npz(path=saved(tmp_path, **numbered), validation_split=0.25).load()
    values = [set(split.x[:].ravel()) for split in (data.train, data.validation, data.test)]
    assert len(set.union(*values)) == sum(map(len, values)) == 26


def test_calibration_samples_are_training_images(tmp_path: Path) -> None:
    numbered = np.arange(20, dtype=np.float32).reshape(20, 1, 1)
    data = Npz(path=saved(tmp_path, x_train=numbered, x_test=numbered[:6] + 100)).load()
    assert set(data.calibration(8, seed=3)[:].ravel()) <= set(data.train.x[:].ravel())


def test_subset_is_random_but_reproducible() -> None:
    first, second = (Mnist(train_samples=50, test_samples=10).load() for _ in range(2))
    beginning = Mnist(test_samples=10).load().train.take(np.arange(45))
    assert np.array_equal(first.train.x, second.train.x)
    assert not np.array_equal(first.train.x, beginning.x)


def test_subset_without_a_class_has_all_classes() -> None:
    assert Mnist(train_samples=3, test_samples=3).load().classes == 10


def test_color_images_of_any_shape_are_accepted(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=np.zeros((20, 5, 7, 3), np.uint8), x_test=np.zeros((6, 5, 7, 3), np.uint8))
    assert Npz(path=path).load().input_shape == (5, 7, 3)


def test_float_images_are_not_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=np.full((20, 4, 4, 1), -3.5), x_test=np.zeros((6, 4, 4, 1)))
    assert Npz(path=path).load().train.x[0, 0, 0, 0] == np.float32(-3.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "requires the array y_test; the file has x_train, y_train, x_test"),
        ({"y_train": None, "y_test": None}, "Only task=reconstruction requires no targets"),
        ({"y_train": np.arange(19)}, "x_train has 20 examples, but y_train has 19 labels"),
        ({"y_train": np.full(20, -1)}, "y_train has only the label -1"),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(6, int)}, "y_train has only the label 0"),
        ({"y_test": np.full(6, 7)}, "y_test has the label 7, but the training labels are from 0 to 1"),
        ({"y_train": np.eye(20)[:, :2]}, r"y_train has the shape \(20, 2\), but its row 2 is not one-hot"),
        ({"y_train": np.full((20, 2), 0.5)}, r"y_train=y_train\.argmax\(axis=1\)"),
        ({"y_train": np.zeros((20, 4, 4), int)}, "For a class for each pixel, type task=segmentation"),
        ({"y_train": np.arange(20) % 3 - 1, "y_test": np.zeros(6, int)}, r"keep = y_train >= 0"),
        ({"y_test": np.full(6, "a")}, r"not numbers such as 0 and strings such as a"),
        ({"x_train": np.full((20, 4, 4), np.nan)}, "not finite"),
        ({"x_train": np.full((20, 4, 4), -5)}, r"dataset\.scale=none.*x_train=x_train\.astype\(np\.float32\) / 5"),
        ({"x_train": np.full((20, 4, 4), 4095)}, r"x_train=x_train\.astype\(np\.float32\) / 4095"),
        ({"x_train": np.zeros((20, 4, 4), complex)}, "has the dtype complex128"),
        ({"x_train": np.zeros((20, 4, 4), np.uint8), "x_test": np.zeros((6, 4, 4))}, "Both require the same"),
        ({"x_train": np.zeros(20)}, r"x_train has the shape \(20,\)"),
        ({"x_test": np.zeros((6, 4, 5), np.uint8)}, "require examples of the same shape"),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.zeros(0, int)}, "x_test has no example"),
        ({"x_train": np.array([None] * 20, object)}, r"x_train=np\.stack\(list\(x_train\)\)"),
        ({"y_train": np.array([None] * 20, object)}, r"y_train=np\.array\(\[str\(label\) for label in y_train\]\)"),
    ],
)
def test_invalid_arrays_have_specific_messages(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        Npz(path=path).load()


def test_large_arrays_stay_in_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    path = saved(tmp_path, x_train=rng.normal(size=(20, 4, 4)), x_test=rng.normal(size=(6, 4, 4)).astype(np.float32))
    in_memory = Npz(path=path).load()
    monkeypatch.setattr(archive, "IN_MEMORY", 100)
    in_file = Npz(path=path).load()
    assert isinstance(in_file.train.x.stored, ArrayFile)
    assert in_file.fingerprint == in_memory.fingerprint
    path = saved(tmp_path, x_train=np.full((20, 4, 4), np.nan))
    with pytest.raises(UserError, match="not finite"):
        Npz(path=path).load()


def test_large_classes_of_pixels_stay_in_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {name: np.eye(4, dtype=np.uint8) + ARRAYS[name][:, np.newaxis, np.newaxis] for name in ("y_train", "y_test")}
    path = saved(tmp_path, **maps)
    in_memory = Npz(path=path).load()
    monkeypatch.setattr(archive, "IN_MEMORY", 0)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    in_file = Npz(path=path).load()
    rows: Any = in_file.test.y
    assert isinstance(rows.stored, ArrayFile)
    assert (in_file.kind, in_file.classes, in_file.fingerprint) == ("maps", 3, in_memory.fingerprint)
    assert np.array_equal(rows[:], maps["y_test"])
    assert rows.dtype == np.int64


def test_compressed_arrays_beyond_memory_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "data.npz", **{**ARRAYS, "x_train": np.zeros((2**16, 4, 4), np.uint8)})
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**20))
    monkeypatch.setattr(archive, "_array", lambda *_: pytest.fail("read"))
    with pytest.raises(UserError, match=r"take 0\.0 GiB of memory, and 0\.0 GiB are free. Save them with numpy\.savez"):
        read_archive(tmp_path / "data.npz", "dataset.path")


def test_truncated_file_is_reported(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"not a \.npz file, or a truncated one"):
        Npz(path=path).load()


def test_unreadable_file_is_not_reported_as_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(io, "open", forbidden)  # as the tests may run with every right there is
    with pytest.raises(UserError, match=r"dataset\.path=.*: cannot be read \(.*Permission denied"):
        read_archive(tmp_path / "data.npz", "dataset.path")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_array_that_cannot_be_unpacked_is_damaged(method: int, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    members = written(path, {name: stored(values) for name, values in ARRAYS.items()}, method)
    break_member(path, members["y_test.npy"])
    with pytest.raises(UserError, match=r"data\.npz: y_test is damaged"):
        read_archive(path, "dataset.path")


def stored(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def written(path: Path, arrays: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return archive.NameToInfo


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }", "0 bytes cannot be an array"),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }", "0 bytes cannot be an array"),
        ("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000, 8), }", "0 bytes cannot be an array"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-5,), }", "0 bytes cannot be an array"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (False, 8), }", "integer is required"),
        ("(" * 500, "multi-line statement|never closed"),
        ("{'descr': exit(), 'fortran_order': False, 'shape': (), }", "malformed"),
    ],
)
@pytest.mark.parametrize("name", ["x_train", "y_test"])
def test_an_impossible_header_of_an_array_is_damage(header: str, told: str, name: str, tmp_path: Path) -> None:
    line = f"{header}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line
    path = tmp_path / "data.npz"
    written(path, {**{each: stored(values) for each, values in ARRAYS.items()}, name: array})
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*({told})"):
        read_archive(path, "dataset.path")


def test_an_array_that_does_not_fit_in_memory_need_not_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> NoReturn:
        raise MemoryError("Unable to allocate 40.0 GiB for an array")

    path = tmp_path / "data.npz"
    np.savez_compressed(path, allow_pickle=False, **ARRAYS)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", full)
    with pytest.raises(UserError, match=r"too large for the memory \(Unable to allocate 40.0 GiB.*np\.savez, not"):
        read_archive(path, "dataset.path")


def test_a_large_array_that_is_larger_than_its_bytes_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such arrays stay on the disk; the surplus would be the bytes of other members."""
    monkeypatch.setattr(archive, "IN_MEMORY", 0)
    content = stored(ARRAYS["x_train"])
    shape = str(ARRAYS["x_train"].shape[0]).encode()
    larger = content.replace(b"(" + shape, b"(" + str(ARRAYS["x_train"].shape[0] + 1).encode(), 1)
    assert len(larger) == len(content)
    path = tmp_path / "data.npz"
    written(path, {**{each: stored(values) for each, values in ARRAYS.items()}, "x_train": larger})
    with pytest.raises(UserError, match=r"x_train is damaged \(.* bytes cannot be an array"):
        read_archive(path, "dataset.path")


def test_damaged_file_is_reported(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[150] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"dataset\.path=.*(damaged|cannot be read)"):
        Npz(path=path).load()


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(pickle.dumps({"x_train": 1}))
    with pytest.raises(UserError, match=r"not a \.npz file"):
        Npz(path=path).load()


def test_missing_file_is_reported_before_loading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.path=.*nothing.npz: cannot be read \(No such file or directory\)"):
        Npz(path=tmp_path / "nothing.npz").check()


def test_a_changed_mnist_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "mnist.npz"
    copy.write_bytes(FILE.read_bytes() + b"\0")
    monkeypatch.setattr("experiments.dataset.mnist.FILE", copy)
    with pytest.raises(UserError, match="SHA-256"):
        Mnist().load()


def test_more_samples_than_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.train_samples=21: requires at most 20"):
        Npz(path=saved(tmp_path), train_samples=21).load()


@pytest.mark.tensorflow
def test_failed_download_explains_how_to_use_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.system.tensorflow import keras

    def offline() -> None:
        raise Exception("URL fetch failure")  # noqa: TRY002  # as Keras does

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", offline)
    with pytest.raises(UserError, match=r"dataset=npz dataset\.path=data\.npz"):
        KerasDataset(name="cifar10").load()


@pytest.mark.tensorflow
def test_partial_download_is_downloaded_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    left = tmp_path / ".keras" / "datasets" / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    left.parent.mkdir(parents=True)
    left.touch()

    def load() -> Any:
        if left.exists():
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        return (SQUARES, np.arange(10)), (SQUARES, np.arange(10))

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", load)
    assert KerasDataset(name="fashion_mnist").load().classes == 10


@pytest.mark.tensorflow
def test_unreadable_copy_is_kept_if_the_download_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    kept = tmp_path / ".keras" / "datasets" / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"perhaps whole")

    def refused() -> None:
        raise MemoryError

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", refused)
    with pytest.raises(UserError, match="cannot be read, and the download failed"):
        KerasDataset(name="fashion_mnist").load()
    assert kept.read_bytes() == b"perhaps whole"


SQUARES = np.zeros((10, 28, 28), np.uint8)


def test_sample_of_a_sorted_file_has_every_class() -> None:
    labels = np.repeat(np.arange(10), 100)
    split = Split(Rows(np.zeros((1000, 1), np.float32)), labels)
    assert set(split.sample(100).y) == set(range(10))
    assert np.array_equal(split.sample(100).y, split.sample(100).y)


def test_sample_of_all_images_keeps_their_order() -> None:
    split = Split(Rows(np.zeros((3, 1), np.float32)), np.array([2, 0, 1]))
    assert split.sample(5).y.tolist() == [2, 0, 1]


@pytest.mark.tensorflow
def test_keras_data_set_is_read_in_its_stored_form(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.system.tensorflow import keras

    def cached() -> Any:
        x, y = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10).reshape(10, 1)
        return (x, y), (x, y)

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", cached)
    data = KerasDataset(name="cifar10").load()
    assert (data.input_shape, data.classes) == ((32, 32, 3), 10)


def test_keras_cache_of_another_user_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.dataset.keras_datasets._folder", lambda: tmp_path / ".keras" / "datasets")
    monkeypatch.setattr("os.getuid", lambda: 4711)
    with pytest.raises(UserError, match=r"which belongs to another user. Set HOME to a writable folder"):
        KerasDataset(name="cifar10").load()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_train": np.full((6, 4, 4), 1e60)},
            r"x_train has values up to 1e\+60; models require float32.*Scale them",
        ),
        ({"y_train": np.arange(2**64 - 6, 2**64, dtype=np.uint64)}, r"has the label 18446744073709551615.*2\*\*63"),
        ({"y_train": np.full(6, 1e30)}, r"labels require values below 2\*\*63. Number the classes"),
        (
            {"x_train": np.zeros((6, 2, 2, 2, 1)), "x_test": np.zeros((2, 2, 2, 2, 1))},
            r"shape \(2, 2, 2, 1\).*keras_file",
        ),
    ],
    ids=["beyond float32", "beyond int64", "floats beyond int64", "five axes"],
)
def test_unsupported_arrays_are_rejected_before_the_run(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {
        "x_train": np.zeros((6, 4, 4)),
        "y_train": np.arange(6) % 2,
        "x_test": np.zeros((2, 4, 4)),
        "y_test": [0, 1],
    }
    np.savez(tmp_path / "data.npz", **{**arrays, **changes})
    source = Npz(path=tmp_path / "data.npz")
    with pytest.raises(UserError, match=message):
        source.check()
        source.check_for_new_model()
