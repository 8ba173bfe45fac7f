"""What each layer costs in int8: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.sensitivity import describe_advice
from experiments.statistics.estimates import Estimate
from experiments.statistics.rounding import points
from experiments.tracking.schema import heading

IN_INT8 = {
    "alone in int8": "{} alone",
    "alone in float": "all but {}",
    "in int8": "everything",
    "in float": "nothing",
    "rounded to int8": "nothing, and the {} rounded",
}


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.sensitivity found."""
    *files, proposal = table.to_dict("records")
    shown = pd.DataFrame(
        {
            "in int8": [IN_INT8[file["what"]].format(file["layer"]) for file in files],
            heading("accuracy_change"): [
                points(Estimate(file["accuracy_change"], file["low"], file["high"])) for file in files
            ],
            "logit error, RMS": [f"{file['rms_logit_error']:.4f}" for file in files],
            "bytes": [f"{file['bytes']:,}" for file in files],
        }
    )
    cost = {file["layer"]: file["rms_logit_error"] for file in files if file["what"] == "alone in int8"}
    (rounding,) = [file["rms_logit_error"] for file in files if file["what"] == "rounded to int8"]
    return (
        f"{markdown(shown)}\n{describe_advice(cost, rounding)}\n"
        f"{proposal['what'].capitalize()}: `strategy.layers=[{proposal['layer']}]`, {proposal['bytes']:,} bytes.\n"
    )
