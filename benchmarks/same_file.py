"""Whether a file is called different from itself: `python -m benchmarks.same_file`.

200 comparisons of a file with itself by the default protocol, half of them with the article's network in float, half in
int8; and as many while another process keeps one core busy. Each ends when the ratio is known to 1 %, or after the
default budget. Writes benchmarks/results/same_file/.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pandas as pd

from benchmarks import files
from benchmarks.results import Results, timing_options
from benchmarks.tables.same_file import BUSY, QUIET, failures
from benchmarks.trial import trial
from experiments.system.progress import bar

TRIALS = 200
ENDLESS = "while True: pass"


@contextmanager
def one_busy_core() -> Iterator[None]:
    """Another process computes meanwhile."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS]) as process:
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Measure and write."""
    parser = timing_options("benchmarks.same_file", __doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="with each load (default: %(default)s)")
    asked = parser.parse_args()
    results = Results("same_file", asked.shared_host)
    trials = 4 if asked.quick else asked.trials
    data = files.images()
    made = files.article(data)
    rows = []
    with bar("Comparisons", total=2 * trials) as advance:
        for load in (QUIET, BUSY):
            with nullcontext() if load == QUIET else one_busy_core():
                for seed, name in enumerate(np.resize(list(made), trials)):
                    rows.append({"load": load, "file": name, **trial(made[name], made[name], data.test.x, seed)})
                    advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
