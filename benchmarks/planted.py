"""Whether a known difference is found: `python -m benchmarks.planted`.

A network of 100 equal convolutions in int8 is compared with the same network of 103, 105 and 110, which are 3, 5 and
10 % more work; 50 trials each by the default protocol. Writes benchmarks/results/planted/.
"""

import pandas as pd

from benchmarks import files
from benchmarks.results import Results, timing_options
from benchmarks.tables.planted import FOUND_AT_LEAST, failures
from benchmarks.trial import trial
from experiments.system.progress import bar

TRIALS = 50


def main() -> None:
    """Measure and write."""
    parser = timing_options("benchmarks.planted", __doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="of each (default: %(default)s)")
    asked = parser.parse_args()
    results = Results("planted", asked.shared_host)
    trials = 2 if asked.quick else asked.trials
    data = files.images()
    reference = files.padded(data, files.PADDABLE_LAYERS)
    slower = {added: files.padded(data, files.PADDABLE_LAYERS + int(added)) for added in FOUND_AT_LEAST}
    rows = []
    with bar("Trials", total=trials * len(slower)) as advance:
        for seed in range(trials):  # in turns, so that no difference has a better hour than another
            for added, file in slower.items():
                rows.append({"added_percent": added, **trial(file, reference, data.test.x, seed)})
                advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
