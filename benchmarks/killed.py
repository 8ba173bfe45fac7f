"""Sweeps killed at random moments and run again: `python -m benchmarks.killed`; about 20 minutes on two cores.

A sweep is run without interruption. Then twenty times, each in a new folder without a store, the same sweep is started,
its process killed with SIGKILL at a moment that is drawn evenly from the time the uninterrupted one took, and started
again; that once or twice, the last start going on to the end. Each must then show the table of the uninterrupted
sweep, digit for digit, with no two finished runs of the same key and no run or sweep left RUNNING. Only the sweep's
own process is killed: its children have ten seconds to see it and go. Writes benchmarks/results/killed/, a row a sweep.
"""

import signal
import subprocess
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil

from benchmarks import sweeps
from benchmarks.results import Results, options
from benchmarks.tables.killed import AGREEING
from experiments.progress import say

if TYPE_CHECKING:
    from mlflow.entities import Run

SWEEPS, KILLS_AT_MOST = 20, 2
PATIENCE = 10.0  # seconds that orphans have
OVERRIDES = (
    "strategy=none,finetune,qat,annotate", "dataset=mnist", "dataset.train_samples=500",
    "dataset.test_samples=200", "training.batch_size=50", "epochs=2", "latency.seconds=0.3",
)  # fmt: skip
SMALL = ("strategy=none,finetune", "dataset=mnist", "dataset.train_samples=500", "dataset.test_samples=100",
         "training.batch_size=100", "epochs=1", "latency.seconds=0.3")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one sweep."""

    sweep: int
    kills: int
    killed_at_seconds: str  # since each start
    gone_after_seconds: float  # from a kill until the last child was gone, the longest
    survivors: int  # processes alive ten seconds after a kill
    exit_code: int  # of the last start
    seconds: float  # of the last start
    same_table: bool
    duplicates: int
    running: int

    @property
    def is_well(self) -> bool:
        """Whether nothing deviates."""
        return self.exit_code == 0 and self.same_table and not (self.duplicates or self.running or self.survivors)


def killed(
    number: int, expected: pd.DataFrame, duration: float, rng: np.random.Generator, overrides: tuple[str, ...]
) -> Outcome:
    """Kill a sweep once or twice, then run it to its end; the folder stays where something deviates."""
    folder = sweeps.new_folder()
    moments: list[float] = []
    gone, survivors = 0.0, 0
    kills = int(rng.integers(1, KILLS_AT_MOST + 1))
    while len(moments) < kills:
        moment = float(rng.uniform(0, duration))
        if _killed_after(moment, sweeps.start(folder, overrides)):
            moments.append(moment)
            left, seconds = _orphans(folder)
            gone, survivors = max(gone, seconds), survivors + left
        elif moments:  # what was left to do took less time than that: it is done
            break
        else:  # it was faster than the uninterrupted one: it has not been killed at all
            sweeps.discard(folder)
            folder = sweeps.new_folder()
    started = time.perf_counter()
    code = sweeps.start(folder, overrides).wait()
    seconds = time.perf_counter() - started
    outcome = Outcome(
        sweep=number,
        kills=len(moments),
        killed_at_seconds=" ".join(f"{moment:.1f}" for moment in moments),
        gone_after_seconds=round(gone, 2),
        survivors=survivors,
        exit_code=code,
        seconds=round(seconds, 2),
        same_table=code == 0 and essence(sweeps.table(folder)).equals(expected),
        duplicates=_duplicates(folder),
        running=len(_found(folder, "attributes.status = 'RUNNING'")),
    )
    if outcome.is_well:
        sweeps.discard(folder)
    else:
        say(f"kept, to see what happened: {folder}")
    return outcome


def essence(table: pd.DataFrame) -> pd.DataFrame:
    """The part of a table that no interruption may change, in full precision."""
    kept = table[["strategy", "finetune_epochs", "status", *AGREEING]]
    return kept.sort_values(["strategy", "finetune_epochs"]).astype(str).reset_index(drop=True)


def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> bool:
    """Kill a process after so many seconds; False where it has ended by itself before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    return False


def _orphans(folder: Path) -> tuple[int, float]:
    """How many processes of a killed sweep are still there after ten seconds, and when the last one went."""
    started = time.perf_counter()
    while (left := _marked(folder)) and time.perf_counter() - started < PATIENCE:
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    for process in left:
        say(f"still alive {seconds:.0f} s after its sweep was killed: {_described(process)}")
        process.kill()
    return len(left), seconds


def _marked(folder: Path) -> list[psutil.Process]:
    """The processes that a sweep in this folder has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(sweeps.MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone meanwhile, or of another user
            continue
    return found


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}, which has ended just now"


def _duplicates(folder: Path) -> int:
    """How many finished runs there are beyond the first of their key."""
    finished = _found(folder, "tags.kind = 'run' and attributes.status = 'FINISHED'")
    return sum(count - 1 for count in Counter(run.data.tags["run_key"] for run in finished).values())


def _found(folder: Path, query: str) -> "list[Run]":
    """Runs in the folder's store; none where the last start failed before there was a store."""
    return sweeps.store(folder).find(query) if (folder / "mlflow.db").exists() else []


def main() -> None:
    """Measure and write."""
    parser = options("benchmarks.killed", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    asked = parser.parse_args()
    results = Results("killed")
    overrides = SMALL if asked.quick else OVERRIDES
    with sweeps.fresh_folder() as folder:
        duration = sweeps.sweep(folder, overrides)
        expected = essence(sweeps.table(folder))
    say(f"without interruption: {duration:.1f} s, {len(expected)} runs")
    rng, outcomes = np.random.default_rng(asked.seed), []
    for number in range(1, 2 if asked.quick else SWEEPS + 1):
        outcome = killed(number, expected, duration, rng, overrides)
        outcomes.append(outcome)
        say(f"{'well' if outcome.is_well else 'DEVIATES'}: {outcome}")
    table = pd.DataFrame([asdict(outcome) for outcome in outcomes]).assign(uninterrupted_seconds=round(duration, 2))
    deviating = [str(outcome.sweep) for outcome in outcomes if not outcome.is_well]
    failures = [f"sweeps that deviate: {', '.join(deviating)}"] if deviating else []
    results.finish(table, asked.quick, failures, sweeps.command(overrides), {"uninterrupted.csv": expected})


if __name__ == "__main__":
    main()
