"""A table of features, one example per row, from CSV or Parquet files."""

from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw
from experiments.dataset.columns import ColumnSource
from experiments.dataset.frames import (
    Frame,
    is_class,
    read_frame,
    row_number_warnings,
    suggest_regression,
)
from experiments.dataset.leakage import leakage_warnings
from experiments.dataset.place import in_column
from experiments.dataset.splitting import held_out
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION

NOTED = 8  # columns whose mean and deviation are shown
STANDARDIZE = "dataset.standardize=true"
SHAPED_BY = "Name the columns of the model: dataset.features=[...]"


@option(frozen=True, config=OPTION, kw_only=True)
class Table(ColumnSource):
    """Features (n, columns) float32, and the column with the class or the value to predict."""

    features: tuple[str, ...] | None = None  # null: all columns but the target and the group
    group: str | None = None  # a column; rows with the same value are never in different splits
    standardize: bool = False

    def read_for(self, kind: Kind | None) -> Raw:
        """Return the features and the target of both parts."""
        frame = self._columns(read_frame(self.path, "dataset.path"))
        names = list(self.features or frame.others([self.target, self.group]))
        if not names:
            raise UserError(f"{frame.where}: has no columns beside {self.target}.")
        warnings = () if self.features else row_number_warnings(frame, names, "dataset.features")
        used_columns = [*names, self.target, *([self.group] if self.group else [])]
        frame = frame.complete(used_columns, self.skip_broken)
        x, y = frame.numbers(names, "dataset.features"), frame.labels(self.target)
        warnings += tuple(
            f"leakage: the column {name} is equal to the target {self.target}."
            for name, column in zip(names, x.T, strict=True)
            if y.dtype.kind in "biuf" and (column == y).all()
        )
        groups = frame.labels(self.group) if self.group else None
        if self.test_path:
            other = self._columns(read_frame(self.test_path, "dataset.test_path"))
            other.require(names, "dataset.features")
            other = other.complete([*names, self.target], self.skip_broken)
            parts = (x, y, other.numbers(names, "dataset.features"), other.labels(self.target))
            rows = {"train": frame.rows, "test": other.rows}
        else:
            classes = y if is_class(y, kind) else np.zeros(len(y))
            held = held_out(classes, self.test_share, self.split_seed, groups)
            if held.all() or not held.any():
                raise UserError(
                    f"dataset.test_share={self.test_share}: leaves one part of {len(held)} rows empty. Use another "
                    f"share.{suggest_regression(y, self.target, kind)}"
                )
            parts = (x[~held], y[~held], x[held], y[held])
            rows = {"train": frame.rows[~held], "test": frame.rows[held]}
            groups = None if groups is None else groups[~held]
        x_train, y_train, x_test, y_test = parts
        notes: tuple[str, ...] = ()
        used: dict[str, Any] = {"columns": names}
        if self.standardize:
            mean, deviation = x_train.mean(axis=0), x_train.std(axis=0)
            deviation[deviation == 0] = 1
            used |= {"mean": mean.tolist(), "deviation": deviation.tolist()}
            x_train, x_test = (x_train - mean) / deviation, (x_test - mean) / deviation  # in float64
            shown = [f"{n} ({m:.6g}, {d:.6g})" for n, m, d in zip(names, mean, deviation, strict=True)]
            more = ", ..." if len(shown) > NOTED else ""
            notes = (f"standardized by (mean, deviation) of the training rows: {', '.join(shown[:NOTED])}{more}",)
        way_out = "" if self.standardize else f"Subtract their mean: {STANDARDIZE}. "
        for each in (x_train, x_test):
            frame.check_single(each, names, "dataset.features", way_out)
        train, test = (np.asarray(each, np.float32) for each in (x_train, x_test))
        files = {"train": self.path, "test": self.test_path or self.path}
        warnings += leakage_warnings(train, test, lambda part, place: f"row {rows[part][place]} of {files[part].name}")
        return Raw(
            train, y_train, test, y_test, groups=groups, notes=notes, warnings=warnings,
            preprocessing={"table": used}, place=in_column(self.target, STANDARDIZE), shaped_by=SHAPED_BY,
        )  # fmt: skip

    def _columns(self, frame: Frame) -> Frame:
        frame.require([self.target], f"dataset.target={self.target}")
        frame.require(self.features or (), "dataset.features")
        if self.target in (self.features or ()):
            raise UserError(f"dataset.features: has {self.target}, which is dataset.target. Remove it.")
        frame.require([self.group] if self.group else [], f"dataset.group={self.group}")
        return frame
