"""Tables and series in CSV and Parquet files: which columns and rows are used, how they are split, what is refused."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.dataset.series import Series
from experiments.dataset.table import Table
from experiments.system.errors import UserError

ROWS = pd.DataFrame(
    {
        "age": np.arange(40) + 20,
        "height": np.linspace(1.5, 2.0, 40),
        "person": np.repeat([f"p{n}" for n in range(10)], 4),
        "kind": ["a", "a", "a", "b"] * 10,
    }
)


def saved(folder: Path, rows: pd.DataFrame = ROWS, name: str = "rows.csv") -> Path:
    path = folder / name
    rows.to_parquet(path) if path.suffix == ".parquet" else rows.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_rows_are_split_by_class(tmp_path: Path, name: str) -> None:
    data = Table(path=saved(tmp_path, name=name), target="kind", features=("age", "height"), stratify=True).load()
    assert data.input_shape == (2,)
    assert data.labels == {0: "a", 1: "b"}
    assert [np.bincount(split.y).tolist() for split in (data.train, data.validation, data.test)] == [
        [22, 7],
        [2, 1],
        [6, 2],
    ]


def test_measured_values_are_targets_of_a_regression(tmp_path: Path) -> None:
    examples = Table(path=saved(tmp_path), target="height", features=("age",)).examples()
    assert examples.kind == "numbers"
    assert (len(examples.train), len(examples.validation), len(examples.test)) == (29, 3, 8)


def test_rows_of_one_group_stay_in_one_part(tmp_path: Path) -> None:
    data = Table(path=saved(tmp_path), target="kind", group="person", validation_split=0.25).load()
    people = [set(((split.x[:, 0] - 20) // 4).astype(int)) for split in (data.train, data.validation, data.test)]
    assert sorted(len(part) for part in people) == [2, 2, 6]
    assert len(set.union(*people)) == 10


def test_standardized_by_the_training_rows(tmp_path: Path) -> None:
    source = Table(path=saved(tmp_path), target="kind", group="person", standardize=True, validation_split=0)
    data = source.load()
    assert np.allclose(data.train.x[:].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(data.train.x[:].std(axis=0), 1, atol=1e-5)
    assert data.notes[0].startswith("standardized by (mean, deviation) of the training rows: age (")


def test_test_rows_from_their_own_file(tmp_path: Path) -> None:
    test = saved(tmp_path, ROWS.iloc[:8], "test.csv")
    data = Table(path=saved(tmp_path), test_path=test, target="kind", features=("age",), validation_split=0).load()
    assert (len(data.train), len(data.test)) == (40, 8)


def holes() -> pd.DataFrame:
    rows = ROWS.astype({"age": float})
    rows.loc[[3, 5], "age"] = np.nan
    rows.loc[5, "height"] = np.nan
    return rows


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            ROWS,
            {"target": "knd"},
            r"dataset\.target=knd: dataset\.path=.*rows\.csv has no column knd\. Did you mean kind",
        ),
        (ROWS, {"features": ("age", "weight")}, r"dataset\.features: .* has no column weight"),
        (
            ROWS,
            {},
            r"requires numbers, but the column person has other values, such as 'p0'.*features=\[age,height\]",
        ),
        (
            holes(),
            {"group": "person"},
            r"2 of 40 rows have missing or infinite values, in age \(2\), height \(1\).*skip_broken",
        ),
        (ROWS.iloc[:0], {"group": "person"}, "has no rows"),
        (
            ROWS,
            {"group": "person", "test_share": 0.001},
            r"dataset\.test_share=0\.001: leaves one part of 40 rows empty",
        ),
    ],
    ids=["target", "feature", "texts", "missing values", "empty", "share"],
)
def test_invalid_tables_are_refused_with_one_message_before_the_run(
    tmp_path: Path, rows: pd.DataFrame, settings: dict[str, Any], message: str
) -> None:
    source = Table(path=saved(tmp_path, rows), **{"target": "kind", **settings})
    source.check()
    with pytest.raises(UserError, match=message):
        source.check_targets(None)


def test_rows_with_missing_values_are_left_out_on_request(tmp_path: Path) -> None:
    source = Table(path=saved(tmp_path, holes()), target="kind", group="person", skip_broken=True, validation_split=0)
    data = source.load()
    assert len(data.train) + len(data.test) == 38


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", b"", r"requires a \.csv, \.tsv or \.parquet file"),
        ("rows.parquet", b"nothing", "not a Parquet file"),
    ],
)
def test_other_files_are_refused_before_the_run(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Table(path=tmp_path / name, target="kind").check()


def test_a_table_beyond_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("wb") as file:
        file.truncate(2**34)  # takes no space on the disk
    with pytest.raises(UserError, match=r"takes about 32\.0 GiB of memory, and .* GiB are free"):
        Table(path=path, target="kind").check()


def steps(series: int = 8, length: int = 50) -> pd.DataFrame:
    names = np.repeat(np.arange(series), length)
    return pd.DataFrame({"x": np.arange(len(names)), "y": 1.0, "id": names, "state": np.where(names % 2, "on", "off")})


def test_windows_are_consecutive_rows_of_one_series(tmp_path: Path) -> None:
    path = saved(tmp_path, steps())
    data = Series(path=path, target="state", window=20, step=10, series="id", test_share=0.25).load()
    windows = np.concatenate([split.x[:] for split in (data.train, data.validation, data.test)])
    assert windows.shape == (8 * 4, 20, 2, 1)  # bundled architectures get series with a channel axis
    assert (np.diff(windows[:, :, 0], axis=1) == 1).all()
    series = [set((split.x[:, 0, 0, 0] // 50).astype(int)) for split in (data.train, data.test)]
    assert series[0] & series[1] == set()


def test_the_end_of_one_recording_is_its_test_part(tmp_path: Path) -> None:
    path = saved(tmp_path, steps(2, 100).drop(columns="id"))
    data = Series(path=path, target="state", window=10, step=5, validation_split=0).load()
    last = [float(split.x[split.y == 0, :, 0].max()) for split in (data.train, data.test)]
    first = float(data.test.x[data.test.y == 0, :, 0].min())
    assert last[0] < first == 80


def test_overlapping_windows_of_training_and_validation_have_no_rows_in_common(tmp_path: Path) -> None:
    path = saved(tmp_path, steps(2, 500).drop(columns="id"))
    data = Series(path=path, target="state", window=10, step=2).load()
    parts = [set(split.x[:, :, 0].ravel().tolist()) for split in (data.train, data.validation, data.test)]
    assert not any(one & other for one, other in combinations(parts, 2))
    assert 0.05 < len(data.validation) / (len(data.train) + len(data.validation)) < 0.2


def test_the_preprocessing_of_columns_is_recorded(tmp_path: Path) -> None:
    path = saved(tmp_path, steps(2, 100).drop(columns="id"))
    series = Series(path=path, target="state", window=10).load()
    assert series.preprocessing == {"series": {"columns": ["x", "y"], "window": 10}}
    rows = pd.DataFrame({"a": np.arange(40.0), "b": 3.0, "y": np.arange(40) % 2})
    data = Table(path=saved(tmp_path, rows), target="y", standardize=True).load()
    kept = data.preprocessing["table"]
    stored = data.train.x[:].reshape(-1, 2) * kept["deviation"] + kept["mean"]
    assert kept["columns"] == ["a", "b"]
    np.testing.assert_allclose(stored, np.stack([stored[:, 0].round(), np.full(len(stored), 3)], axis=1), atol=1e-4)


def test_no_window_has_rows_of_two_labels_and_short_runs_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, steps(2, 30).drop(columns="id"))
    data = Series(path=path, target="state", window=12, step=1, validation_split=0, test_share=0.5).load()
    assert set(data.train.x[data.train.y == 0, :, 0].ravel()) == set(range(15))
    with pytest.raises(UserError, match=r"dataset\.window=31: .* has at most 30 consecutive rows with one label"):
        Series(path=path, target="state", window=31).check_targets(None)


def test_windows_with_missing_values_are_refused_or_left_out(tmp_path: Path) -> None:
    rows = steps(2, 100).drop(columns="id").astype({"x": float})
    rows.loc[3, "x"] = np.nan
    path = saved(tmp_path, rows)
    with pytest.raises(UserError, match=r"1 of 200 rows have missing or infinite values, in x \(1\)"):
        Series(path=path, target="state", window=10).load()
    data = Series(path=path, target="state", window=10, skip_broken=True, validation_split=0).load()
    assert len(data.train) + len(data.test) == 19
