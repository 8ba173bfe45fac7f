"""The article's question for each number of epochs."""

import pandas as pd

from benchmarks.article import IN_SHORT, by_strategy, in_short
from benchmarks.harness.benchmark import CONTROL, Study
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, compared_in


def published_table(table: pd.DataFrame) -> str:
    """Return a row for each number of epochs: from rows that are compared with the control."""
    shown = [
        {"epochs": f"{epochs}, then {epochs}", **in_short(by_strategy(rows))}
        for epochs, rows in table.groupby("epochs")
    ]
    return f"{markdown(pd.DataFrame(shown))}\n{IN_SHORT}\n"


BENCHMARK = Study(
    name="epochs",
    title="1, 2, 5, 10 and 20 further epochs, after as many epochs of the baseline",
    minutes=120,
    tables=(Table("epochs", published_table, (compared_in("epochs"),)),),
    sweeps=(("+suite=epochs",),),
    control=CONTROL,
)
