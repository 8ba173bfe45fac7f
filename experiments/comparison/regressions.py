"""Whether a sweep is worse than an earlier one: the same settings in both, and how much a column may drop or grow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from experiments.comparison.columns import CELL, VOID, WORDS, says, timed
from experiments.comparison.gates import of_numbers
from experiments.errors import UserError, first_line
from experiments.record import is_setting

SETTING = (*CELL, "seed")
FORM = re.compile(r"\s*(?P<column>[\w.]+)\s*=\s*(?P<amount>\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?)\s*(?P<percent>%?)\s*")
Direction = Literal["drop", "growth"]
ROUNDING = 1e-12  # of a value: 0.99 - 0.985 is a little more than 0.005


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
        allowed = self.amount * (abs(before) if self.is_share else 1.0)
        return change > allowed and not isclose(change, allowed, abs_tol=ROUNDING * abs(before))


def allowance(text: str, direction: Direction, table: pd.DataFrame) -> Allowance:
    """An allowance as it is written: tflite_accuracy=0.005, speedup=10%.

    Raises:
        UserError: it is not of this form, names no column of numbers, or a setting.
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"--max-{direction} {text}: give a column and an amount, as in tflite_accuracy=0.005 or speedup=10%."
        )
    amount = float(found["amount"]) / (100 if found["percent"] else 1)
    column = of_numbers(table, found["column"], f"--max-{direction}")
    if column in SETTING or is_setting(column):
        raise UserError(f"--max-{direction} {text}: this is a setting, and the same in the runs that are compared.")
    return Allowance(column, direction, amount, bool(found["percent"]), text.strip())


def earlier(path: Path) -> pd.DataFrame:
    """A comparison that was written as CSV: words and settings are text, as they stand there.

    Raises:
        UserError: there is no such file, or it is no comparison.
    """
    try:
        names = pd.read_csv(path, nrows=0).columns
        texts = dict.fromkeys((name for name in names if name in WORDS or is_setting(name)), "string")
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"--against {path}: cannot be read ({first_line(error)}).") from error
    missing = [name for name in (*SETTING, "status") if name not in table.columns]
    if missing:
        raise UserError(f"--against {path}: this is no comparison, for it lacks {', '.join(missing)}.")
    for name in ("epochs", "finetune_epochs", "seed"):
        _check_numbers(table, name)
    return table


def _check_numbers(table: pd.DataFrame, column: str) -> None:
    wrong = table[column][pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()]
    if len(wrong):
        raise UserError(f"--against: {column}={wrong.iloc[0]} of the earlier comparison is no number.")


def regressions(before: pd.DataFrame, now: pd.DataFrame, allowances: Sequence[Allowance]) -> list[str]:
    """What has become worse by more than is allowed, in words; settings that only one of the two has are left out.

    Raises:
        UserError: runs cannot be paired, an earlier column is missing, or latencies come from different machines.
    """
    pairs = paired(before, now)
    found = []
    for each in allowances:
        if each.column not in before.columns:
            raise UserError(f"--max-{each.direction} {each.text}: the earlier comparison has no column {each.column}.")
        _check_numbers(before, each.column)
        if timed(each.column):
            _check_machines(pairs, each)
        found += [_worse(run, each) for _, run in pairs.iterrows() if _is_worse(run, each)]
    return found


def remarks(before: pd.DataFrame, now: pd.DataFrame, allowances: Sequence[Allowance]) -> list[str]:
    """What keeps a verdict from being sure, in words: runs without a partner, void timings, settings that have changed.

    Raises:
        UserError: runs cannot be paired.
    """
    pairs = paired(before, now)
    void = pairs[[any(_means_nothing(run, each, "before") for each in allowances) for _, run in pairs.iterrows()]]
    changed = pairs.iloc[:0]
    if "settings" in before.columns and "settings" in now.columns:
        changed = pairs[(pairs["settings_before"] != pairs["settings_now"]).fillna(value=False)]
    lines = {
        "the earlier timing is void, so times are not judged": void,
        "it was asked for with other settings than the earlier one; the config.yaml of both runs has them": changed,
    }
    every = len(_newest(before))
    alone = [f"{len(pairs)} of {every} earlier runs were compared; the others have none of their settings here."]
    return [
        *(alone if len(pairs) < every else []),
        *(f"{_label(run)}: {told}." for told, runs in lines.items() for _, run in runs.iterrows()),
    ]


def paired(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """The newest run of each setting beside the earlier one, their columns as `_before` and `_now`.

    Raises:
        UserError: there is none, or several fit.
    """
    return _pairs(_newest(before), _newest(now))


def _newest(table: pd.DataFrame) -> pd.DataFrame:
    """The newest run of each setting; one that did not finish counts only where its setting has no other."""
    settings = list(filter(is_setting, table.columns))
    table = table.assign(**{name: table[name].map(_comparable).astype("string") for name in settings})
    in_turn = table.sort_index().sort_values("status", key=lambda status: status == "FINISHED", kind="stable")
    return in_turn.drop_duplicates([*SETTING, *settings], keep="last").sort_index()


def _comparable(value: Any) -> str | None:
    """A setting as it is compared: the 2 of a table, and the `2` or `2.0` of a file, are the same."""
    try:
        return None if pd.isna(value) else str(float(value))
    except ValueError:
        return str(value)


def _pairs(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Each run beside the earlier one that has its settings."""
    earlier_settings, settings = (set(filter(is_setting, side.columns)) for side in (before, now))
    same = [*SETTING, *sorted(earlier_settings & settings)]
    pairs = before.merge(now, on=same, suffixes=("_before", "_now"))
    if pairs.empty:
        raise UserError("--against: no run of the earlier comparison has the settings of one of these.")
    if pairs.duplicated(same).any():
        alone = sorted(earlier_settings ^ settings)
        raise UserError(
            f"--against: {', '.join(alone)} varies in one of the two comparisons only, and several runs there have the "
            "settings of one run of the other. Choose the runs of one value with --where, here or where the earlier "
            f"CSV is written, as in --where '`{alone[0]}` == ...'."
        )
    return pairs


def _is_worse(run: pd.Series, allowed: Allowance) -> bool:
    """A value that was there and is not any more is worse than any; so is a timing that is void now."""
    before, now = run[f"{allowed.column}_before"], run[f"{allowed.column}_now"]
    if pd.isna(before) or _means_nothing(run, allowed, "before"):
        return False
    return bool(pd.isna(now)) or _means_nothing(run, allowed, "now") or allowed.exceeded(float(before), float(now))


def _worse(run: pd.Series, allowed: Allowance) -> str:
    before, now = run[f"{allowed.column}_before"], run[f"{allowed.column}_now"]
    said = "nothing" if pd.isna(now) else f"{float(now):,.6g}"
    limit = f"allowed is a {allowed.direction} of {allowed.text.partition('=')[2]}"
    if _means_nothing(run, allowed, "now"):
        said = "not known, for the timing is void"
    return f"{_label(run)}: {allowed.column} was {float(before):,.6g} and is {said}; {limit}"


def _means_nothing(run: pd.Series, allowed: Allowance, when: Literal["before", "now"]) -> bool:
    """Whether a value is a time of a void timing."""
    return timed(allowed.column) and says(run.get(f"speed_{when}"), VOID)


def _label(run: pd.Series) -> str:
    return f"{run['strategy']} epochs={run['epochs']} seed={run['seed']}"


def _check_machines(pairs: pd.DataFrame, allowed: Allowance) -> None:
    if "machine_before" not in pairs or not (pairs["machine_before"] == pairs["machine_now"]).fillna(value=False).all():
        raise UserError(
            f"--max-{allowed.direction} {allowed.text}: the two comparisons come from different machines, and their "
            "times say nothing of one another. Run both sweeps on one machine."
        )
