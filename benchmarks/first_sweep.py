"""What the first command of the README prints: a sweep, and the README's table of it in fewer columns."""

import pandas as pd

from benchmarks.harness.benchmark import Study, swept
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, runs_in
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent, times, whole


def front_table(table: pd.DataFrame) -> str:
    """Return a row for each strategy: accuracy, size and speed of its file."""
    rows = [row for _, row in table.iterrows()]
    shown = pd.DataFrame(
        {
            "strategy": [f"`{name}`" for name in table["strategy"]],
            "accuracy (%)": [percent(row["tflite_accuracy"]) for row in rows],
            "Δ accuracy (pp)": [percent(*ends(row, "accuracy_change"), "+") for row in rows],
            "bytes": table["tflite_bytes"].map(whole),
            "size ratio": table["size_ratio"].map(times),
            "speedup": [times(*ends(row, "speedup")) for row in rows],
        }
    )
    return markdown(shown)


BENCHMARK = Study(
    name="first_sweep",
    title="Output of the README's first command",
    minutes=8,
    tables=(swept("first_sweep"), Table("front", front_table, (runs_in("first_sweep"),))),
    sweeps=(("-m", "strategy=none,finetune,ptq_dynamic,ptq_int8,finetune_ptq_int8,qat,annotate"),),
)
