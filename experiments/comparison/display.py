"""The formatted table: rounded, with units in the headings and intervals in the cells, and the note below it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.comparison.columns import (
    AGAINST,
    COLUMNS,
    GROUPED,
    INTERNAL,
    INVALID,
    SETTINGS,
    SUBJECTS,
    VOID,
    as_typed,
    has_verdict,
    of_one_float_file,
    several_machines,
)
from experiments.comparison.metric import common_metric
from experiments.comparison.names import display_names, labels
from experiments.measure.latency import SAME_FILE
from experiments.record.metric import RecordedMetric, metric_of_row
from experiments.record.run_record import NOT_MEASURED, short_warning
from experiments.statistics.rounding import percent, whole
from experiments.system.escaping import one_line
from experiments.system.program import program
from experiments.tracking.schema import SCHEMA, Column, heading

SCORES = {
    "keras_score": "Keras", "tflite_score": "TFLite", "score_change": "difference", "score_difference": "difference",
}  # fmt: skip
ACCURATE = RecordedMetric()
LATENCY, VERDICT = heading("latency_p50_us"), heading("speed")
DISTURBED = 0.2  # cores used by other processes, from which on a remark is shown


@dataclass(frozen=True)
class Differences:
    """The columns of differences from a reference."""

    score: str
    size: str
    speedup: str
    other: str = ""  # the strategy that runs are compared with
    metric: RecordedMetric | None = ACCURATE  # None: rows with several metrics

    def heading(self, name: str) -> str:
        """Return the heading of one of these columns, or of a score."""
        if name not in SCORES:
            return heading(name, self.other)
        title = self.metric.title if self.metric else "score"
        unit = self.metric.unit if self.metric else ""
        match SCORES[name]:
            case "difference":
                change = self.metric.unit_of_change if self.metric else ""
                return f"Δ {title} vs {self.other}{change}" if self.other else f"Δ {title}{change}"
            case model:
                return f"{model} {title}{unit}"

    @staticmethod
    def of(table: pd.DataFrame) -> "Differences":
        """Return the columns against the float TFLite model of the same baseline, or against the requested strategy."""
        if "against" not in table.columns:
            return Differences("score_change", "size_ratio", "speedup", metric=common_metric(table))
        other = str(table["against"].dropna().iloc[0])
        return Differences("score_difference", "size_against", "speedup_against", other, common_metric(table))


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the main columns, rounded, with units in the headings and intervals in the cells."""
    differences = Differences.of(table)
    shown = pd.DataFrame({"strategy": table["strategy"]})
    for name in SETTINGS:
        values = display_names(table, name) if name in SUBJECTS else table[name]
        if values.nunique(dropna=False) > 1:
            shown[name] = values.astype("string").fillna("")
    for name in [name for name in table.columns if name not in (*COLUMNS, *AGAINST, *GROUPED, *INTERNAL)]:
        shown[name] = [as_typed(value) for value in table[name]]
    if "runs" in table.columns:
        pooled = "seeds" if table["runs"].equals(table["seeds"]) else "runs"
        shown[pooled] = table[pooled]
    shown = _with_measurements(shown, table, differences)
    if table["arena_bytes"].notna().any():
        arenas = zip(table["arena_bytes"], table["runs_on_micro"], strict=True)
        shown[heading("arena_bytes")] = [_arena(*facts) for facts in arenas]
    if table["speed"].notna().any():  # runs of earlier versions have no verdict
        shown[heading("speed")] = [shown_speed(speed) for speed in table["speed"]]
    if table["engine"].replace("", None).nunique() > 1:
        shown[heading("engine")] = table["engine"].astype("string").fillna("")
    if several_machines(table):
        shown[heading("machine")] = table["machine"].astype("string").fillna("")
    shown[heading("arithmetic")] = table["arithmetic"].astype("string").fillna("")
    sources = ("verified", "partial", "xnnpack_refusal", "latency_other_cores", "warnings", "latency_states")
    facts = zip(*(table[name] for name in sources), strict=True)
    remarks = [_remark(*fact) for fact in facts]
    if any(remarks):
        shown["remark"] = remarks
    if (table["status"] != "FINISHED").any():
        shown["status"] = table["status"]
    return shown


def _with_measurements(shown: pd.DataFrame, table: pd.DataFrame, differences: Differences) -> pd.DataFrame:
    """Return the table with scores, size and latency."""
    metrics = {} if differences.metric else {heading("metric"): list(map(_metric, table["metric"]))}
    scores = {
        differences.heading(name): _scores(table, SCHEMA[name])
        for name in ("keras_score", "tflite_score", differences.score)
    }
    of_classes = table["agreement"].notna().any() or table["output_sqnr_db"].isna().all()
    agreement = "agreement" if of_classes else "output_sqnr_db"
    names = (agreement, "tflite_bytes", differences.size, "latency_p50_us", differences.speedup)
    return shown.assign(
        **metrics, **scores, **{differences.heading(name): _cells(table, SCHEMA[name]) for name in names}
    )


def _metric(name: Any) -> str:
    """Return the metric of a row in a table with several, with the unit of its values; empty for a failed run."""
    metric = RecordedMetric(name) if isinstance(name, str) else None
    return f"{metric.title}{metric.unit}" if metric else ""


def shown_speed(speed: Any) -> str:
    """Return a verdict on a timing for display; `void`, as stored, is shown as invalid."""
    return "" if pd.isna(speed) else INVALID if speed == VOID else str(speed)


def _arena(arena: Any, runs: Any) -> str:
    """Return the arena for display; `no` if TensorFlow Lite Micro does not run the file."""
    if pd.notna(arena):
        return whole(arena)
    return "" if pd.isna(runs) else str(runs) if runs == NOT_MEASURED else "no"


TO_FLOAT = (
    "Δ accuracy, size ratio and speedup: against the float TFLite model of the same baseline, on the same examples, "
    "timed together in the same process."
)
TO_STRATEGY = (
    "Δ accuracy, size ratio and speedup vs a strategy: against its run with the same model, data set, epochs and seed "
    "and, if there is one, the same total number of epochs, on the same examples; each file was timed together with "
    "its own float model."
)
OF_RUNS = (
    "[low, high]: 95 % interval, over the test examples for accuracies and over rounds at different moments for times."
)
OF_SESSIONS = (  # runs of earlier versions were timed without rounds
    "[low, high]: 95 % interval, over the test examples for accuracies and over replicates with new interpreters for "
    "times of one session."
)
OF_SEEDS = (
    "Means over runs. [low, high]: 95 % interval for new seeds and new test examples, and over runs for times; groups "
    "that differ in more than their seeds have none. With two seeds it is approximate; use three or more."
)
NO_EVIDENCE = "If the interval of Δ accuracy includes 0, there is no evidence of a difference."
SPEED = (
    "speed: equivalent means a ratio within 2 % of 1; unclear, an interval too wide for a verdict; invalid, a timing "
    "that was disturbed, or in which a file seemed to differ from its own copy."
)
SAME = "same file: the file is byte for byte identical to the float file that it was timed with."
MACHINES = "These rows come from different machines: compare latencies only within one machine."
REUSED_ROUNDS = "Some rounds of timing are reused from earlier runs of the same files (latency_rounds_reused)."
RANK = (
    "Each row was timed together with its own float file: compare rows by speedup, not by latency; if they differ by "
    "only a few percent, add rounds ({latency})."
)


def note(table: pd.DataFrame, columns: Collection[str] = (LATENCY, VERDICT)) -> str:
    """Return the note below a table, on how to read it; `columns` has the headings that are shown."""
    pooled = "runs" in table.columns and bool((table["runs"] > 1).any())
    notes = {
        TO_STRATEGY if "against" in table.columns else TO_FLOAT: True,
        OF_SEEDS if pooled else OF_RUNS if table["latency_rounds"].notna().any() else OF_SESSIONS: True,
        NO_EVIDENCE: True,
        SPEED: VERDICT in columns and bool(table["speed"].notna().any()),
        SAME: VERDICT in columns and bool((table["speed"] == SAME_FILE).any()),
        REUSED_ROUNDS: bool(table["latency_rounds_reused"].gt(0).any()),
        MACHINES: several_machines(table),
        RANK.format(latency=program("latency")): LATENCY in columns and of_one_float_file(table),
    }
    metric = common_metric(table)
    title = metric.title if metric else "score"
    words = {"Δ accuracy": f"Δ {title}", "for accuracies": "for accuracies" if title == "accuracy" else f"for {title}"}
    text = " ".join(text for text, applies in notes.items() if applies)
    for accuracy, own in words.items():
        text = text.replace(accuracy, own)
    return "\n".join(
        [
            text,
            *map(one_line, [*_invalid(table), *_broken(table), *_warnings(table)]),
        ]
    )


def _invalid(table: pd.DataFrame) -> list[str]:
    """Return why timings are invalid, one line per run."""
    void = table[table["speed"] == VOID]
    named = zip(labels(table)[void.index], void["latency_void"], strict=True)
    lines = [f"Invalid timing: {name}, {_first(reason)}." for name, reason in named]
    return (
        [*lines, "To add rounds of timing, type the same command, if possible when the machine is less busy."]
        if lines
        else []
    )


def _broken(table: pd.DataFrame) -> list[str]:
    """Return the differences between files and their expectations, one line per run."""
    broken = table[table["verified"].map(lambda verified: has_verdict(verified, "false"))]
    named = zip(labels(table)[broken.index], broken["broken_promise"], strict=True)
    return [f"Not verified: {name}, {what}." for name, what in named]


def _warnings(table: pd.DataFrame) -> list[str]:
    """Return the warnings about baselines, each once, with its runs.

    A warning may end with code to type, so it must be at the end of its line.
    """
    runs: dict[str, list[str]] = {}
    warned = table["warnings"].dropna()
    for name, warnings in zip(labels(table)[warned.index], warned, strict=True):
        for warning in str(warnings).splitlines():
            runs.setdefault(warning, []).append(name)
    return [
        f"Warning, {', '.join(named[:3])}{f' and {len(named) - 3} more' if len(named) > 3 else ''}: {text}"
        for text, named in runs.items()
    ]


def _first(reasons: str) -> str:
    """Return the first reason of a group of runs."""
    return reasons.partition("; ")[0]


def percents(table: pd.DataFrame, value: str, low: str, high: str, sign: str = "") -> list[str]:
    """Format a value with its interval for each row."""
    return [percent(*cells, sign) for cells in zip(table[value], table[low], table[high], strict=True)]


def _remark(
    verified: object, partial: object, refusal: object, other_cores: float, warnings: object, states: Any
) -> str:
    """Return the remarks on a row; empty if the run has no result."""
    remarks = {
        "NOT VERIFIED": has_verdict(verified, "false"),
        **{short_warning(line).upper(): True for line in (warnings.splitlines() if isinstance(warnings, str) else ())},
        "partial": has_verdict(partial, "true"),
        "not on XNNPACK": isinstance(refusal, str) and bool(refusal),
        "timed while busy": other_cores > DISTURBED,
        "two machine states": pd.notna(states) and states > 1,
    }
    return ", ".join(remark for remark, applies in remarks.items() if applies)


def _scores(table: pd.DataFrame, column: Column) -> list[str]:
    """Format a column of scores, each in the unit of its metric, with its interval."""
    ends = [f"{column.name}_low", f"{column.name}_high"] if column.interval else []
    names = [column.name, *ends]
    is_change = SCORES[column.name] == "difference"
    cells = []
    for row in table[[*names, "metric", "metric_better"]].to_dict("records"):
        metric = metric_of_row(row)
        show = metric.shown_change if is_change else metric.shown
        cells.append(show(*(row[name] for name in names)))
    return cells


def _cells(table: pd.DataFrame, column: Column) -> list[str]:
    """Format a column, with its interval; empty for runs without measurements."""
    ends = [f"{column.name}_low", f"{column.name}_high"] if column.interval else []
    rows = zip(*(table[name] for name in (column.name, *ends)), strict=True)
    return [
        column.formatter(*values) if measured else ""
        for values, measured in zip(rows, table["tflite_bytes"].notna(), strict=True)
    ]
