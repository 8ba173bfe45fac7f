"""Which layers of the article's network bear quantization: `python -m benchmarks.sensitivity`; two minutes.

What `python -m experiments.sensitivity` finds on all of MNIST, after a baseline of one epoch. Writes
benchmarks/results/sensitivity/ and the table in the README. The baseline is kept in cache/ where the command runs.
"""

import json

from benchmarks.publish import HERE, README, with_table
from experiments.configuration import composed
from experiments.sensitivity import Options, find, write
from experiments.stamp import stamp


def main() -> None:
    """Measure, write, publish."""
    folder = HERE / "results" / "sensitivity"
    options = Options(folder=folder)
    write(find(composed([]).experiment, options), options)
    (folder / "stamp.json").write_text(json.dumps(stamp(), indent=2) + "\n")
    README.write_text(with_table(README.read_text(), "sensitivity"))


if __name__ == "__main__":
    main()
