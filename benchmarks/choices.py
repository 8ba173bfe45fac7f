"""Which layers in int8 make the fastest file: `python -m benchmarks.choices`.

All 15 choices among the layers of the article's network, quantized after training, timed together with the float file;
in three sessions, since what slows a machine for a while can strike some files more than others. Nothing is trained:
times do not depend on it. Writes benchmarks/results/choices/ and its table in docs/.
"""

from collections.abc import Iterator, Mapping

import pandas as pd

from benchmarks.harness import files
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import filled, markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Dataset
from experiments.measure.latency import LatencyProtocol, Session, time_together
from experiments.statistics.rounding import times
from experiments.system.progress import bar
from experiments.tflite.conversion import TFLiteModel

FLOAT, WHOLE = "none, the float file", "all four"
SESSIONS = 3
SECONDS_A_FILE = 5.0


def choices(data: Dataset, sizes: range) -> Mapping[str, TFLiteModel]:
    """Return the float file, the int8 file, and a file for each choice of layers."""
    whole = files.article(data)
    chosen = files.article_choices(data, sizes)
    return {FLOAT: whole[files.FLOAT], WHOLE: whole[files.INT8]} | {", ".join(each): chosen[each] for each in chosen}


def rows_of(session: Session, number: int, made: Mapping[str, TFLiteModel]) -> Iterator[dict[str, object]]:
    """Return a row for each file of a session, compared with the float file and with the int8 file."""
    for name, file in made.items():
        yield {
            "session": number,
            "choice": name,
            "bytes": file.bytes,
            "void": session.void,
            **session.ratio(FLOAT, name).columns("speedup"),
            **session.ratio(WHOLE, name).columns("against_whole"),
        }


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results, fastest first."""
    invalid = filled(table["void"])
    valid = table[~invalid]
    by_choice = {str(choice): rows for choice, rows in valid.groupby("choice")}
    fastest_first = sorted(by_choice, key=lambda choice: -by_choice[choice]["speedup"].median())
    shown = pd.DataFrame(
        [
            {
                "in int8": choice,
                "bytes": f"{by_choice[choice]['bytes'].iloc[0]:,}",
                "speedup vs float": _scatter(by_choice[choice]["speedup"]),
                "speedup vs all four in int8": _scatter(by_choice[choice]["against_whole"]),
                "the same, in each session": "; ".join(_intervals(by_choice[choice])),
            }
            for choice in fastest_first
        ]
    )
    sessions, void = table["session"].nunique(), table.loc[invalid, "session"].nunique()
    return (
        f"{markdown(shown)}\nAll files were timed together in {sessions} sessions; invalid sessions: {void}. Speedups "
        "are medians over the sessions, with the range in brackets. Last column: the 95 % interval of each session.\n"
    )


def _scatter(ratios: pd.Series) -> str:
    return times(ratios.median(), ratios.min(), ratios.max())


def _intervals(rows: pd.DataFrame) -> list[str]:
    return [
        f"{low:.3f} to {high:.3f}"
        for low, high in zip(rows["against_whole_low"], rows["against_whole_high"], strict=True)
    ]


BENCHMARK = Benchmark(
    name="choices",
    title="Which choice of int8 layers is the fastest",
    minutes=5,
    tables=(own("choices", published_table),),
)


def main() -> None:
    """Measure, write, publish."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = files.images()
    made = choices(data, range(3, 4) if asked.quick else range(1, 4))
    protocol = LatencyProtocol(seconds=SECONDS_A_FILE * len(made))
    pairs = [(other, name) for other in (FLOAT, WHOLE) for name in made if name != other]
    rows: list[dict[str, object]] = []
    sessions = 1 if asked.quick else SESSIONS
    with bar("Sessions", total=sessions) as advance:
        for number in range(1, sessions + 1):
            session = time_together(made, dict.fromkeys(made, data.test.x[:]), protocol, pairs, seed=number)
            rows += rows_of(session, number, made)
            advance(1)
    results.finish(pd.DataFrame(rows), asked.quick, failures=[])


if __name__ == "__main__":
    main()
