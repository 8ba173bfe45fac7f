"""The report as a self-contained HTML file, without network access."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.comparison.baseline import trained_less, unmatched, with_baseline
from experiments.comparison.choices import choices, explain_tie, headline, join_names
from experiments.comparison.columns import is_group
from experiments.comparison.compared import Comparison
from experiments.comparison.groups import group_runs, seeds_to_pool
from experiments.comparison.metric import common_metric
from experiments.comparison.names import subjects_of
from experiments.comparison.recommendation import MEANING
from experiments.comparison.tasks import Task, tasks
from experiments.plots import as_svg
from experiments.plots.comparison import Pictures
from experiments.plots.export import draw_pictures, write_pictures
from experiments.record.artifacts import (
    CHANGED,
    CLASSES,
    LAYERS,
    read_artifact,
    read_changed,
    read_classes,
    read_layers,
)
from experiments.record.evidence import Predictions
from experiments.record.metric import SEVERAL, RecordedMetric
from experiments.report.details import (
    Details,
    confusion,
    display_layers,
    pictures,
    worst_classes,
)
from experiments.report.tables import Table, anchor, plain_table, separation_table, table_of
from experiments.statistics.power import POWER
from experiments.system.errors import UserError, redact
from experiments.system.escaping import escape_control
from experiments.tracking import Store
from experiments.tracking.schema import SCHEMA, Column

REPORT = "report.html"  # artifact of a sweep
MOST_RUNS = 24  # with details
MOST_HELD = 2000  # runs to compare with the control
CONTROL = "finetune"
# Columns that are shown of each run with details, where they are filled.
DETAILS = (
    "latency_p50_us", "latency_p90_us", "latency_p99_us", "tflite_gzip_bytes", "memory_peak_kib", "coverage_weights",
    "coverage_macs", "xnnpack_ops", "warnings", "broken_promise", "left_float", "xnnpack_refusal", "latency_void",
    "engine", "train_seconds",
)  # fmt: skip


def report(store: Store, comparison: Comparison, shown: Pictures, commands: Sequence[str], remark: str = "") -> str:
    """Return the page of a comparison; `commands` are those that repeat it, `remark` is a line below the answer.

    Raises:
        UserError: an artifact of a run is invalid.
    """
    found, control, metric = tasks(comparison), _control(comparison), (common_metric(comparison.table) or SEVERAL).title
    detailed = comparison.table.head(MOST_RUNS).loc[lambda rows: rows["status"] == "FINISHED", "run_id"].tolist()
    context = {
        **_context_of_answer(comparison, found, remark),
        "title": _title(comparison.runs),
        "runs": len(comparison.runs),
        "table": table_of(comparison, detailed),
        "changes": [
            (task.title, tie, separation_table(tie)) for task in found for tie in (explain_tie(task),) if tie.is_known
        ],
        "power": f"{100 * POWER:g}",
        "ui_command": store.ui_command,
        "control": control,
        "most_held": f"{MOST_HELD:,}" if len(comparison.runs) > MOST_HELD else "",
        "pictures": {name: Markup(as_svg(figure, name)) for name, figure in shown.drawn.items()},
        "left_out": {name: reason for name, reason in shown.left_out.items() if name not in shown.tables},
        "few": [
            (capitalized(title_of(name, metric)), shown.left_out[name], plain_table(pd.DataFrame(each)))
            for name, each in shown.tables.items()
        ],
        "title_of": partial(title_of, metric=metric),
        "details": list(_details(store, comparison, found)),
        "most_details": MOST_RUNS,
        "rows": len(comparison.table),
        "commands": [redact(command) for command in commands],
        "stamps": _stamps(store, comparison.runs),
    }
    return _rendered("page.html", context)


def _context_of_answer(comparison: Comparison, found: Sequence[Task], remark: str = "") -> Mapping[str, Any]:
    metrics = list(dict.fromkeys(task.metric for task in found)) or [RecordedMetric()]
    return {
        "answers": [(task, headline(task), choices(task)) for task in found],
        "metrics": " and ".join(metric.title for metric in metrics),
        "margin": " or ".join(dict.fromkeys(metric.allowed(comparison.margin) for metric in metrics)),
        "foremost": metrics[0].foremost if len(metrics) == 1 else "best",
        "order": "; then ".join(MEANING[each] for each in comparison.order),
        "remark": remark,
        "named": join_names,
    }


def _rendered(template: str, context: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return escape_control(environment.get_template(template).render(context))


def write_report(store: Store, comparison: Comparison, shown: Pictures, commands: Sequence[str], path: Path) -> None:
    """Write the page.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.write_text(report(store, comparison, shown, commands), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error


def illustrate(store: Store, comparison: Comparison, command: str, folder: Path) -> None:
    """Write the plots and the report of a sweep to the folder."""
    pictures = draw_pictures(store, comparison)
    write_pictures(pictures, folder / "plots")
    write_report(store, comparison, pictures, [command], folder / REPORT)


def capitalized(text: str) -> str:
    """Return a text as a heading; names such as MAE keep their letters."""
    return text[:1].upper() + text[1:]


def title_of(picture: str, metric: str) -> str:
    """Return the name of a picture as words: accuracy and size, with the metric of the runs."""
    score, _, other = picture.partition("accuracy_")
    return f"{metric} and {other}" if other and not score else picture.replace("_", " ")


def _title(runs: pd.DataFrame) -> str:
    return f"Which quantization to ship: {subjects_of(runs)}"


def _control(comparison: Comparison) -> Table | None:
    """Return the comparison with the control, if there is one: the effect without that of more epochs."""
    runs = comparison.runs
    strategies = set(runs.loc[runs["status"] == "FINISHED", "strategy"])
    if CONTROL not in strategies or strategies == {CONTROL} or "against" in runs.columns or len(runs) > MOST_HELD:
        return None
    trained = with_baseline(runs, CONTROL, comparison.read_evidence).loc[lambda held: held["finetune_epochs"] > 0]
    held = trained[trained["against_run_id"].notna()]
    if held.empty:
        return None
    groups = seeds_to_pool(held)
    shown = group_runs(held, groups, comparison.read_evidence).table if groups else held
    remarks = (*unmatched(trained, CONTROL), *trained_less(held, runs, CONTROL))
    return table_of(Comparison(held, shown, comparison.read_evidence, bool(groups), remarks))


def _details(store: Store, comparison: Comparison, found: list[Task]) -> Iterator[Details]:
    names = {row["run_id"]: task.name_of_row(row) for task in found for _, row in task.rows.iterrows()}
    for _, row in comparison.table.head(MOST_RUNS).iterrows():
        if row["status"] == "FINISHED":
            # A run whose file does not match the expectation cannot be shipped and belongs to no task.
            yield _details_of(store, comparison, row, names.get(row["run_id"], str(row["strategy"])))


def _details_of(store: Store, comparison: Comparison, row: pd.Series, name: str) -> Details:
    run_id = row["run_id"]
    run = comparison.runs.loc[comparison.runs["run_id"] == run_id].iloc[0]
    evidence = comparison.read_evidence(run_id)
    predictions = evidence if isinstance(evidence, Predictions) else None
    layers = read_artifact(store, run_id, LAYERS, read_layers)
    changed = read_artifact(store, run_id, CHANGED, read_changed)
    names = (read_artifact(store, run_id, CLASSES, read_classes) if predictions else None) or {}
    return Details(
        run_id=run_id,
        anchor=anchor(run_id),
        page=store.page(run_id),
        name=name,
        seed=str(run["seed"]) if is_group(row) else "",
        facts=_facts(run),
        layers=None if layers is None else plain_table(display_layers(layers)),
        matrix=confusion(predictions) if predictions else None,
        worst=worst_classes(predictions, names) if predictions else (),
        pictures=pictures(changed, predictions) if predictions and changed else (),
        names=names,
    )


def _facts(row: pd.Series) -> tuple[tuple[str, str], ...]:
    """Return results that are not in the table, labeled and formatted by the schema."""
    facts = ((SCHEMA[name], row.get(name)) for name in DETAILS)
    return tuple(
        (_label(column), column.formatter(value)) for column, value in facts if pd.notna(value) and value != ""
    )


def _label(column: Column) -> str:
    unit = "%" if column.kind == "share" else column.unit
    return column.doc.partition(";")[0].rstrip(".") + (f" ({unit})" if unit else "")


def _stamps(store: Store, runs: pd.DataFrame) -> list[Mapping[str, str]]:
    """Return the different stamps of the runs: machines, versions and commits."""
    first = runs.drop_duplicates(["machine", "git_commit"])["run_id"].head(5)
    return [store.stamp(run_id) for run_id in first]
