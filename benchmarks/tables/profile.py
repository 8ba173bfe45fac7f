"""Whether the ops of a file add up to the file: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.profile found."""
    shown = table.groupby("strategy", sort=False).agg(
        times=("time", "count"),
        whole=("whole_us", "median"),
        together=("sum_us", "median"),
        call=("call_us", "median"),
        ratio=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
    )
    return markdown(
        pd.DataFrame(
            {
                "strategy": shown.index,
                "times": shown["times"].astype(str),
                "whole file (µs)": [f"{value:.1f}" for value in shown["whole"]],
                "its ops and one call (µs)": [f"{value:.1f}" for value in shown["together"]],
                "a call (µs)": [f"{value:.1f}" for value in shown["call"]],
                "sum / whole": [f"{value:.3f}" for value in shown["ratio"]],
                "least and most": [
                    f"{least:.3f} to {most:.3f}" for least, most in zip(shown["least"], shown["most"], strict=True)
                ],
            }
        )
    )
