"""What the first command of the README prints: a sweep, and the README's table of it in fewer columns."""

import pandas as pd

from benchmarks.harness.benchmark import Study, swept
from benchmarks.harness.markdown import files_table
from benchmarks.harness.pages import Table, runs_in
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent


def front_table(table: pd.DataFrame) -> str:
    """Return a row for each strategy: accuracy, size and speed of its file."""
    rows = [row for _, row in table.iterrows()]
    scores = {
        "accuracy (%)": [percent(row["tflite_accuracy"]) for row in rows],
        "Δ accuracy (pp)": [percent(*ends(row, "accuracy_change"), "+") for row in rows],
    }
    return files_table(table, scores)


BENCHMARK = Study(
    name="first_sweep",
    title="Output of the README's first command",
    minutes=8,
    tables=(swept("first_sweep"), Table("front", front_table, (runs_in("first_sweep"),))),
    sweeps=(("-m", "strategy=none,finetune,ptq_dynamic,ptq_int8,finetune_ptq_int8,qat,annotate"),),
)
