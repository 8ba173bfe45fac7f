"""Windows of measured series, from CSV or Parquet files with one row per step."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt
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
from experiments.dataset.place import in_column
from experiments.dataset.splitting import held_out
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION

BLOCKS, BLOCK_WINDOWS = 10, 4  # of each recording with overlapping windows, and the least length of most blocks


@option(frozen=True, config=OPTION, kw_only=True)
class Series(ColumnSource):
    """Windows (n, window, channels) float32 of consecutive rows with the same label."""

    window: PositiveInt
    step: PositiveInt | None = None  # rows from the start of a window to that of the next; null: no overlap
    series: str | None = None  # a column; rows with the same value are one series. null: the file is one
    channels: tuple[str, ...] | None = None  # null: all columns but the target and the series

    def read_for(self, kind: Kind | None) -> Raw:
        """Return the windows of both parts; those of one series, if there are several, are in the same part."""
        frame = self._columns(read_frame(self.path, "dataset.path"))
        names = list(self.channels or frame.others([self.target, self.series]))
        if not names:
            raise UserError(f"{frame.where}: has no columns beside {self.target}.")
        warnings = () if self.channels else row_number_warnings(frame, names, "dataset.channels")
        described: dict[str, Any] = {
            "warnings": warnings,
            "preprocessing": {"series": {"columns": names, "window": self.window}},
            "place": in_column(self.target),
            "shaped_by": "Set dataset.window, and the columns of the model: dataset.channels=[...]",
        }
        share = 0.0 if self.test_path or self.series else self.test_share
        x, y, groups, late = self._windows(frame, names, share)
        if self.test_path:
            test = self._columns(read_frame(self.test_path, "dataset.test_path"))
            test.require(names, "dataset.channels")
            x_test, y_test, _, _ = self._windows(test, names, 0.0)
            return Raw(x, y, x_test, y_test, groups=groups, **described)
        if self.series:
            late = held_out(y if is_class(y, kind) else np.zeros(len(y)), self.test_share, self.split_seed, groups)
        if late.all() or not late.any():
            ids = groups.tolist() if self.series and groups is not None else []
            raise UserError(
                f"dataset.test_share={self.test_share}: leaves one part of {len(late)} windows"
                f"{f' of {len(set(ids))} series' if ids else ''} empty. Use another share or window."
                f"{suggest_regression(y, self.target, kind)}"
            )
        kept = None if groups is None else groups[~late]
        return Raw(x[~late], y[~late], x[late], y[late], groups=kept, **described)

    def _columns(self, frame: Frame) -> Frame:
        frame.require([self.target], f"dataset.target={self.target}")
        frame.require(self.channels or (), "dataset.channels")
        if self.target in (self.channels or ()):
            raise UserError(f"dataset.channels: has {self.target}, which is dataset.target. Remove it.")
        frame.require([self.series] if self.series else [], f"dataset.series={self.series}")
        return frame

    def _windows(
        self, frame: Frame, names: list[str], share: float
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], npt.NDArray[Any] | None, npt.NDArray[np.bool_]]:
        """Return windows, their labels and groups, and whether they are in the last `share` of their recording.

        A recording is a run of rows with one label; no window extends over its end, or into its last share. Windows of
        different groups have no rows in common: they are those of one series or, if windows of one series overlap, of
        one block.
        """
        known = [self.target, *([self.series] if self.series else [])]
        if not self.skip_broken:
            frame = frame.complete([*names, *known], leave_out=False)
        exact, labels = frame.numbers(names, "dataset.channels"), frame.labels(self.target)
        frame.check_single(exact, names, "dataset.channels", "Subtract their mean from the column. ")
        values, missing = exact.astype(np.float32), frame.columns[known].isna().any(axis=1).to_numpy()
        ids = frame.labels(self.series) if self.series else np.zeros(len(frame), np.int64)
        changes = 1 + np.flatnonzero((labels[1:] != labels[:-1]) | (ids[1:] != ids[:-1]))
        starts, late, blocks = [], [], []
        for first, end in zip([0, *changes.tolist()], [*changes.tolist(), len(labels)], strict=True):
            cut = end - round((end - first) * share)
            for begin, stop in (*pairwise(self._borders(first, cut)), (cut, end)):
                found = list(range(begin, stop - self.window + 1, self.step or self.window))
                starts += found
                late += [begin == cut and share > 0] * len(found)
                blocks += [begin] * len(found)
        rows = np.array(starts, np.int64)[:, np.newaxis] + np.arange(self.window)
        if len(rows) == 0:
            longest = int(np.diff([0, *changes.tolist(), len(labels)]).max())
            raise UserError(
                f"dataset.window={self.window}: {frame.where} has at most {longest} consecutive rows with one label. "
                "Use a smaller window."
            )
        windows = values[rows]
        # All of them, unless skip_broken is set.
        whole = np.isfinite(windows).all(axis=(1, 2)) & ~missing[rows[:, 0]]
        first = rows[whole, 0]
        groups = ids[first] if self.series else np.array(blocks)[whole] if self._overlap else None
        return windows[whole], labels[first], groups, np.array(late, bool)[whole]

    @property
    def _overlap(self) -> bool:
        """Whether validation windows might have rows of training windows."""
        return self.step is not None and self.step < self.window and self.validation_split > 0

    def _borders(self, first: int, end: int) -> list[int]:
        """Return the borders of blocks of training rows; a block is held out for validation as a whole."""
        whole = not self._overlap or self.series is not None
        windows = (end - first) // self.window
        count = 1 if whole else max(1, min(BLOCKS, max(windows // BLOCK_WINDOWS, min(2, windows))))
        return [int(border) for border in np.linspace(first, end, count + 1)]
