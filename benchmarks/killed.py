"""Sweeps killed at chosen writes, then run again: `python -m benchmarks.killed`.

A small sweep is run without interruption, and every change that it makes to its store, its cache and its artifacts is
counted. Then the same sweep is started in new folders and killed with SIGKILL at chosen ones of these changes: while it
makes the store, within commits, while it writes the cache, while it writes artifacts; before a write, with half of its
bytes written, or after it. The places are spread evenly over all changes of their kind. Others are killed at random
moments, also while nothing is written. Each start that is killed is followed by the next, which goes on in the same
folder and is killed in its turn, until the last goes on to the end.

That one must end with 0 and show the table of the uninterrupted sweep, digit for digit, with no two finished runs of
the same key, no run or sweep left RUNNING and no model left PENDING. No process may be alive ten seconds after a kill,
and nothing may lie in the folder or among the temporary files that the uninterrupted sweep does not leave there: no
lock, journal, socket, half-written file or temporary folder. A kill takes the sweep's own process and the one that
writes. Writes benchmarks/results/killed/, a row a folder; a benchmark that is stopped goes on from there.
"""

import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import psutil

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.kill_at_write import KillAtWrite, When, build, changes
from benchmarks.harness.markdown import filled, markdown, true
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.system.errors import UserError
from experiments.system.progress import say
from experiments.tracking import Tracking
from experiments.tracking.creation import ensure_database

if TYPE_CHECKING:
    from mlflow.entities import Run

AGREEING = ("keras_accuracy", "tflite_accuracy", "tflite_bytes")  # columns that no interruption may change
PLACES = {
    "creation": "while the store was created",
    "commit": "within commits",
    "cache": "while the cache was written",
    "artifact": "while artifacts were written",
    "moment": "at a random moment",
}
Place = Literal["creation", "commit", "cache", "artifact", "moment"]
# The files whose changes count at each place, in the folder of a sweep; a moment is a time.
FILES: dict[Place, tuple[str, ...]] = {
    "creation": ("mlflow.db.partial*",),
    "cache": ("cache/*",),
    "artifact": ("mlruns/*",),
    "commit": ("mlflow.db", "mlflow.db-*"),
    "moment": (),
}
KILLS: dict[Place, int] = {"creation": 14, "cache": 12, "artifact": 12, "commit": 26, "moment": 7}
EARLY = 0.45  # of all changes, those before the first of the two runs is finished
CREATIONS_A_FOLDER = 2  # kills while the store is created, which starts over each time
WHEN: tuple[When, ...] = ("before", "within", "after")
PATIENCE = 10.0  # seconds in which orphans must end
IMAGES, TEMPORARY = "images.npz", "tmp"
OVERRIDES = (
    "strategy=none,ptq_dynamic", "model=mlp", "dataset=npz", f"dataset.path={IMAGES}", "training.batch_size=50",
    "latency.seconds=0.1",
)  # fmt: skip
UNFINISHED = "unfinished.jsonl"  # results of an interrupted benchmark


@dataclass(frozen=True)
class Kill:
    """The moment at which a start of a sweep is killed."""

    place: Place
    at: float  # the number of a change there, from 1; for a moment, the seconds since the start
    when: When = "before"  # or within or after that change

    def __str__(self) -> str:
        return f"moment {self.at:.1f} s" if self.place == "moment" else f"{self.place} {self.at:.0f} {self.when}"


@dataclass(frozen=True)
class Outcome:
    """The result of the sweep in one folder."""

    sweep: int
    kills: int
    killed_at: str
    creation: int  # of these kills, those at that place
    commit: int
    cache: int
    artifact: int
    moment: int
    gone_after_seconds: float  # from a kill until the last child was gone, the longest
    survivors: int  # processes alive ten seconds after a kill
    exit_code: int  # of the last start
    seconds: float  # of the last start
    same_table: bool
    duplicates: int
    running: int
    pending_models: int
    left_behind: str  # files that the uninterrupted sweep does not leave

    @property
    def is_well(self) -> bool:
        """Whether the results equal those without interruption."""
        odd = self.duplicates or self.running or self.survivors or self.pending_models or self.left_behind
        return self.exit_code == 0 and self.same_table and not odd


@dataclass(frozen=True)
class Undisturbed:
    """The sweep without interruption."""

    table: pd.DataFrame
    seconds: float
    counts: dict[Place, int]  # changes at each place
    left: frozenset[str]  # kinds of files that it leaves
    empty_store: Path


def undisturbed(library: Path, place: Path, overrides: Sequence[str]) -> Undisturbed:
    """Run the sweep, and count its changes of files."""
    folder, counting = new_folder(), sweeps.new_folder()
    watch = KillAtWrite(library, _patterns(folder, *FILES), log=counting / "log", counter=counting / "count")
    started = time.perf_counter()
    code = sweeps.start(folder, overrides, more=_environment(folder, watch)).wait()
    seconds = time.perf_counter() - started
    if code != 0:
        raise UserError(f"The uninterrupted sweep ended with {code}: {folder / sweeps.LOG}.")
    paths = [str(change.path) for change in changes(counting / "log")]
    counts = {
        place: sum(any(fnmatch(path, pattern) for pattern in _patterns(folder, place)) for path in paths)
        for place in FILES
    }
    empty = place / "mlflow.db"
    with ensure_database(Tracking(uri=f"sqlite:///{empty}"), empty, create=True):
        pass
    found = Undisturbed(essence(sweeps.table(folder)), seconds, counts, kinds_left(folder), empty)
    for each in (folder, counting):
        sweeps.discard(each)
    return found


def plan(counts: Mapping[Place, int], kills: Mapping[Place, int], seconds: float, seed: int) -> list[list[Kill]]:
    """Return the kills of each folder: at each place spread evenly over its changes, at random within each part.

    What is done is not done again, so a late change comes to happen but once in a folder: it is the last kill there.
    """
    rng = np.random.default_rng(seed)
    made: dict[Place, list[Kill]] = {}
    early, late = [], []
    for place, number in kills.items():
        length = seconds if place == "moment" else counts[place]
        drawn = [float(length * (part + rng.random()) / number) for part in range(number)]
        at = drawn if place == "moment" else [float(int(each) + 1) for each in drawn]
        queue = [Kill(place, each, WHEN[i % len(WHEN)]) for i, each in enumerate(at)]
        made[place] = [queue[i] for i in rng.permutation(number)]
        if place in ("cache", "artifact", "commit"):
            early += [kill for kill in made[place] if kill.at <= EARLY * length]
            late += [kill for kill in made[place] if kill.at > EARLY * length]
    folders: list[list[Kill]] = [[] for _ in late]
    for i, kill in enumerate(made["creation"]):
        folders[i // CREATIONS_A_FOLDER].append(kill)
    for i, kill in enumerate([*made["moment"], *(early[j] for j in rng.permutation(len(early)))]):
        folders[-1 - i % len(folders)].append(kill)
    for folder, j in zip(folders, rng.permutation(len(late)), strict=True):
        folder.append(late[j])
    return folders


def killed(
    number: int, kills: Sequence[Kill], expected: Undisturbed, library: Path, overrides: Sequence[str]
) -> list[Outcome]:
    """Kill a sweep at these changes, then let it finish; a change that it does not reach is tried in a new folder.

    A folder is kept if its results deviate.
    """
    outcomes, left = [], list(kills)
    while left:
        folder = new_folder()
        if left[0].place != "creation":  # a store without runs, created before, since that takes longest
            copyfile(expected.empty_store, folder / "mlflow.db")
        done, gone, survivors, code = [], 0.0, 0, 0
        while left and (code := _started(folder, left[0], library, overrides)) == -signal.SIGKILL:
            done.append(left.pop(0))
            alive, seconds = _orphans(folder)
            gone, survivors = max(gone, seconds), survivors + alive
        if not done and code == 0:  # even the first start does not reach it
            say(f"never came to {left.pop(0)}")
            sweeps.discard(folder)
            continue
        outcome = _outcome(number, done, gone, survivors, folder, expected, overrides)
        if code not in (0, -signal.SIGKILL):  # the start failed before it was killed
            outcome, left = replace(outcome, exit_code=code), []
        outcomes.append(outcome)
        say(f"{'well' if outcome.is_well else f'DEVIATES, kept in {folder}'}: {outcome}")
        if outcome.is_well:
            sweeps.discard(folder)
    return outcomes


def _started(folder: Path, kill: Kill, library: Path, overrides: Sequence[str]) -> int:
    """Start the sweep, which kills itself, and return its exit code: 0 if it does not reach the change."""
    if kill.place == "moment":
        return _killed_after(kill.at, sweeps.start(folder, overrides, more=_environment(folder)))
    counter = sweeps.new_folder()
    watch = KillAtWrite(
        library, _patterns(folder, kill.place), int(kill.at), kill.when, whom="first", counter=counter / "count"
    )
    try:
        return sweeps.start(folder, overrides, more=_environment(folder, watch)).wait()
    finally:
        sweeps.discard(counter)


def _outcome(
    number: int,
    done: Sequence[Kill],
    gone: float,
    survivors: int,
    folder: Path,
    expected: Undisturbed,
    overrides: Sequence[str],
) -> Outcome:
    started = time.perf_counter()
    code = sweeps.start(folder, overrides, more=_environment(folder)).wait()
    seconds = time.perf_counter() - started
    at = Counter(kill.place for kill in done)
    return Outcome(
        sweep=number,
        kills=len(done),
        killed_at="; ".join(map(str, done)),
        **{place: at[place] for place in FILES},
        gone_after_seconds=round(gone, 2),
        survivors=survivors,
        exit_code=code,
        seconds=round(seconds, 2),
        same_table=code == 0 and essence(sweeps.table(folder)).equals(expected.table),
        duplicates=_duplicates(folder),
        running=len(_found(folder, "attributes.status = 'RUNNING'")),
        pending_models=_pending_models(folder),
        left_behind=" ".join(sorted(kinds_left(folder) - expected.left)),
    )


def new_folder() -> Path:
    """Create a folder with small training images and a folder for temporary files."""
    folder = sweeps.new_folder()
    (folder / TEMPORARY).mkdir()
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 2, 200), "test": rng.integers(0, 2, 100)}
    arrays = {f"x_{part}": rng.integers(0, 128, (len(y), 8, 8), np.uint8) for part, y in labels.items()}
    for part, y in labels.items():
        arrays[f"x_{part}"] += (127 * y[:, None, None]).astype(np.uint8)
    np.savez(folder / IMAGES, allow_pickle=False, **arrays, **{f"y_{part}": y for part, y in labels.items()})
    return folder


def _environment(folder: Path, watch: KillAtWrite | None = None) -> dict[str, str]:
    return {**(watch.environment({}) if watch else {}), "TMPDIR": str(folder / TEMPORARY)}


def _patterns(folder: Path, *places: Place) -> tuple[str, ...]:
    return tuple(f"{folder}/{pattern}" for place in places for pattern in FILES[place])


def kinds_left(folder: Path) -> frozenset[str]:
    """Return the paths of a sweep's files and temporary files, without numbers and ids."""
    paths = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / "multirun")
    )
    kinds = (re.sub(r"[0-9a-f]{8,}|[0-9]+", "#", path) for path in paths)
    # A killed run may have fewer artifacts; only files that should have been removed count.
    return frozenset(kind for kind in kinds if not kind.startswith("mlruns/"))


def essence(table: pd.DataFrame) -> pd.DataFrame:
    """Return the part of a table that interruptions must not change, in full precision."""
    kept = table[["strategy", "finetune_epochs", "status", *AGREEING]]
    return kept.sort_values(["strategy", "finetune_epochs"]).astype(str).reset_index(drop=True)


def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> int:
    """Kill a process after some seconds unless it has ended, and return its exit code."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait()


def _orphans(folder: Path) -> tuple[int, float]:
    """Return how many processes of a killed sweep are alive after ten seconds, and when the last one ended."""
    started = time.perf_counter()
    while (left := _marked(folder)) and time.perf_counter() - started < PATIENCE:
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    for process in left:
        say(f"still alive {seconds:.0f} s after its sweep was killed: {_described(process)}")
        process.kill()
    return len(left), seconds


def _marked(folder: Path) -> list[psutil.Process]:
    """Return the processes that a sweep in this folder has started."""
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
    """Return the number of finished runs that repeat a key."""
    finished = _found(folder, "tags.kind = 'run' and attributes.status = 'FINISHED'")
    return sum(count - 1 for count in Counter(run.data.tags["run_key"] for run in finished).values())


def _found(folder: Path, query: str) -> "list[Run]":
    """Return the runs in the folder's store; none if the last start failed before it created a store."""
    return sweeps.store(folder).find(query) if (folder / "mlflow.db").exists() else []


def _pending_models(folder: Path) -> int:
    """Return the number of pending models."""
    if not (folder / "mlflow.db").exists():
        return 0
    kept = sweeps.store(folder)
    return sum(model.status == "PENDING" for model in kept.client.search_logged_models([kept.experiment_id]))


def _known(path: Path, commit: str) -> dict[int, list[Outcome]]:
    """Return earlier results of this benchmark with the same code, by folder of the plan."""
    found: dict[int, list[Outcome]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        if record["commit"] == commit:
            found[record["sweep"]] = [Outcome(**outcome) for outcome in record["outcomes"]]
    return found


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = {
        "kills": table["kills"].sum(),
        **{f"of them {where}": table[place].sum() for place, where in PLACES.items()},
        "sweeps, most of them killed several times": len(table),
        "sweeps that succeeded in the end": (table["exit_code"] == 0).sum(),
        "sweeps with the same accuracies and bytes": table["same_table"].map(true).sum(),
        "runs recorded twice": table["duplicates"].sum(),
        "runs left RUNNING": table["running"].sum(),
        "models left PENDING": table["pending_models"].sum(),
        "files, locks or temporary folders left behind": filled(table["left_behind"]).sum(),
        "processes alive 10 s after a kill": table["survivors"].sum(),
        "last process gone after": f"{table['gone_after_seconds'].max():.1f} s",
    }
    return markdown(pd.DataFrame({"": list(shown), "count": [str(value) for value in shown.values()]}))


BENCHMARK = Benchmark(
    name="killed",
    title="Sweeps killed at chosen writes, then run again",
    minutes=20,
    tables=(own("killed", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the random places and moments (default: 0)")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="sweeps side by side (default: 2)")
    asked = parser.parse_args()
    results = Results(BENCHMARK)
    with TemporaryDirectory(prefix="library-") as place:
        library = build(Path(place))
        expected = undisturbed(library, Path(place), OVERRIDES)
        say(f"without interruption: {expected.seconds:.1f} s, {len(expected.table)} runs, changes: {expected.counts}")
        folders = plan(expected.counts, KILLS, 0.8 * expected.seconds, asked.seed)  # most start with a store
        numbered = list(enumerate(folders[:1] if asked.quick else folders, start=1))
        unfinished = results.folder / UNFINISHED
        known = {} if asked.quick else _known(unfinished, results.stamp["git_commit"])

        def one(number: int, kills: Sequence[Kill]) -> list[Outcome]:
            if number in known:
                return known[number]
            outcomes = killed(number, kills, expected, library, OVERRIDES)
            if not asked.quick:
                record = {"commit": results.stamp["git_commit"], "sweep": number, "outcomes": [*map(asdict, outcomes)]}
                with unfinished.open("a") as file:
                    file.write(f"{json.dumps(record)}\n")
            return outcomes

        with ThreadPoolExecutor(asked.at_once) as pool:
            outcomes = [outcome for some in pool.map(lambda pair: one(*pair), numbered) for outcome in some]
    unfinished.unlink(missing_ok=True)
    table = pd.DataFrame([asdict(outcome) for outcome in outcomes])
    table = table.assign(uninterrupted_seconds=round(expected.seconds, 2))
    deviating = [str(outcome.sweep) for outcome in outcomes if not outcome.is_well]
    failures = [f"sweeps that deviate: {', '.join(deviating)}"] if deviating else []
    results.finish(table, asked.quick, failures, sweeps.command(OVERRIDES), {"uninterrupted.csv": expected.table})


if __name__ == "__main__":
    main()
