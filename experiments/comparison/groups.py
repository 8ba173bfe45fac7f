"""Pool runs into groups, by default over seeds, with intervals that generalize to new seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.comparison.columns import GROUPED, VOID, WHOLE, cell_of, has_verdict, label, timed
from experiments.measure.latency import SAME_FILE, verdict_of
from experiments.record.artifacts import EVIDENCE
from experiments.record.evidence import Evidence, Predictions, change_of, difference_of, same_examples, score_of
from experiments.record.run_record import is_setting
from experiments.statistics.estimates import Estimate, ratio_of_medians
from experiments.tracking.schema import names

ReadEvidence = Callable[[str], Evidence | None]  # by the id of a run; None if it is missing
SPEEDUPS = names(kinds=("speedup",), interval=True)


def seeds_to_pool(table: pd.DataFrame) -> list[str]:
    """Return the columns that identify runs except for the seed; none if no runs differ only in their seeds."""
    finished = table[table["status"] == "FINISHED"]
    cells = cell_of(table)
    return cells if (finished.groupby(cells, dropna=False)["seed"].nunique() > 1).any() else []


@dataclass(frozen=True)
class Groups:
    """A row for each group of runs, and a line for each run that is omitted from its group, with the reason."""

    table: pd.DataFrame
    left_out: tuple[str, ...]


def group_runs(table: pd.DataFrame, by: Sequence[str], read_evidence: ReadEvidence) -> Groups:
    """Return one row for each group of runs with equal values in these columns, with the columns of runs and GROUPED.

    Numbers are means, speedups geometric means; settings that differ are empty. Runs that differ only in their seeds
    have intervals for new seeds and new test examples; other groups have none. `run_id` is that of the lowest seed.
    Latencies of several machines, and invalid timings, are not pooled. Failed runs count only if a group has no other.
    """
    numbers = [name for name in table.select_dtypes("number").columns if name not in (*cell_of(table), "seed")]
    floats = table[numbers].astype(float)
    groups = list(_groups(table, by, read_evidence))
    rows = [_pooled(group, floats.loc[group.counted.index], read_evidence) for group in groups]
    pooled = pd.DataFrame(rows).reindex(columns=[*table.columns, *GROUPED])
    counts = {name: pooled[name].astype("Float64") for name in (*WHOLE, *GROUPED)}
    whole = [name for name, values in counts.items() if not (values % 1 > 0).any()]
    left_out = tuple(line for group in groups for line in _left_out(group, read_evidence))
    settings = {name: table[name].dtype for name in filter(is_setting, table.columns)}
    kinds: dict[str, Any] = {**dict.fromkeys(counts, "float64"), **dict.fromkeys(whole, "Int64"), **settings}
    return Groups(pooled.assign(**counts).astype(kinds), left_out)


def _left_out(group: "_Group", read_evidence: ReadEvidence) -> list[str]:
    uncounted = group.runs.drop(index=group.counted.index)
    void = group.counted[group.counted["speed"] == VOID] if len(group.counted) > 1 else uncounted.iloc[:0]
    return [
        *(
            f"{label(run)}: omitted from its group, since {_reason(run, read_evidence)}"
            for _, run in uncounted.iterrows()
        ),
        *(f"{label(run)}: its invalid timing is omitted from its group" for _, run in void.iterrows()),
    ]


def _reason(run: pd.Series, read_evidence: ReadEvidence) -> str:
    if run["status"] != "FINISHED":
        return f"it is {run['status']}"
    if read_evidence(run["run_id"]) is None:
        return f"it has neither {' nor '.join(EVIDENCE)}"
    return "its test examples differ from those of the others, or a newer run has the same settings"


@dataclass(frozen=True)
class _Group:
    """Runs with equal values in the columns of a group, those that are pooled, and whether only their seeds differ."""

    runs: pd.DataFrame
    counted: pd.DataFrame
    seeds_only: bool
    alike: Sequence[str]  # the columns in which all pooled runs are equal


def _groups(table: pd.DataFrame, by: Sequence[str], read_evidence: ReadEvidence) -> Iterator[_Group]:
    """Yield the groups of a table; computed for all at once where possible, since there may be thousands."""
    groups = table.groupby(list(by), dropna=False, sort=False)
    cells = table.groupby(cell_of(table), dropna=False, sort=False).ngroup()
    keys = pd.DataFrame({"group": groups.ngroup(), "cell": cells, "seed": table["seed"]})
    finished = keys[table["status"] == "FINISHED"]
    newest = finished[~finished.duplicated(keep="last")]  # of runs with equal settings and seed
    kinds = newest.groupby("group")["cell"].nunique()
    codes = table.apply(lambda column: pd.factorize(column, use_na_sentinel=False)[0])
    for number, (_, runs) in enumerate(groups):
        candidates = runs[runs.index.isin(newest.index)]
        seeds_only = kinds.get(number) == 1
        counted = _counted(candidates, seeds_only, read_evidence) if len(candidates) else runs.tail(1)
        codes_here = codes.loc[counted.index].to_numpy()
        alike = list(table.columns[(codes_here == codes_here[0]).all(axis=0)])
        yield _Group(runs, counted, seeds_only, alike)


def _counted(finished: pd.DataFrame, seeds_only: bool, read_evidence: ReadEvidence) -> pd.DataFrame:
    """Return the runs of a group that were tested on the same images."""
    if len(finished) < 2 or not seeds_only:
        return finished
    evidence = {run_id: found for run_id in finished["run_id"] if (found := read_evidence(run_id)) is not None}
    if not evidence:
        return finished
    first = next(iter(evidence.values()))
    alike = [run_id for run_id, each in evidence.items() if same_examples(each, first)]
    return finished[finished["run_id"].isin(alike)]


def _pooled(group: _Group, floats: pd.DataFrame, read_evidence: ReadEvidence) -> dict[str, Any]:
    """Return the row of a group; `floats` has the numbers of its runs."""
    runs = group.counted
    counts = {"runs": len(runs), "seeds": runs["seed"].nunique()}
    if len(runs) == 1:
        return {**dict(zip(runs.columns, runs.iloc[0], strict=True)), **counts}
    return {
        **{name: runs[name].iloc[0] for name in group.alike},
        **_means(runs, floats),
        **_words(runs),
        **dict.fromkeys((name for name in runs.columns if _of_one_run(name)), np.nan),
        **_speedups(runs, group.seeds_only),
        **(_over_seeds(runs, read_evidence) if group.seeds_only else {}),
        "run_id": runs[["seed", "run_id"]].sort_values("seed", kind="stable")["run_id"].iloc[0],
        **counts,
    }


def _of_one_run(name: str) -> bool:
    """Whether a column is an interval end or p-value of a single run, which does not apply to a mean."""
    return name.endswith(("_low", "_high", "_p")) and not is_setting(name)


def _means(runs: pd.DataFrame, floats: pd.DataFrame) -> dict[str, Any]:
    """Return the mean of every numeric column; for latencies, over valid timings."""
    means, valid = (rows.mean().to_dict() for rows in (floats, floats.loc[_timed(runs).index]))
    return {str(name): (valid if timed(str(name)) else means)[name] for name in floats.columns}


def _timed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs whose latencies can be pooled."""
    return runs[runs["speed"] != VOID] if runs["machine"].nunique() <= 1 else runs.iloc[:0]


def _words(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the texts of a group; a problem of one run is a problem of the group."""
    differing_texts = {"strategy": "several", "arithmetic": "differs", "runs_on_micro": "differs"}
    differing = {name: word for name, word in differing_texts.items() if runs[name].nunique() > 1}
    faults = {"verified": "false", "partial": "true"}
    faulty = {name: word for name, word in faults.items() if any(has_verdict(verdict, word) for verdict in runs[name])}
    texts = {
        name: "; ".join(runs[name].dropna().unique())
        for name in ("broken_promise", "left_float", "latency_void", "xnnpack_refusal")
        if name in runs
    }
    lines = [line for text in runs["warnings"].dropna() for line in text.splitlines()] if "warnings" in runs else []
    return {**differing, **faulty, **texts, "warnings": "\n".join(dict.fromkeys(lines))}


def _speedups(runs: pd.DataFrame, seeds_only: bool) -> dict[str, Any]:
    """Return geometric means; over seeds with t-intervals and the verdict on the speedup."""
    valid = _timed(runs)
    if valid.empty:
        return {"speed": VOID} if (runs["speed"] == VOID).all() else {}
    found: dict[str, Any] = {}
    for name in (name for name in SPEEDUPS if name in valid.columns):
        ratios = valid[name].dropna().to_numpy(float)
        if len(ratios) > 1:
            mean = ratio_of_medians(ratios, np.ones(len(ratios)))
            found |= mean.columns(name) if seeds_only else {name: mean.value}
    if len(valid) == 1:  # the interval of the only valid timing
        own = [f"{name}{end}" for name in SPEEDUPS for end in ("", "_low", "_high") if f"{name}{end}" in valid.columns]
        return {name: valid[name].iloc[0] for name in (*own, "speed")}
    if (valid["speed"] == SAME_FILE).all():
        found["speed"] = SAME_FILE
    elif seeds_only and "speedup" in found:
        found["speed"] = verdict_of(Estimate(*(found[f"speedup{end}"] for end in ("", "_low", "_high"))))
    return found


def _over_seeds(runs: pd.DataFrame, read_evidence: ReadEvidence) -> dict[str, Any]:
    """Return accuracy and its differences over seeds, from the predictions for each image."""
    evidence = [result for run_id in runs["run_id"] if (result := read_evidence(run_id)) is not None]
    if len(evidence) < len(runs):
        return {}
    score, change = score_of(evidence), change_of(evidence)
    accurate = isinstance(evidence[0], Predictions)
    found = {
        "images": evidence[0].examples,
        **score.columns("tflite_score"),
        **change.columns("score_change"),
        **({**score.columns("tflite_accuracy"), **change.columns("accuracy_change")} if accurate else {}),
    }
    if "against_run_id" not in runs.columns or runs["against_run_id"].isna().any():
        return found
    others = [read_evidence(run_id) for run_id in runs["against_run_id"]]
    before = [each for each in others if each is not None and same_examples(each, evidence[0])]
    if len(before) < len(runs):
        return found
    difference = difference_of(evidence, before)[0]
    found |= difference.columns("score_difference")
    return found | (difference.columns("accuracy_difference") if accurate else {})
