"""Which layers of the article's network bear quantization: `python -m benchmarks.sensitivity`.

What `python -m experiments.sensitivity` finds on all of MNIST, after a baseline of one epoch. Writes
benchmarks/results/sensitivity/ and its table in docs/. The baseline is kept in cache/ where the command runs.
"""

from benchmarks.results import Results
from experiments.runs.configuration import compose_request
from experiments.sensitivity import Options, measure_layers, write


def main() -> None:
    """Measure, write, publish."""
    results = Results("sensitivity")
    options = Options(folder=results.folder)
    write(measure_layers(compose_request([]).experiment, options), options)
    results.sign()


if __name__ == "__main__":
    main()
