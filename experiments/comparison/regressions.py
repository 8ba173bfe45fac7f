"""Regressions: compare a sweep with an earlier one, run by run, with limits on how much columns may drop or grow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from experiments.comparison.columns import (
    CELL,
    NAMED,
    NOUNS,
    SUBJECTS,
    VOID,
    WORDS,
    has_verdict,
    is_content,
    timed,
    with_identity,
    without_digests,
)
from experiments.comparison.files import with_texts
from experiments.comparison.gates import of_numbers
from experiments.comparison.metric import common_metric
from experiments.comparison.names import several_subjects
from experiments.record.run_record import is_setting
from experiments.system.errors import UserError, first_line
from experiments.system.escaping import from_spreadsheet_text

SETTING = ("strategy", *SUBJECTS, "epochs", "finetune_epochs", "seed")
BY_CONTENT = (*CELL, "seed")
SCORES = ("keras_score", "tflite_score")
FORM = re.compile(r"\s*(?P<column>[\w.]+)\s*=\s*(?P<amount>\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?)\s*(?P<percent>%?)\s*")
Direction = Literal["drop", "growth"]
ROUNDING = 1e-12  # relative tolerance: in floating point, 0.99 - 0.985 exceeds 0.005


@dataclass(frozen=True)
class Allowance:
    """How much a column may drop or grow: an amount in its unit, or a share of the earlier value."""

    column: str
    direction: Direction
    amount: float
    is_share: bool
    text: str

    def exceeded(self, before: float, now: float) -> bool:
        """Whether the change in the bad direction exceeds the limit."""
        change = before - now if self.direction == "drop" else now - before
        allowed = self.amount * (abs(before) if self.is_share else 1.0)
        return change > allowed and not isclose(change, allowed, abs_tol=ROUNDING * abs(before))


def allowance(text: str, direction: Direction, table: pd.DataFrame) -> Allowance:
    """Parse an allowance: tflite_accuracy=0.005, speedup=10%.

    Raises:
        UserError: it does not have this form, names a setting or no numeric column, or limits a better score.
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"--max-{direction} {text}: requires a column and an amount, as in tflite_accuracy=0.005 or speedup=10%."
        )
    amount = float(found["amount"]) / (100 if found["percent"] else 1)
    column = of_numbers(table, found["column"], f"--max-{direction}")
    if column in SETTING or is_setting(column):
        raise UserError(
            f"--max-{direction} {text}: requires a result; {column} is a setting, which is equal in compared runs."
        )
    metric = common_metric(table)
    worse: Direction = "drop" if metric is None or metric.better == "higher" else "growth"
    if column in SCORES and metric and direction != worse:
        raise UserError(
            f"--max-{direction} {text}: the score of these runs is {metric.title}, and {metric.better} values are "
            f"better. Type --max-{worse} {text.strip()}."
        )
    return Allowance(column, direction, amount, bool(found["percent"]), text.strip())


def read_earlier(path: Path) -> pd.DataFrame:
    """Read a comparison from CSV; texts and settings are read as text.

    Raises:
        UserError: the file cannot be read, or is not a comparison.
    """
    try:
        names = pd.read_csv(path, nrows=0).columns
        texts = dict.fromkeys((name for name in names if name in WORDS or is_setting(name)), "string")
        table = with_texts(pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""]), from_spreadsheet_text)
    except (OSError, ValueError) as error:
        raise UserError(f"--against {path}: cannot be read ({first_line(error)}).") from error
    missing = [name for name in (*SETTING, "status") if name not in table.columns]
    if missing:
        raise UserError(
            f"--against {path}: requires the CSV of a comparison; the columns {', '.join(missing)} are missing."
        )
    for name in ("epochs", "finetune_epochs", "seed"):
        _check_numbers(table, name)
    return with_identity(table)


def _check_numbers(table: pd.DataFrame, column: str) -> None:
    wrong = table[column][pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()]
    if len(wrong):
        raise UserError(f"--against: {column}={wrong.iloc[0]} in the earlier comparison is not a number.")


def regressions(
    before: pd.DataFrame, now: pd.DataFrame, allowances: Sequence[Allowance], by_name: bool = False
) -> list[str]:
    """Describe what became worse by more than allowed; settings that only one side has are ignored.

    Raises:
        UserError: runs cannot be paired, an earlier column is missing, or latencies come from different machines.
    """
    pairs = match_runs(before, now, by_name)
    found = []
    for each in allowances:
        if each.column not in before.columns:
            raise UserError(f"--max-{each.direction} {each.text}: the earlier comparison has no column {each.column}.")
        _check_numbers(before, each.column)
        if timed(each.column):
            _check_machines(pairs, each)
        if each.column in SCORES:
            _check_metrics(pairs, each)
        labels = _labels(pairs)
        worse = [(place, run) for place, run in pairs.iterrows() if _is_worse(run, each)]
        found += [f"{labels[place]}: {_describe_change(run, each)}" for place, run in worse]
    return found


def remarks(
    before: pd.DataFrame, now: pd.DataFrame, allowances: Sequence[Allowance], by_name: bool = False
) -> list[str]:
    """Return remarks on the limits of the verdict.

    These are runs without a match, invalid timings, changed settings, and files with changed content.

    Raises:
        UserError: runs cannot be paired.
    """
    pairs = match_runs(before, now, by_name)
    void = pairs[[any(_is_invalid(run, each, "before") for each in allowances) for _, run in pairs.iterrows()]]
    names_only = _names_only(before, now)
    changed = pairs.iloc[:0]
    if "settings" in before.columns and "settings" in now.columns and not (names_only or by_name):
        changed = pairs[(pairs["settings_before"] != pairs["settings_now"]).fillna(value=False)]
    lines = {
        "the earlier timing is invalid, so latencies are not compared": void,
        "the settings differ, or this version of the suite has other settings; see config.yaml of both runs": changed,
    }
    every, labels = len(_newest(before)), _labels(pairs)
    uncompared = [f"{len(pairs)} of {every} earlier runs were compared; no run here has the settings of the rest."]
    return [
        *(["One of the two comparisons has no digests of models and data: runs are matched by names."] * names_only),
        *(uncompared if len(pairs) < every else []),
        *([] if names_only else [f"{line}." for line in _replaced(before, now)]),
        *(f"{_listed(runs, labels)}: {remark}." for remark, runs in lines.items() if len(runs)),
    ]


def _listed(runs: pd.DataFrame, labels: Mapping[Any, str]) -> str:
    """List the labels of runs; "All N runs" if there are no others."""
    return f"All {len(runs)} runs" if 1 < len(runs) == len(labels) else ", ".join(labels[place] for place in runs.index)


def match_runs(before: pd.DataFrame, now: pd.DataFrame, by_name: bool = False) -> pd.DataFrame:
    """Match the newest run of each setting with the earlier one; their columns have the suffixes `_before` and `_now`.

    Model and data are matched by content, or by name if `by_name`, or if one side has no digests. A run that failed
    before its digests were computed is matched by name.

    Raises:
        UserError: there is no match, or an ambiguous one.
    """
    earlier_runs, runs = _newest(before), _newest(now)
    if by_name or _names_only(before, now):
        pairs = _pairs(earlier_runs, runs, SETTING, by_content=False)
    else:
        pairs = _pairs(earlier_runs, runs, BY_CONTENT, by_content=True)
        unknown = runs[(runs[NAMED] != "") & ~runs["run_id"].isin(pairs["run_id_now"])]
        left = earlier_runs[~earlier_runs["run_id"].isin(pairs["run_id_before"])]
        if len(unknown) and len(left):
            pairs = pd.concat([pairs, _pairs(left, unknown, SETTING, by_content=False)], ignore_index=True)
    if pairs.empty:
        replaced = [] if by_name else _replaced(before, now)
        named = before.merge(now, on=list(SETTING)) if replaced else before.iloc[:0]
        hint = "; --by-name compares them anyway" if len(named) else ""
        raise UserError(
            "--against: no earlier run has the settings, model and data of a run here"
            f"{': ' if replaced else ''}{'; '.join(replaced)}{hint}."
        )
    return pairs


def _names_only(before: pd.DataFrame, now: pd.DataFrame) -> bool:
    """Whether one side was recorded by a version without digests."""
    finished = [int((table["status"] == "FINISHED").sum()) for table in (before, now)]
    return any(without_digests(table) == count for table, count in zip((before, now), finished, strict=True) if count)


def _replaced(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Describe models and data sets whose content differs from the earlier ones of the same name."""
    lines = []
    for kind, digest in (("model", "model_digest"), ("dataset", "training_digest"), ("dataset", "test_digest")):
        earlier, current = ({str(name): set(rows[digest].dropna()) for name, rows in table.groupby(f"{kind}_name")}
                       for table in (before, now))  # fmt: skip
        for name, digests in earlier.items():
            if not digests or not current.get(name) or digests & current[name]:
                continue
            then, today = (", ".join(sorted(each)) for each in (digests, current[name]))
            lines.append(f"the {NOUNS[kind][:-1]} {name} has changed ({digest} {then} then, {today} now)")
    return lines


def _newest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the newest run of each setting; unfinished runs count only if there is no other."""
    settings = list(filter(is_setting, table.columns))
    table = table.assign(**{name: table[name].map(_comparable).astype("string") for name in settings})
    in_turn = table.sort_index().sort_values("status", key=lambda status: status == "FINISHED", kind="stable")
    alike = [*BY_CONTENT, *(name for name in settings if not is_content(name))]
    return in_turn.drop_duplicates(alike, keep="last").sort_index()


def _comparable(value: Any) -> str | None:
    """Normalize a setting for comparison: 2 in a table equals `2` or `2.0` in a file."""
    try:
        return None if pd.isna(value) else str(float(value))
    except ValueError:
        return str(value)


def _pairs(before: pd.DataFrame, now: pd.DataFrame, setting: Sequence[str], by_content: bool) -> pd.DataFrame:
    """Match each run with the earlier one that has the same settings."""
    earlier_settings, settings = (
        {name for name in side.columns if is_setting(name) and not (by_content and is_content(name))}
        for side in (before, now)
    )
    same = [*setting, *sorted(earlier_settings & settings)]
    pairs = before.merge(now, on=same, suffixes=("_before", "_now"))
    if pairs.duplicated(same).any():
        alone = sorted(earlier_settings ^ settings)
        if not alone:
            raise UserError(
                "--against: one of the two comparisons has several models or data sets with the same name. Select the "
                "runs of one with --where \"test_digest == '...'\" or \"model_digest == '...'\"."
            )
        raise UserError(
            f"--against: {', '.join(alone)} varies in only one of the two comparisons, so the match is ambiguous. "
            "Select the runs of one value with --where, here or when writing the earlier CSV, as in"
            f" --where '`{alone[0]}` == ...'."
        )
    return pairs


def _is_worse(run: pd.Series, allowed: Allowance) -> bool:
    """Whether a value became worse by more than allowed; a missing or invalid value always counts as worse."""
    before, now = run[f"{allowed.column}_before"], run[f"{allowed.column}_now"]
    if pd.isna(before) or _is_invalid(run, allowed, "before"):
        return False
    return bool(pd.isna(now)) or _is_invalid(run, allowed, "now") or allowed.exceeded(float(before), float(now))


def _describe_change(run: pd.Series, allowed: Allowance) -> str:
    before, now = run[f"{allowed.column}_before"], run[f"{allowed.column}_now"]
    current = "missing" if pd.isna(now) else f"{float(now):,.6g}"
    limit = f"the allowed {allowed.direction} is {allowed.text.partition('=')[2]}"
    if _is_invalid(run, allowed, "now"):
        current = "unknown, since the timing is invalid"
    return f"{allowed.column} was {float(before):,.6g} and is {current}; {limit}"


def _is_invalid(run: pd.Series, allowed: Allowance, when: Literal["before", "now"]) -> bool:
    """Whether a value is from an invalid timing."""
    return timed(allowed.column) and has_verdict(run.get(f"speed_{when}"), VOID)


def _now(pairs: pd.DataFrame, name: str) -> pd.Series:
    """Return a column of the newer runs; columns that were used for matching have no suffix."""
    first, *other = (pairs[each] for each in (name, f"{name}_now") if each in pairs)
    return first.where(first.notna(), other[0]) if other else first


def _labels(pairs: pd.DataFrame) -> dict[Any, str]:
    """Return a label for each pair, with model and data set if there are several."""
    names = dict.fromkeys(name.removesuffix("_now") for name in pairs.columns if not name.endswith("_before"))
    now = pd.DataFrame({name: _now(pairs, name) for name in names})
    rows = zip(pairs.index, now.to_dict("records"), several_subjects(now), strict=True)
    return {
        place: " ".join([run["strategy"], *subjects, f"epochs={run['epochs']}", f"seed={run['seed']}"])
        for place, run, subjects in rows
    }


def _check_metrics(pairs: pd.DataFrame, allowed: Allowance) -> None:
    metrics = pairs.reindex(columns=["metric_before", "metric_now"]).dropna()
    differing = metrics[metrics["metric_before"] != metrics["metric_now"]]
    if len(differing):
        before, now = differing.iloc[0]
        raise UserError(
            f"--max-{allowed.direction} {allowed.text}: requires the same metric in both sweeps; it was {before} and "
            f"is {now}. Type task.metric={before} in the new sweep."
        )


def _check_machines(pairs: pd.DataFrame, allowed: Allowance) -> None:
    if "machine_before" not in pairs or not (pairs["machine_before"] == pairs["machine_now"]).fillna(value=False).all():
        raise UserError(
            f"--max-{allowed.direction} {allowed.text}: requires both sweeps on the same machine, since latencies "
            "of different machines are not comparable."
        )
