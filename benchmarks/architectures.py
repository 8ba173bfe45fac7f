"""The article's question for other networks, with what quantization saves there."""

import pandas as pd

from benchmarks.article import IN_SHORT, Rows, by_strategy, in_short, size_and_speed
from benchmarks.harness.benchmark import CONTROL, RIVAL, Study
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, runs_in
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent


def published_table(runs: pd.DataFrame, against_rival: pd.DataFrame) -> str:
    """Return a row for each model and seed: from runs that are compared with the control, and with the rival."""
    groups, rivals = (
        {group: by_strategy(rows) for group, rows in table.groupby(["model", "seed"], sort=False)}
        for table in (runs, against_rival)
    )
    shown = [
        {
            "model": model,
            "seed": seed,
            **in_short(rows),
            f"qat - {RIVAL}": percent(*ends(rivals[model, seed]["qat"], "accuracy_difference"), "+"),
            **_saved(rows),
        }
        for (model, seed), rows in groups.items()
    ]
    saved = "size ratio, speedup: against the float file of the same baseline."
    return f"{markdown(pd.DataFrame(shown))}\n{IN_SHORT} {saved}\n"


def _saved(rows: Rows) -> dict[str, str]:
    return {f"{strategy}: size ratio, speedup": size_and_speed(rows[strategy]) for strategy in ("ptq_int8", "qat")}


BENCHMARK = Study(
    name="architectures",
    title="The article's question for ResNet8 and DS-CNN: 5 epochs, then 5 more, two seeds",
    minutes=60,
    tables=(
        Table(
            "architectures", published_table, (runs_in("architectures"), (f"architectures/runs_against_{RIVAL}.csv",))
        ),
    ),
    sweeps=(("+suite=architectures",),),
    control=CONTROL,
    rival=RIVAL,
)
