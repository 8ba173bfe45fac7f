"""Sensitivity of the layers of the article's network to quantization: `python -m benchmarks.sensitivity`.

What `python -m experiments.sensitivity` finds on all of MNIST, after a baseline of one epoch. Writes
benchmarks/results/sensitivity/ and its table in docs/. The baseline is kept in cache/ where the command runs.
"""

import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results
from experiments.runs.configuration import compose_request
from experiments.sensitivity import Options, describe_advice, measure_layers, write
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
    """Return the table of the results."""
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


BENCHMARK = Benchmark(
    name="sensitivity",
    title="Sensitivity of the layers of the article's network to quantization",
    minutes=2,
    tables=(own("sensitivity", published_table),),
)


def main() -> None:
    """Measure, write the results, and publish the table."""
    results = Results(BENCHMARK)
    options = Options(folder=results.folder)
    write(measure_layers(compose_request([]).experiment, options), options)
    results.sign()


if __name__ == "__main__":
    main()
