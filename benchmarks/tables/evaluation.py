"""How fast models are evaluated: the published table, and how fast they are to be."""

import pandas as pd

from benchmarks.tables.markdown import markdown, true

KERAS = "Keras model"
KERAS_EVALUATION_AT_LEAST = 0.9  # times the throughput of a bare loop
FLOAT_EVALUATION_AT_LEAST = 1.8  # times the throughput of one image a call on one thread, on two cores


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.evaluation found."""
    shown = table[["model", "strategy"]].assign(
        **{
            "loop, images/s": [f"{value:,.0f}" for value in table["loop_images_per_second"]],
            "here, images/s": [f"{value:,.0f}" for value in table["images_per_second"]],
            "times": [f"{value:.2f}x" for value in _times(table)],
            "several images a call": ["yes" if true(value) else "no" for value in table["in_batches"]],
            "same bits": ["yes" if true(value) else "NO" for value in table["same_bits"]],
        }
    )
    return markdown(shown)


def _times(table: pd.DataFrame) -> pd.Series:
    return table["images_per_second"] / table["loop_images_per_second"]


def failures(table: pd.DataFrame) -> list[str]:
    """What is not as it should be."""
    float_file = (table["model"] == "article_cnn") & (table["strategy"] == "none")
    times = float(_times(table)[float_file].iloc[0])
    of_keras = _times(table)[table["strategy"] == KERAS]
    return [
        *(f"{row.model!s} {row.strategy!s}: other bits" for row in table.itertuples() if not true(row.same_bits)),
        *([f"float model: {times:.2f} times the loop"] if times < FLOAT_EVALUATION_AT_LEAST else []),
        *(f"Keras model: {each:.2f} times the loop" for each in of_keras if each < KERAS_EVALUATION_AT_LEAST),
    ]
