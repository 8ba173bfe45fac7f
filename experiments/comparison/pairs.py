"""Compare any two runs on the same test examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from experiments.comparison.columns import label
from experiments.comparison.display import percents
from experiments.comparison.terminal import terminal_table
from experiments.measure.latency import SAME_FILE
from experiments.record.artifacts import EVIDENCE
from experiments.record.evidence import Evidence, Predictions, difference_of, same_examples
from experiments.record.identity import with_digest
from experiments.record.metric import RecordedMetric, metric_of_row
from experiments.statistics.estimates import SIGNIFICANT, discordant, holm, mcnemar, paired_bootstrap, paired_difference
from experiments.system.errors import UserError
from experiments.system.progress import CONSOLE, print_whole
from experiments.tracking import Row, Store

PAIRS_NOTE = (
    "gained and lost: examples that only the run's TFLite file classifies correctly, and that only the other's does. "
    "[low, high]: 95 % intervals over the test examples, by Bonett and Price's formula and by a bootstrap. "
    "McNemar p: of the exact test that both have the same error rate. Holm p: corrected for the number of comparisons; "
    "below 0.05, the verdict is that one file is more accurate."
)
SCORES_NOTE = (
    "Δ: the metric of the run's TFLite file minus that of the other's. [low, high] and p: 95 % interval and p-value of "
    "a paired bootstrap over the test examples. Holm p: corrected for the number of comparisons; below 0.05, the "
    "verdict is that one file is better."
)

ACCURATE = RecordedMetric()


@dataclass(frozen=True)
class Examined:
    """A run to compare, with its evidence."""

    label: str
    dataset: str
    evidence: Evidence
    test_digest: str | None = None  # of the images; None for runs of earlier versions
    file: str | None = None  # digest of the TFLite file
    metric: RecordedMetric = ACCURATE


def _examined(store: Store, row: Row) -> Examined:
    evidence = store.read_evidence(row["run_id"])
    if evidence is None:
        raise UserError(
            f"--pair {row['run_id']}: requires a run with {' or '.join(EVIDENCE)}; this one has neither (status "
            f"{row['status']})."
        )
    return Examined(label(row), row["dataset"], evidence, row["test_digest"], row["tflite_sha256"], metric_of_row(row))


def table_of_pairs(runs: Sequence[Examined]) -> pd.DataFrame:
    """Compare every pair of runs on the same examples, one per row: the second against the first.

    Raises:
        UserError: two runs were tested on different examples, or are judged by different metrics.
    """
    for run in runs[1:]:
        _check_alike(runs[0], run)
    table = pd.DataFrame([_compared(run, against) for against, run in combinations(runs, 2)])
    adjusted = holm(table["mcnemar_p" if "mcnemar_p" in table else "p"].to_numpy())
    verdicts = [
        SAME_FILE if same else _verdict(difference, p, runs[0].metric)
        for same, difference, p in zip(table["same_file"], table["difference"], adjusted, strict=True)
    ]
    return table.assign(holm_p=adjusted, verdict=verdicts)


def _verdict(difference: float, p: float, metric: RecordedMetric) -> str:
    if p >= SIGNIFICANT:
        return "no significant difference"
    good, bad = ("more accurate", "less accurate") if metric.is_accuracy else ("better", "worse")
    return good if (difference > 0) == (metric.better == "higher") else bad


def _check_alike(first: Examined, other: Examined) -> None:
    if first.metric != other.metric:
        raise UserError(
            f"--pair: {first.label} is judged by {first.metric.title}, and {other.label} by {other.metric.title}. "
            "A comparison requires the same task and metric."
        )
    digests = (first.test_digest, other.test_digest)
    alike = digests[0] == digests[1] if all(digests) else first.dataset == other.dataset
    if alike and same_examples(first.evidence, other.evidence):
        return
    raise UserError(
        f"--pair: {first.label} and {other.label} were tested on different examples ({_images(first)}; "
        f"{_images(other)}). A paired comparison requires the same dataset and dataset.test_samples."
    )


def _images(run: Examined) -> str:
    return f"{run.evidence.examples:,} of {with_digest(run.dataset, run.test_digest or '')}"


def _compared(run: Examined, against: Examined) -> dict[str, object]:
    one, other = run.evidence, against.evidence
    found: dict[str, object] = {
        "run": run.label, "against": against.label, "images": one.examples,
        "same_file": run.file is not None and run.file == against.file,
    }  # fmt: skip
    if not isinstance(one, Predictions) or not isinstance(other, Predictions):
        difference, p = difference_of([one], [other])
        return {**found, "difference": difference.value, "low": difference.low, "high": difference.high, "p": p}
    after, before = (each.tflite == each.truth for each in (one, other))
    gained, lost = discordant(after, before)
    formula, bootstrap = paired_difference(after, before), paired_bootstrap(after, before)
    return {
        **found, "gained": gained, "lost": lost,
        "difference": formula.value, "low": formula.low, "high": formula.high,
        "bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high, "mcnemar_p": mcnemar(after, before),
    }  # fmt: skip


def display_pairs(table: pd.DataFrame, metric: RecordedMetric = ACCURATE) -> pd.DataFrame:
    """Format differences with intervals and p-values, corrected if there are several."""
    narrow = {column: table[column].str.replace(" (", "\n(", regex=False) for column in ("run", "against")}
    accurate = metric.is_accuracy
    shown = table[["run", "against", "images", *(("gained", "lost") if accurate else ())]].assign(**narrow)
    shown = shown.rename(columns={"images": "examples"})
    differences = zip(*(table[name] for name in ("difference", "low", "high")), strict=True)
    shown[f"Δ {metric.title}{metric.unit_of_change}"] = [metric.shown_change(*each) for each in differences]
    if accurate:
        shown["bootstrap (pp)"] = percents(table, "difference", "bootstrap_low", "bootstrap_high", sign="+")
    shown["McNemar p" if accurate else "p"] = [f"{p:.2g}" for p in table["mcnemar_p" if accurate else "p"]]
    if len(table) > 1:
        shown["Holm p"] = [f"{p:.2g}" for p in table["holm_p"]]
    shown["verdict"] = table["verdict"]
    return shown


def show_pairs(store: Store, rows: Sequence[Row]) -> pd.DataFrame:
    """Print the comparison of every pair of these runs on the same examples, and return it."""
    runs = [_examined(store, row) for row in rows]
    pairs, metric = table_of_pairs(runs), runs[0].metric
    print_whole(terminal_table(display_pairs(pairs, metric), {}))
    note = PAIRS_NOTE if metric.is_accuracy else SCORES_NOTE
    CONSOLE.print(note, style="dim", markup=False, highlight=False)
    return pairs
