"""Whether a sweep is worse than an earlier one: the same settings in both, and how much a column may drop or grow."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from experiments.comparison.columns import timed
from experiments.comparison.gates import of_numbers
from experiments.errors import UserError, first_line

SETTING = ("strategy", "model", "dataset", "epochs", "finetune_epochs", "seed")
FORM = re.compile(r"\s*(?P<column>[\w.]+)\s*=\s*(?P<amount>\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?)\s*(?P<percent>%?)\s*")
Direction = Literal["drop", "growth"]


@dataclass(frozen=True)
class Allowance:
    """By how much a column may drop or grow: an amount of its own unit, or a share of the earlier value."""

    column: str
    direction: Direction
    amount: float
    is_share: bool
    text: str

    def exceeded(self, before: float, now: float) -> bool:
        """Whether it has changed by more than that in the bad direction."""
        change = before - now if self.direction == "drop" else now - before
        return change > self.amount * (abs(before) if self.is_share else 1.0)


def allowance(text: str, direction: Direction, table: pd.DataFrame) -> Allowance:
    """An allowance as it is written: tflite_accuracy=0.005, latency_p50_us=10%.

    Raises:
        UserError: it is not of this form, or names no column of numbers.
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"--max-{direction} {text}: give a column and an amount, as in tflite_accuracy=0.005 or latency_p50_us=10%."
        )
    amount = float(found["amount"]) / (100 if found["percent"] else 1)
    column = of_numbers(table, found["column"], f"--max-{direction}")
    return Allowance(column, direction, amount, bool(found["percent"]), text.strip())


def earlier(path: Path) -> pd.DataFrame:
    """A comparison that was written as CSV.

    Raises:
        UserError: there is no such file, or it is no comparison.
    """
    try:
        names = pd.read_csv(path, nrows=0).columns
        table = pd.read_csv(path, dtype=dict.fromkeys(_varied(names), "string"))
    except (OSError, ValueError) as error:
        raise UserError(f"--against {path}: cannot be read ({first_line(error)}).") from error
    missing = [name for name in SETTING if name not in table.columns]
    if missing:
        raise UserError(f"--against {path}: this is no comparison, for it lacks {', '.join(missing)}.")
    return table


def regressions(before: pd.DataFrame, now: pd.DataFrame, allowances: Sequence[Allowance]) -> list[str]:
    """What has become worse by more than is allowed, in words; settings that only one of the two has are left out.

    Raises:
        UserError: no setting is in both, an earlier column is missing, or latencies come from different machines.
    """
    varied = [name for name in _varied(now.columns) if name in before.columns]
    now = now.astype(dict.fromkeys(varied, "string"))
    pairs = before.merge(now, on=[*SETTING, *varied], suffixes=("_before", "_now"))
    if pairs.empty:
        raise UserError("--against: no run of the earlier comparison has the settings of one of these.")
    found = []
    for each in allowances:
        if each.column not in before.columns:
            raise UserError(f"--max-{each.direction} {each.text}: the earlier comparison has no column {each.column}.")
        if timed(each.column):
            _check_machines(pairs, each)
        found += [_worse(run, each) for _, run in pairs.iterrows() if _is_worse(run, each)]
    return found


def _varied(names: Iterable[str]) -> list[str]:
    """Columns with settings of the configuration, such as strategy.layers: they stand in a table where they vary."""
    return [name for name in names if "." in name]


def _is_worse(run: pd.Series, allowed: Allowance) -> bool:
    """A value that was there and is not any more is worse than any."""
    before, now = run[f"{allowed.column}_before"], run[f"{allowed.column}_now"]
    if pd.isna(before):
        return False
    return bool(pd.isna(now)) or allowed.exceeded(float(before), float(now))


def _worse(run: pd.Series, allowed: Allowance) -> str:
    before, now = run[f"{allowed.column}_before"], run[f"{allowed.column}_now"]
    said = "nothing" if pd.isna(now) else f"{float(now):,.6g}"
    what = f"{run['strategy']} epochs={run['epochs']} seed={run['seed']}: {allowed.column} was {float(before):,.6g}"
    return f"{what} and is {said}; allowed is a {allowed.direction} of {allowed.text.partition('=')[2]}"


def _check_machines(pairs: pd.DataFrame, allowed: Allowance) -> None:
    if "machine_before" not in pairs or (pairs["machine_before"] != pairs["machine_now"]).any():
        raise UserError(
            f"--max-{allowed.direction} {allowed.text}: the two comparisons come from different machines, and their "
            "times say nothing of one another. Run both sweeps on one machine."
        )
