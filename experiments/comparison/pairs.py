"""Compare any two runs, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from experiments.comparison.columns import label
from experiments.comparison.display import percents
from experiments.comparison.terminal import picture
from experiments.measure.latency import SAME_FILE
from experiments.record.artifacts import PREDICTIONS
from experiments.record.evidence import Predictions
from experiments.record.identity import with_digest
from experiments.statistics.estimates import SIGNIFICANT, discordant, holm, mcnemar, paired_bootstrap, paired_difference
from experiments.system.errors import UserError
from experiments.system.progress import CONSOLE, print_whole
from experiments.tracking import Row, Store

PAIRS_NOTE = (
    "gained and lost: images that only the run's TFLite file classifies correctly, and that only the other's does. "
    "[low, high]: 95 % intervals over the test images, by Bonett and Price's formula and by a bootstrap over images. "
    "McNemar p: of the exact test that both have the same error rate. Holm p: corrected for the number of comparisons; "
    "below 0.05, the verdict is that one file is more accurate."
)


@dataclass(frozen=True)
class Examined:
    """The predictions of a run's file for the test images."""

    label: str
    dataset: str
    answers: Predictions
    test_digest: str | None = None  # of the images; None for runs of earlier versions
    file: str | None = None  # digest of the TFLite file


def _examined(store: Store, row: Row) -> Examined:
    answers = store.predictions(row["run_id"])
    if answers is None:
        raise UserError(
            f"--pair {row['run_id']}: requires a run with {PREDICTIONS}; this one has none (status {row['status']})."
        )
    if not isinstance(answers, Predictions):
        raise UserError(
            f"--pair {row['run_id']}: requires runs of classification; this one is judged by {row['metric']}. Compare "
            f"it with --baseline {row['strategy']}: the columns score_difference, _low, _high and _p."
        )
    return Examined(label(row), row["dataset"], answers, row["test_digest"], row["tflite_sha256"])


def table_of_pairs(runs: Sequence[Examined]) -> pd.DataFrame:
    """Compare every pair of runs on the same images, one per row: the second against the first.

    Raises:
        UserError: two runs were tested on different images.
    """
    for run in runs[1:]:
        _check_images(runs[0], run)
    table = pd.DataFrame([_compared(run, against) for against, run in combinations(runs, 2)])
    adjusted = holm(table["mcnemar_p"].to_numpy())
    verdicts = [
        SAME_FILE if same else _verdict(difference, p)
        for same, difference, p in zip(table["same_file"], table["difference"], adjusted, strict=True)
    ]
    return table.assign(holm_p=adjusted, verdict=verdicts)


def _verdict(difference: float, p: float) -> str:
    if p >= SIGNIFICANT:
        return "no significant difference"
    return "more accurate" if difference > 0 else "less accurate"


def _check_images(first: Examined, other: Examined) -> None:
    digests = (first.test_digest, other.test_digest)
    alike = digests[0] == digests[1] if all(digests) else first.dataset == other.dataset
    if alike and np.array_equal(first.answers.truth, other.answers.truth):
        return
    raise UserError(
        f"--pair: {first.label} and {other.label} were tested on different images ({_images(first)}; "
        f"{_images(other)}). A paired comparison requires the same dataset and dataset.test_samples."
    )


def _images(run: Examined) -> str:
    return f"{len(run.answers.truth):,} of {with_digest(run.dataset, run.test_digest or '')}"


def _compared(run: Examined, against: Examined) -> dict[str, object]:
    after, before = (each.answers.tflite == each.answers.truth for each in (run, against))
    gained, lost = discordant(after, before)
    formula, bootstrap = paired_difference(after, before), paired_bootstrap(after, before)
    return {
        "run": run.label, "against": against.label, "images": len(after), "gained": gained, "lost": lost,
        "difference": formula.value, "low": formula.low, "high": formula.high,
        "bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high, "mcnemar_p": mcnemar(after, before),
        "same_file": run.file is not None and run.file == against.file,
    }  # fmt: skip


def display_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Format differences in points, with both intervals and p-values, corrected if there are several."""
    narrow = {column: table[column].str.replace(" (", "\n(", regex=False) for column in ("run", "against")}
    shown = table[["run", "against", "images", "gained", "lost"]].assign(**narrow)
    shown["Δ accuracy (pp)"] = percents(table, "difference", "low", "high", sign="+")
    shown["bootstrap (pp)"] = percents(table, "difference", "bootstrap_low", "bootstrap_high", sign="+")
    shown["McNemar p"] = [f"{p:.2g}" for p in table["mcnemar_p"]]
    if len(table) > 1:
        shown["Holm p"] = [f"{p:.2g}" for p in table["holm_p"]]
    shown["verdict"] = table["verdict"]
    return shown


def show_pairs(store: Store, rows: Sequence[Row]) -> pd.DataFrame:
    """Print the comparison of every pair of these runs on the same images, and return it."""
    pairs = table_of_pairs([_examined(store, row) for row in rows])
    print_whole(picture(display_pairs(pairs), {}))
    CONSOLE.print(PAIRS_NOTE, style="dim", markup=False, highlight=False)
    return pairs
