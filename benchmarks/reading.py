"""Speed of reading many runs: `python -m benchmarks.reading`.

Fills stores with 100 to 20,000 runs of 30 metrics and 30 parameters: SQLite files and, where PostgreSQL is installed,
databases of a server of its own. Reads all runs of each with `mlflow.search_runs` and as the comparison does, sees
whether the values are equal, and times the commands that print them all, write them as CSV, and make the report of
them, for which runs in SQLite files have predictions for 10,000 test images. Writes benchmarks/results/reading/, a row
for each store.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from benchmarks.harness import postgres, sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.generated_runs import METRICS, PARAMETERS, fill
from benchmarks.harness.markdown import markdown, true
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.compare import load
from experiments.record.artifacts import PREDICTED, PREDICTIONS
from experiments.system.progress import say
from experiments.tracking import Row, Store, Tracking, connect

READ_AT_MOST, READ_RUNS = 3.0, 5000  # seconds for this number of runs
WRITTEN_AT_MOST, WRITTEN_RUNS = 30.0, 20_000  # seconds of the command that prints and writes them
REPORTED_AT_MOST, REPORTED_MIB, REPORTED_RUNS = 60.0, 1024.0, 5000
GROWTH_OF_READING = (
    1.5  # largest ratio of seconds per run to those of a store with fewer runs; beyond, reading is not linear
)
MEASURED = (
    "searched_seconds", "loaded_seconds", "printed_seconds", "written_seconds", "reported_seconds", "reported_mib",
)  # fmt: skip
SIZES, QUICK_SIZES = (100, 1000, 5000, 20_000), (100, 300)
# Runs a command, then prints its peak memory. A forked process starts with the peak of its parent, and this benchmark
# uses gigabytes, so the command is started by a small process.
WATCHED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
SEARCHED = REPORTED = 5000  # runs: with more, MLflow's search takes minutes and a report is too long to read
IMAGES, CLASSES, WRONG = 10_000, 10, 0.02  # share of wrong predictions of each run
TIMES = 3  # of each way; the median counts
RUNS = "tags.kind = 'run'"


def _add_predictions(store: Store, file: Path) -> None:
    """Give every finished run the predictions of one file by hard links, so that they are stored once."""
    rng = np.random.default_rng(0)
    truth = rng.integers(CLASSES, size=IMAGES)
    said = [np.where(rng.random(IMAGES) < WRONG, rng.integers(CLASSES, size=IMAGES), truth) for _ in range(3)]
    np.savetxt(file, np.stack([truth, *said], 1), "%d", delimiter=",", header=PREDICTED, comments="")
    for row in store.rows("all"):
        if row["status"] == "FINISHED":
            folder = file.parent / "mlruns" / row["run_id"] / "artifacts"
            folder.mkdir(parents=True)
            (folder / PREDICTIONS).hardlink_to(file)


def databases() -> Iterator[tuple[str, Callable[[Path, int], str]]]:
    """Yield each available kind of database, and the function that returns the address of one with `runs` runs."""
    yield "SQLite", lambda folder, runs: f"sqlite:///{folder}/runs-{runs}.db"
    if lacks := postgres.missing():
        say(f"Only SQLite is measured: {lacks}")
        return
    with postgres.running() as cluster:
        yield "PostgreSQL", lambda _, runs: cluster.fresh(f"runs_{runs}")


@dataclass(frozen=True)
class Filled:
    """A store with `runs` runs, and the ways of reading them all."""

    uri: str
    runs: int
    store: Store

    @classmethod
    def at(cls, uri: str, runs: int) -> "Filled":
        """Return a new store."""
        store = connect(Tracking(uri=uri))
        fill(store, runs)
        if runs <= REPORTED and isinstance(database := store.address.tables, Path):
            _add_predictions(store, database.with_suffix(".csv"))
        return cls(uri, runs, store)

    def searched(self) -> pd.DataFrame:
        """Read them with MLflow's search."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        return mlflow.search_runs([self.store.experiment_id], RUNS, max_results=10 * self.runs)

    def loaded(self) -> pd.DataFrame:
        """Read them with compare.load."""
        return load(self.uri, sweep="all")

    def printed(self) -> None:
        """Run the command that prints them."""
        self._compare()

    def written(self) -> None:
        """Run the command that prints them and writes a CSV."""
        self._compare("--csv", "runs.csv")

    def reported(self) -> float:
        """Return the peak memory of writing the report, in MiB."""
        return self._compare("--out", "report.html")

    def _compare(self, *options: str) -> float:
        """Run the command, and return its peak memory in MiB."""
        command = [sys.executable, "-m", "experiments.compare", "--uri", self.uri, "--sweep", "all", *options]
        environment = {**os.environ, "PYTHONPATH": str(sweeps.ROOT)}
        with tempfile.TemporaryDirectory() as folder:
            watched = [sys.executable, "-c", WATCHED, *command]
            done = subprocess.run(watched, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        return int(done.stderr.split()[-1]) / 1024  # KiB on Linux

    def ways(self) -> "list[Callable[[], object]]":
        """Return the ways to read this store, each of which is timed."""
        ways: list[Callable[[], object]] = [self.loaded, self.printed, self.written]
        if self.runs <= SEARCHED:
            ways.append(self.searched)
        if self.runs <= REPORTED and isinstance(self.store.address.tables, Path):
            ways.append(self.reported)
        return ways


def measured(kind: str, stores: Sequence[Filled]) -> Iterator[dict[str, object]]:
    """Read each store in each way, in turns, so that a disturbance affects small and large stores alike."""
    found = {store.runs: store.searched() for store in stores}
    for store in stores:
        store.loaded()  # the first call initializes libraries
    seconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    memory: dict[int, list[float]] = defaultdict(list)
    for _ in range(TIMES):
        for store in stores:
            for read in store.ways():
                begin = time.perf_counter()
                got = read()
                seconds[store.runs, read.__name__].append(time.perf_counter() - begin)
                if isinstance(got, float):
                    memory[store.runs].append(got)
    for store in stores:
        taken = {way: seconds[store.runs, way] for way in ("searched", "loaded", "printed", "written", "reported")}
        yield {
            "store": kind, "runs": store.runs, "metrics": len(METRICS), "parameters": PARAMETERS,
            **{f"{way}_seconds": median(each) if each else nan for way, each in taken.items()},
            "reported_mib": max(memory[store.runs], default=nan),
            "equal": equal(store.store.rows("all"), found[store.runs]),
        }  # fmt: skip


def equal(rows: list[Row], found: pd.DataFrame) -> bool:
    """Whether rows, oldest first, have exactly the values of `mlflow.search_runs`, digit for digit."""
    names = {"run_id": "run_id", "status": "status", **{f"tags.{name}": name for name in _of_tags(rows)}}
    for kind in ("metrics", "params"):
        names |= {name: name.partition(".")[2] for name in found.columns if name.startswith(f"{kind}.")}
    expected = found[::-1].reset_index(drop=True).reindex(columns=list(names)).rename(columns=names)
    given = pd.DataFrame([dict(row) for row in rows]).dropna(axis="columns", how="all")
    if set(given.columns) != set(expected.dropna(axis="columns", how="all").columns):
        return False
    return all(_same(given[name], expected[name]) for name in given.columns)


def _of_tags(rows: list[Row]) -> list[str]:
    taken = {*METRICS, "run_id", "status"}
    return [name for name in rows[0] if name not in taken and "." not in name]


def _same(given: pd.Series, expected: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(given):  # search_runs has the numbers among the tags as text
        expected = pd.to_numeric(expected)
    return bool((given.eq(expected) | (given.isna() & expected.isna())).all())


def published_table(table: pd.DataFrame) -> str:
    """Return the table of benchmarks.reading; a store that was not read in some way has an empty cell."""
    table = table.reindex(columns=[*dict.fromkeys([*table.columns, *MEASURED])])  # an earlier version measured less
    table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in MEASURED})
    ratio = table["searched_seconds"] / table["loaded_seconds"]
    shown = pd.DataFrame(
        {
            "store": table["store"],
            "runs": [f"{runs:,}" for runs in table["runs"]],
            "`mlflow.search_runs`, s": [_seconds(value, 2) for value in table["searched_seconds"]],
            "`compare.load`, s": [f"{value:.2f}" for value in table["loaded_seconds"]],
            "times faster": [_seconds(value) for value in ratio],
            "equal values": ["yes" if true(value) else "no" for value in table["equal"]],
            "`experiments.compare --sweep all`, s": [f"{value:.1f}" for value in table["printed_seconds"]],
            "with `--csv`, s": [_seconds(value) for value in table["written_seconds"]],
            "with `--out report.html`, s": [_seconds(value) for value in table["reported_seconds"]],
            "its memory, MiB": [_seconds(value, 0) for value in table["reported_mib"]],
        }
    )
    return markdown(shown)


def _seconds(value: float, digits: int = 1) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def failures(table: pd.DataFrame) -> list[str]:
    """Return stores that are read too slowly or wrongly, and kinds of stores whose time is not linear in the runs."""
    slow = [
        f"{row['store']}, {row['runs']:,} runs: read in {row['loaded_seconds']:.1f} s"
        for row in table.to_dict("records")
        if row["loaded_seconds"] > READ_AT_MOST * max(1.0, row["runs"] / READ_RUNS)
    ]
    limits = (
        ("written_seconds", WRITTEN_AT_MOST, WRITTEN_RUNS, "s"),
        ("reported_seconds", REPORTED_AT_MOST, REPORTED_RUNS, "s"),
        ("reported_mib", REPORTED_MIB, REPORTED_RUNS, "MiB"),
    )
    for column, at_most, runs, unit in limits:
        over = table[(table["runs"] <= runs) & (table[column] > at_most)]
        slow += [
            f"{row['store']}, {row['runs']:,} runs: {column} {row[column]:.1f} {unit}" for _, row in over.iterrows()
        ]
    for way in ("loaded_seconds", "printed_seconds", "written_seconds", "reported_seconds"):
        each = (
            table.assign(each=table[way] / table["runs"])
            .dropna(subset="each")
            .sort_values("runs")
            .groupby("store", sort=False)["each"]
        )
        slow += [f"{store}: {way} grow faster than the runs" for store, of in each if _grows(of.tolist())]
    unequal = table[~table["equal"].map(true)]
    return slow + [f"{row['store']}, {row['runs']:,} runs: unequal" for row in unequal.to_dict("records")]


def _grows(each: list[float]) -> bool:
    """Whether the time per run grows with the number of runs; the shared start makes it shrink."""
    return any(later > GROWTH_OF_READING * earlier for earlier, later in pairwise(each))


BENCHMARK = Benchmark(
    name="reading",
    title="Speed of reading many runs",
    minutes=15,
    tables=(own("reading", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    sizes = QUICK_SIZES if asked.quick else SIZES
    rows: list[dict[str, object]] = []
    with sweeps.fresh_folder() as folder:
        for kind, address in databases():
            stores = [Filled.at(address(folder, runs), runs) for runs in sizes]
            say(f"{kind}: filled")
            rows += measured(kind, stores)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
