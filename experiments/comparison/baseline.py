"""Compare runs with the run of one strategy, such as the control `finetune`, with the same model, data and seed."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.comparison.columns import (
    AGAINST,
    FINETUNE,
    KEYS,
    STRATEGY,
    VOID,
    cell_of,
    ends,
    epochs_in_all,
    in_rounds,
    is_content,
    key_of,
    same_file,
)
from experiments.comparison.groups import ReadEvidence
from experiments.measure.rounds import ReadRounds, no_rounds, ratio_together
from experiments.record.evidence import difference_of, same_examples
from experiments.record.run_record import is_setting
from experiments.statistics.estimates import Estimate, ratio_of_speedups
from experiments.system.errors import UserError, suggestion

SAME = (*KEYS, "epochs", "seed")
# Settings of strategies, which may differ between the two runs.
OWN = (STRATEGY, FINETUNE)


def with_baseline(
    table: pd.DataFrame, strategy: str, read_evidence: ReadEvidence, timings: ReadRounds = no_rounds
) -> pd.DataFrame:
    """Add the columns AGAINST: each run against the newest finished run of this strategy with the same settings.

    If both strategies train, a run is compared with the one that has the same total number of epochs or, if there is
    none, the same finetune_epochs. If one of them does not train, there must be only one candidate. Among several, the
    one with the same finetune.* is used. Without a match, all cells but the strategy's name are empty.

    Raises:
        UserError: no finished run has this strategy.
    """
    others = table[(table["strategy"] == strategy) & (table["status"] == "FINISHED")]
    if others.empty:
        raise UserError(
            f"--baseline {strategy}: no finished run has this strategy. {suggestion(strategy, _strategies(table))}"
        )
    trains = bool((table.loc[table["strategy"] == strategy, "finetune_epochs"] > 0).any())
    settings = [name for name in table.columns if is_setting(name) and not is_content(name)]
    same = [*SAME, *(name for name in settings if not name.startswith(OWN))]
    newest = others.drop_duplicates([*cell_of(others), "seed"], keep="last")
    candidates = {key_of(key): group for key, group in newest.groupby(same, dropna=False)}
    rows = [
        _compare(run, _select_match(run, candidates.get(key_of(run[same])), trains), read_evidence, timings)
        for _, run in table.iterrows()
    ]
    compared = pd.DataFrame(rows, index=table.index).reindex(columns=list(AGAINST))
    return table.assign(**compared.assign(against=strategy))


def trained_less(table: pd.DataFrame, every: pd.DataFrame, strategy: str) -> list[str]:
    """Return a line about rows that are compared with a run of fewer total epochs, or no line.

    `every` has all runs, including those to compare with.
    """
    others = every.drop_duplicates("run_id").set_index("run_id").reindex(table["against_run_id"])
    missing = epochs_in_all(table) - epochs_in_all(others).to_numpy()
    longer = (missing > 0).fillna(False) & (others["finetune_epochs"] > 0).fillna(False).to_numpy(bool)
    if not longer.any():
        return []
    epochs = (others["finetune_epochs"].to_numpy() + missing)[longer].drop_duplicates().sort_values()
    needed = ",".join(f"{number:.0f}" for number in epochs)
    return [
        f"{_listed(table.loc[longer, 'strategy'])} trained for more epochs in total than the {strategy} run that "
        f"they are compared with: add strategy={strategy} finetune.epochs={needed}."
    ]


def unmatched(table: pd.DataFrame, strategy: str) -> list[str]:
    """Return a line with the number of runs without a match, or no line."""
    missing = int((table["against_run_id"].isna() & (table["status"] == "FINISHED")).sum())
    line = (
        f"{missing} of {len(table)} runs are not compared: no {strategy} run, or more than one, has the same model, "
        "data and settings."
    )
    return [line] if missing else []


def _listed(strategies: pd.Series) -> str:
    *names, last = strategies.unique()
    return f"{', '.join(names)} and {last}" if names else str(last)


def _strategies(table: pd.DataFrame) -> list[str]:
    return sorted(map(str, table.loc[table["status"] == "FINISHED", "strategy"].unique()))


def _select_match(run: pd.Series, others: pd.DataFrame | None, trains: bool) -> pd.Series | None:
    """Select the run to compare with among candidates; `trains`: whether their strategy trains."""
    if others is None:
        return None
    if len(others) > 1 or (trains and run["finetune_epochs"] > 0):
        as_long = others[epochs_in_all(others) == run["epochs_trained"] + run["epochs_reused"]]
        others = others[others["finetune_epochs"] == run["finetune_epochs"]] if as_long.empty else as_long
    if len(others) > 1:
        further = [name for name in others.columns if name.startswith(FINETUNE) and not name.endswith(".epochs")]
        others = others[[key_of(other[further]) == key_of(run[further]) for _, other in others.iterrows()]]
    return others.iloc[0] if len(others) == 1 else None


def _compare(
    run: pd.Series, other: pd.Series | None, read_evidence: ReadEvidence, timings: ReadRounds
) -> Mapping[str, Any]:
    """Return the columns AGAINST of a run; empty if there is nothing to compare it with."""
    if other is None or run["status"] != "FINISHED":
        return {}
    if same_file(run, other):
        differences = _of_one_file(_accurate(run))
    else:
        differences = {**_scores(run, other, read_evidence), **_speedups(run, other, timings)}
    return {
        "against_run_id": other["run_id"],
        "size_against": other["tflite_bytes"] / run["tflite_bytes"],
        **differences,
    }


def _of_one_file(accurate: bool) -> Mapping[str, float]:
    """Return no difference, for identical files, whatever their timings."""
    none = Estimate(0.0, 0.0, 0.0)
    return {**_differences(none, 1.0, accurate=accurate), **Estimate(1.0, 1.0, 1.0).columns("speedup_against")}


def _accurate(run: pd.Series) -> bool:
    """Whether the run is judged by its accuracy."""
    return bool(run["metric"] == "accuracy")


def _differences(difference: Estimate, p: float, accurate: bool) -> Mapping[str, float]:
    names = ("score_difference", *(("accuracy_difference",) if accurate else ()))
    return {key: value for name in names for key, value in {**difference.columns(name), f"{name}_p": p}.items()}


def _scores(run: pd.Series, other: pd.Series, read_evidence: ReadEvidence) -> Mapping[str, Any]:
    """Compare example by example; without an interval if evidence is missing or is for other examples."""
    after, before = read_evidence(run["run_id"]), read_evidence(other["run_id"])
    if after is None or before is None or not same_examples(after, before):
        difference = run["tflite_score"] - other["tflite_score"]
        return {"score_difference": difference, **({"accuracy_difference": difference} if _accurate(run) else {})}
    return _differences(*difference_of([after], [before]), accurate=_accurate(run))


def _speedups(run: pd.Series, other: pd.Series, timings: ReadRounds) -> Mapping[str, float]:
    """Return the ratio of latencies in the rounds that both share, or else of speedups.

    It is empty if a timing is invalid or the machines differ.
    """
    if VOID in (run["speed"], other["speed"]) or key_of([run["machine"]]) != key_of([other["machine"]]):
        return {}
    together = ratio_together(*(timings(each["run_id"]) if in_rounds(each) else None for each in (run, other)))
    of_speedups = ratio_of_speedups(*(Estimate(*ends(each, "speedup")) for each in (run, other)))
    return (together or of_speedups).columns("speedup_against")
