"""Data that look usable and are not: each is refused, or named in a warning or a note, before anything is trained."""

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.dataset import Dataset, Examples, Split
from experiments.dataset.fashion_mnist import read_idx
from experiments.dataset.image_folder import ImageFolder
from experiments.dataset.npz import Npz
from experiments.dataset.rows import rows_of
from experiments.dataset.series import Series
from experiments.dataset.table import Table
from experiments.dataset.values import Scaling
from experiments.system.errors import UserError
from experiments.task.detection import Detection

ROWS = 40
RNG = np.random.default_rng(0)
Arrays = dict[str, Any]


def table(folder: Path, text: str | bytes, suffix: str = ".csv", **settings: Any) -> Table:
    path = folder / f"data{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Table(path=path, **{"target": "y", "validation_split": 0, **settings})


def lines(header: str, row: Callable[[int], str], rows: int = ROWS) -> str:
    return "\n".join([header, *map(row, range(rows))]) + "\n"


def test_a_missing_label_does_not_shorten_the_others(tmp_path: Path) -> None:
    labels = ["walk"] * 12 + [None] + ["wait"] * 12
    pd.DataFrame({"a": RNG.random(25), "y": labels}).to_csv(tmp_path / "data.csv", index=False)
    data = Series(path=tmp_path / "data.csv", target="y", window=1, skip_broken=True).load()
    assert data.labels == {0: "wait", 1: "walk"}


def test_rows_without_a_group_are_refused(tmp_path: Path) -> None:
    text = lines("a,g,y", lambda i: f"{i % 7},{'' if i == 3 else f'g{i % 5}'},{i % 2}")
    with pytest.raises(UserError, match=r"1 of 40 rows have missing or infinite values, in g \(1\)"):
        table(tmp_path, text, group="g").read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines("a;b;y", lambda i: f"{i},5;{i};{i % 2}"),
         r"separated by ';'; requires ','\. .*read_csv\(FILE, sep=';', decimal=','\)\.to_csv"),
        (lines("a;b;y", lambda i: f"{i};{i};{i % 2}"), r"read_csv\(FILE, sep=';'\)\.to_csv"),
        (lines("a,b,y", lambda i: f'"{i},5",{i % 3},{i % 2}'), r"such as '0,5'\. To read decimal .*decimal=','"),
        (lines("a, a,y", lambda i: f"{i % 7},{i % 3},{i % 2}"), "has several columns a. Each requires a name of its"),
        (lines("a,b,y", lambda i: f"{i},{i % 3},{i % 5},{i % 2}"), "rows have more values than its first line has"),
        (lines("a,b,y", lambda i: f"{i % 7},{'inf' if i == 3 else i % 3},{i % 2}"), r"infinite values, in b \(1\)"),
        (lines("a,b,y", lambda i: f"{i % 7},1e300,{i % 2}"), r"column b has values up to 1e\+300; .* float32"),
        (lines("a,b,y", lambda i: f"{i % 7},{1_700_000_000 + i % 9},{i % 2}"),
         r"column b has values from 1700000000 to 1700000008. Models compute.*standardize=true.*features=\[a\]"),
        (lines("a,b,y", lambda i: f"{i % 7},{i % 3},{i * 15 + 3}"),
         r"y has 40 different values, treated as classes; to predict numbers, type task=regression"),
        (lines("a,b,y", lambda i: f"{i % 7},{i % 3},{['NA', 'EU'][i % 2]}"), "The texts NA, None and null stand for"),
        (lines("a,b,y", lambda i: "a,b,y" if i == 9 else f"{i % 7},{i % 3},{i % 2}"), r"other values, such as 'a'\."),
        (lines("a,b,y", lambda i: f"{i % 7},{i % 3},{['ö', 'x'][i % 2]}").encode("latin-1"), "requires text in UTF-8"),
    ],
    ids=["decimal commas", "semicolons", "quoted commas", "equal names", "more values", "infinite", "too large",
         "too close", "numbers", "NA", "two headers", "latin-1"],
)  # fmt: skip
def test_tables_that_would_be_read_wrongly_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table(tmp_path, text).load()


def test_a_target_is_no_feature(tmp_path: Path) -> None:
    text = lines("a,b,y", lambda i: f"{i % 7},{i % 2},{i % 2}")
    with pytest.raises(UserError, match=r"dataset\.features: has y, which is dataset\.target"):
        table(tmp_path, text, features=("a", "y")).read()
    assert table(tmp_path, text).read().warnings == ("leakage: the column b is equal to the target y.",)


def test_a_column_that_numbers_the_rows_is_a_warning_unless_it_was_chosen(tmp_path: Path) -> None:
    text = lines(",a,y", lambda i: f"{i},{i % 7},{i // 20}")
    (warning,) = table(tmp_path, text).read().warnings
    assert warning.startswith("row numbers: the column Unnamed: 0 numbers the rows")
    assert "dataset.features=[a]" in warning
    assert table(tmp_path, text, features=("Unnamed: 0", "a")).read().warnings == ()


def test_a_large_offset_is_subtracted_before_values_become_float32(tmp_path: Path) -> None:
    numbers = 1_700_000_000 + np.arange(ROWS) % 9
    text = lines("a,y", lambda i: f"{numbers[i]},{i % 2}")
    raw = table(tmp_path, text, standardize=True).read()
    used = raw.preprocessing["table"]
    expected = (numbers[:, np.newaxis] - np.float64(used["mean"])) / np.float64(used["deviation"])
    found = np.concatenate([raw.x_train, raw.x_test])
    assert sorted(found.ravel()) == pytest.approx(sorted(expected.ravel()), abs=1e-6)


def test_the_training_file_is_no_test_file(tmp_path: Path) -> None:
    source = table(tmp_path, lines("a,y", lambda i: f"{i % 7},{i % 2}"), test_path=tmp_path / "data.csv")
    with pytest.raises(UserError, match=r"dataset\.test_path=.* is the file of the training part"):
        source.check()


@pytest.mark.parametrize("values", [1000, 2])
def test_equal_rows_in_both_parts_are_a_warning_unless_rows_are_often_equal(tmp_path: Path, values: int) -> None:
    rows = RNG.integers(0, values, (ROWS, 3))
    rows[ROWS // 2 :] = rows[: ROWS // 2]
    text = lines("a,b,c,y", lambda i: f"{rows[i, 0]},{rows[i, 1]},{rows[i, 2]},{i % 2}")
    (tmp_path / "test.csv").write_text(text)
    raw = table(tmp_path, text, test_path=tmp_path / "test.csv").read()
    assert raw.warnings == ()  # every row occurs twice in the training part
    half = lines("a,b,c,y", lambda i: f"{rows[i, 0]},{rows[i, 1]},{rows[i, 2]},{i % 2}", ROWS // 2)
    found = table(tmp_path, half, test_path=tmp_path / "test.csv").read().warnings
    assert [each.startswith("leakage: 40 of 40 test examples") for each in found] == [True] * (values == 1000)
    assert all("row 1 of test.csv equals row 1 of data.csv" in each for each in found)


def test_equal_rows_of_a_file_that_was_split_are_named_by_their_places_in_it(tmp_path: Path) -> None:
    twice = RNG.random((ROWS, 3))
    twice[ROWS // 2 :][:4] = twice[:4]
    text = lines("a,b,c,y", lambda i: ",".join(map(str, [*twice[i], i % 2])))
    (warning,) = table(tmp_path, text).read().warnings
    match = re.search(r"row (\d+) of data\.csv equals row (\d+) of data\.csv", warning)
    assert match
    one, other = map(int, match.groups())
    assert abs(one - other) == ROWS // 2


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (
            "numbers",
            "ab",
            r"dataset\.target=y of the training part has one value for each example, such as a.* numbers",
        ),
        ("rows", "01", r"of the training part has one value .* labels\)\. Save examples and targets as arrays"),
        ("anomalies", "01", r"has \d+ anomalies; .* Move their rows to the file of dataset\.test_path"),
        ("anomalies", "23", r"requires 0 for a normal example and 1 for an anomaly\.$"),
        ("classes", ["0.25", "0.5"], r"dataset\.target=y of the training part has .* not an integer\. Labels require"),
    ],
)
def test_messages_on_a_table_name_its_column_and_no_arrays(tmp_path: Path, kind: Any, value: Any, message: str) -> None:
    text = lines("a,b,y", lambda i: f"{i % 7},{i % 5},{value[i % 2]}")
    with pytest.raises(UserError, match=message) as refused:
        table(tmp_path, text).examples(kind)
    assert not re.search("[xy]_train|[xy]_test|np\\.", str(refused.value))


def test_windows_of_different_ranges_are_named_by_their_parts(tmp_path: Path) -> None:
    for name, factor in (("data", 1), ("test", 1000)):
        (tmp_path / f"{name}.csv").write_text(lines("a,y", lambda i: f"{factor * i},{i // 20}"))  # noqa: B023
    source = Series(path=tmp_path / "data.csv", test_path=tmp_path / "test.csv", target="y", window=5)
    (warning,) = source.examples().warnings[-1:]
    assert warning.startswith("ranges: the training part has values from 0 to 39, but the test part from 0 to 39000")


def test_integers_to_predict_are_split_at_random(tmp_path: Path) -> None:
    text = lines("a,y", lambda i: f"{i % 7},{i * 3}")
    assert len(table(tmp_path, text).read_for("numbers").y_test) == ROWS // 5


def test_a_named_index_of_a_parquet_file_is_a_column(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": RNG.random(ROWS), "y": np.arange(ROWS) % 2, "id": RNG.random(ROWS)})
    frame.set_index("id").to_parquet(tmp_path / "data.parquet")
    assert Table(path=tmp_path / "data.parquet", target="y").read().x_train.shape[1] == 2


def test_a_mark_of_the_byte_order_is_no_part_of_a_name(tmp_path: Path) -> None:
    text = lines("a,y", lambda i: f"{i % 7},{i % 2}")
    raw = table(tmp_path, text.encode("utf-8-sig"), features=("a",)).read()
    assert raw.preprocessing["table"] == {"columns": ["a"]}


@pytest.mark.parametrize(("train", "test"), [([0, 1], [0, 7]), ([1, 1], [1, 1]), ([-1, 0, 1], [0]), (["a", "b"], [1])])
def test_messages_about_labels_of_a_table_name_its_column_and_no_array(
    tmp_path: Path, train: list[object], test: list[object]
) -> None:
    (tmp_path / "test.csv").write_text(lines("a,y", lambda i: f"{i % 7},{test[i % len(test)]}"))
    text = lines("a,y", lambda i: f"{i % 7},{train[i % len(train)]}")
    with pytest.raises(UserError, match=r"^dataset\.target=y of the t") as refusal:
        table(tmp_path, text, test_path=tmp_path / "test.csv").load()
    assert "np." not in str(refusal.value)


def test_numbers_of_a_parquet_file_may_be_categories_or_objects(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    numbers = np.arange(ROWS) % 7
    frame = pd.DataFrame(
        {
            "a": pd.Categorical(numbers),
            "b": [Decimal(int(number)) for number in numbers],
            "c": pd.Series([None if number == 3 else bool(number) for number in numbers], dtype=object),
            "y": pd.Categorical(np.where(numbers > 3, "yes", "no")),
        }
    )
    frame.to_parquet(tmp_path / "data.parquet")
    source = Table(path=tmp_path / "data.parquet", target="y", skip_broken=True, validation_split=0)
    data = source.load()
    assert data.labels == {0: "no", 1: "yes"}
    assert sorted(np.concatenate([data.train.x[:], data.test.x[:]])[:, 1]) == sorted(numbers[numbers != 3])
    with pytest.raises(UserError, match=r"rows have missing or infinite values, in c \(6\)"):
        replace(source, skip_broken=False).load()


@pytest.mark.parametrize(
    ("column", "message"),
    [("a", r"requires numbers, but the column a has other values"), ("y", "y requires one value in each row, not sev")],
)
def test_columns_of_lists_are_refused(tmp_path: Path, column: str, message: str) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": np.arange(ROWS) % 7, "y": np.arange(ROWS) % 2})
    frame[column] = pd.Series([[number, 2] for number in range(ROWS)])
    frame.to_parquet(tmp_path / "data.parquet")
    with pytest.raises(UserError, match=message):
        Table(path=tmp_path / "data.parquet", target="y").load()


def test_columns_of_a_parquet_file_have_different_names(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = [pyarrow.array(np.arange(ROWS) % 2)] * 3
    parquet.write_table(pyarrow.table(columns, names=["a", "a", "y"]), tmp_path / "data.parquet")
    with pytest.raises(UserError, match=r"data\.parquet: .* a"):
        Table(path=tmp_path / "data.parquet", target="y").load()


def arrays(**changes: Any) -> Arrays:
    """Return a valid archive's arrays, changed."""
    images = RNG.integers(0, 256, (30, 6, 6, 1), np.uint8)
    return {
        "x_train": images[:20],
        "y_train": np.arange(20) % 2,
        "x_test": images[20:],
        "y_test": np.arange(10) % 2,
    } | changes


def npz(folder: Path, **changes: Any) -> Npz:
    np.savez(folder / "data.npz", **arrays(**changes))
    return Npz(path=folder / "data.npz", validation_split=0)


@pytest.mark.parametrize("name", ["x_train.npy", "x_train"])
def test_members_that_are_no_arrays_are_refused_unopened(tmp_path: Path, name: str) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    np.savez(tmp_path / "data.npz", **{key: value for key, value in arrays().items() if key != "x_train"})
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr(name, pickle.dumps(Code()))
    with pytest.raises(UserError, match="x_train is not an array of NumPy"):
        Npz(path=tmp_path / "data.npz").read()
    assert not (tmp_path / "opened").exists()


def test_images_without_pixels_are_refused(tmp_path: Path) -> None:
    empty = np.zeros((20, 0, 6, 1), np.uint8)
    with pytest.raises(UserError, match=r"x_train has the shape \(20, 0, 6, 1\); it requires at least one value"):
        npz(tmp_path, x_train=empty, x_test=empty[:10]).load()


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (lambda a: {"x_test": a["x_train"][5:15]}, "leakage: 10 of 10 test examples .* x_test[0] equals x_train[5]"),
        (lambda a: {"x_train": a["x_train"] / 255, "x_test": a["x_test"] / 1.0}, "ranges: x_train has values from"),
        (lambda a: {name: RNG.integers(0, 256, (len(a[name]), 3, 6, 6), np.uint8) for name in ("x_train", "x_test")},
         "channel order: images of shape (3, 6, 6) are used as"),
    ],
    ids=["leakage", "ranges", "channels first"],
)  # fmt: skip
def test_doubtful_images_are_a_warning(tmp_path: Path, changes: Callable[[Arrays], Arrays], warning: str) -> None:
    given = arrays()
    data = npz(tmp_path, **{**given, **changes(given)}).load()
    (found,) = data.warnings
    assert all(part in found for part in warning.split(" .* "))


def test_equal_examples_of_several_inputs_are_equal_in_all_of_them(tmp_path: Path) -> None:
    image, table = RNG.integers(0, 256, (30, 6, 6, 1), np.uint8), RNG.random((30, 2), np.float32)
    given: Arrays = {"x_train/image": image[:20], "x_train/table": table[:20], "y_train": np.arange(20) % 2}
    tests: Arrays = {"x_test/image": image[10:20], "y_test": np.arange(10) % 2}
    for name, values, warned in (("other", table[20:], 0), ("equal", table[10:20], 1)):
        np.savez(tmp_path / f"{name}.npz", **{**given, **tests, "x_test/table": values})
        found = Npz(path=tmp_path / f"{name}.npz").read().warnings
        assert [each.startswith("leakage: 10 of 10 test examples") for each in found] == [True] * warned


def test_valid_images_have_no_warning(tmp_path: Path) -> None:
    assert npz(tmp_path).load().warnings == ()


def test_classes_that_differ_in_their_zeros_are_not_merged(tmp_path: Path) -> None:
    data = npz(tmp_path, y_train=np.array(["1", "01"] * 10), y_test=np.array(["1", "01"] * 5)).load()
    assert data.labels == {0: "01", 1: "1"}


def test_masks_of_0_and_255_are_not_256_classes(tmp_path: Path) -> None:
    masks = (RNG.random((30, 6, 6)) < 0.5) * np.uint8(255)
    source = npz(tmp_path, y_train=masks[:20], y_test=masks[20:])
    with pytest.raises(UserError, match=r"numbered from 0, not 0, 255\..*task\.ignored=255"):
        source.load()


def boxes(*corners: float, number: int = 0) -> Dataset:
    found = np.tile(np.array([number, *corners], np.float32), (4, 1, 1))
    x = np.zeros((4, 8, 8, 1), np.float32)
    part = Split(rows_of(x, Scaling()), found)
    return Examples(part, part, part, kind="boxes").for_new_model()


@pytest.mark.parametrize(
    ("corners", "coordinates", "message"),
    [
        ((-3, -3, -1, -1), "normalized", r"4 of 4 boxes are outside of their image of 1 x 1 if they are xyxy"),
        ((9, 9, 12, 12), "pixels", r"4 of 4 boxes are outside of their image of 8 x 8"),
        ((0.1, 0.1, 0.5, 0.5), "pixels", r"coordinates up to 0\.5, which are shares of width and height, not pixels"),
    ],
)
def test_boxes_outside_of_their_image_are_refused(corners: Any, coordinates: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Detection(coordinates=coordinates)._check_targets(boxes(*corners))


@pytest.mark.parametrize(("number", "notes"), [(0, 0), (2, 1)])
def test_classes_without_boxes_are_noted(number: int, notes: int) -> None:
    found = boxes(0.1, 0.1, 0.5, 0.5, number=number).notes
    assert [each.startswith("boxes have classes from 2 to 2; the model also") for each in found] == [True] * notes


def test_boxes_that_exceed_their_image_are_used() -> None:
    Detection(coordinates="pixels")._check_targets(boxes(-2, -2, 5, 5))


def test_boxes_of_integers_are_not_taken_for_classes_of_pixels(tmp_path: Path) -> None:
    found = np.ones((20, 3, 5), np.int64)
    with pytest.raises(UserError, match="For boxes, type task=detection"):
        npz(tmp_path, y_train=found - 2, y_test=found[:10]).load()


@pytest.mark.parametrize("content", [b"\0\0\10\3\0", bytes((0, 0, 8, 255)) + bytes(99)], ids=["short", "255 axes"])
def test_a_short_header_of_idx_is_no_traceback(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="is not an IDX file of bytes"):
        read_idx(tmp_path / "file")


def save_images(folder: Path, *classes: str, parts: tuple[str, ...] = ("train", "test")) -> Path:
    for part in parts:
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = RNG.integers(0, 256, (6, 6, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def image_folder(path: Path, **settings: Any) -> ImageFolder:
    return ImageFolder(path=path, cache=path.parent / "cache", **{"validation_split": 0, **settings})


def test_train_and_test_are_no_classes_whatever_their_case(tmp_path: Path) -> None:
    data = image_folder(save_images(tmp_path / "pets", "cat", "dog", parts=("Train", "TEST"))).load()
    assert (len(data.train), len(data.test)) == (6, 6)
    assert data.labels == {0: "cat", 1: "dog"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("01", "1"), "the folders 01 and 1 have the same number"), (("a\nb", "c"), r"'a\\nb' requires a name without")],
)
def test_names_that_cannot_be_kept_apart_or_shown_are_refused(
    tmp_path: Path, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        image_folder(save_images(tmp_path / "pets", *classes)).check()


def test_a_group_that_is_optional_may_be_empty(tmp_path: Path) -> None:
    folder = image_folder(save_images(tmp_path / "pets", "cat", "dog") / "train", group="/(x)?")
    with pytest.raises(UserError, match="leaves one part of 6 images in 1 groups empty"):
        folder.check()


def test_what_decoding_leaves_out_is_noted(tmp_path: Path) -> None:
    path = save_images(tmp_path / "pets", "cat", "dog")
    frames = [Image.fromarray(RNG.integers(0, 256, (6, 6, 3), np.uint8)) for _ in range(3)]
    frames[0].save(path / "train/cat/moving.gif", save_all=True, append_images=frames[1:])
    turned = Image.Exif()
    turned[0x0112] = 6
    frames[0].save(path / "train/cat/turned.jpg", exif=turned)
    (path / "test/dog/new.HEIC").write_bytes(b"x")
    notes = " ".join(image_folder(path).load().notes)
    assert "images that have several frames, of which the first is used: 1" in notes
    assert "images that have an orientation in EXIF, which is not applied, as Keras does not: 1" in notes
    assert "not read, since their format is not supported: .heic (1)" in notes


def test_linked_folders_of_a_class_are_read_once_and_hidden_ones_are_not(tmp_path: Path) -> None:
    path = save_images(tmp_path / "pets", "cat", "dog")
    save_images(tmp_path / "more", "cat", parts=("train",))
    (path / "train/cat/linked").symlink_to(tmp_path / "more/train/cat", target_is_directory=True)
    (path / "train/cat/again").symlink_to(tmp_path / "more/train/cat", target_is_directory=True)
    (path / "train/cat/itself").symlink_to(path / "train/cat", target_is_directory=True)
    copies = path / "train/dog/.ipynb_checkpoints"
    copies.mkdir()
    (path / "train/dog/0.png").rename(copies / "0-checkpoint.png")
    train, _ = image_folder(path).listed()
    assert Counter(train.classes) == {"cat": 6, "dog": 2}


def test_a_link_to_a_missing_image_is_refused_or_left_out(tmp_path: Path) -> None:
    path = save_images(tmp_path / "pets", "cat", "dog")
    (path / "train/cat/lost.png").symlink_to(tmp_path / "lost.png")
    with pytest.raises(UserError, match=r"lost\.png is a link to a file that is not there.*skip_broken=true"):
        image_folder(path).check()
    assert len(image_folder(path, skip_broken=True).listed()[0].paths) == 6


def test_images_that_do_not_fit_a_model_are_resized_by_a_setting(tmp_path: Path) -> None:
    examples = image_folder(save_images(tmp_path / "pets", "cat", "dog")).examples()
    with pytest.raises(UserError, match=r"shape \(8, 8, 3\), but the data set has \(6, 6, 3\)\. Type dataset\.size="):
        examples.for_model((8, 8, 3), 2)


def test_classes_that_do_not_name_outputs_are_renamed_as_folders(tmp_path: Path) -> None:
    examples = image_folder(save_images(tmp_path / "pets", "cat", "dog")).examples()
    with pytest.raises(UserError, match="Rename the folders to the indices of the outputs"):
        examples.for_model((6, 6, 3), 5)
