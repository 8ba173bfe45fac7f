"""Time TFLite files together: `python -m experiments.latency TARGET ...`.

All files are timed in the same process, in short blocks in random order, with a
second copy of the first file as a control (the sentinel); and again in further
rounds, spread over a minute, since a machine changes its state. The command
prints the latency of each file and the ratio of every pair with its 95 %
interval over rounds; p-values are adjusted for the number of pairs (Holm).

The rounds are added to every timed run that was measured on this machine, with
the same threads and kernels: its speedup in later tables is over all of its
rounds. The tables and samples are stored as the artifact latency_sessions/TIME/.

A TARGET is a .tflite file, the id of a run or a prefix of it, or a sweep (latest
or its id), which selects its finished runs. Runs are timed on test images of
their own data set, plain files on random images or on those of --dataset.

Exit codes: 0 success; 2 invalid command, or a file cannot be timed;
130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # the imports below take seconds

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import combinations
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from rich import box
from rich.table import Table

from experiments.comparison.display import shown_speed
from experiments.comparison.files import records, write_csv
from experiments.record.artifacts import read_or_none
from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.files import argument_path, check_regular
from experiments.system.options import describe_errors
from experiments.system.program import program
from experiments.system.progress import print_whole, say
from experiments.system.result import HELP, JSON, CommandParser, result
from experiments.system.temporary import temporary_folder
from experiments.tracking import Row, Store, Tracking, open_existing

if TYPE_CHECKING:
    from experiments.dataset import Images
    from experiments.measure.latency import LatencyProtocol, Session
    from experiments.measure.rounds import JointRounds
    from experiments.runs.rounds import RecordedRun, TestsOf
    from experiments.tflite.conversion import TFLiteModel

SECONDS_PER_FILE = 5.0
SIGNIFICANT = 0.05
MOST_PAIRS = 15  # pairs to print: those of six files; the CSV has every pair
PAIR_COLUMNS = ["file", "against", "speedup", "speedup_low", "speedup_high", "p_holm", "speed"]
RANDOM_IMAGES = 100
MOST_BYTES = 2**31  # of random images
RETRY_SECONDS = 0.1  # time limit of each file to find out which one fails


@dataclass(frozen=True)
class Candidate:
    """A file to time on these images (n, ...) float32, and its recorded run, if it has one."""

    name: str
    model: "TFLiteModel"
    images: "Images"
    run: Row | None = None
    recorded: "RecordedRun | None" = None  # what these rounds are added to, if it was timed under the same conditions


def main() -> None:
    """Run the command line."""
    arguments = parser()
    options = arguments.parse_args()
    with reporting_user_errors(), result("latency", options.json) as document:
        _check_used(arguments, options)
        store = _store(options)
        candidates = list(_candidates(options, store))
        references = _references(candidates)
        session = _time(candidates, options, references)
        pairs = pairs_table(session, {candidate.name: candidate.model.digest for candidate in candidates})
        files = files_table(candidates, session, pairs)
        show(files, pairs, session)
        document |= {"files": records(files), "pairs": records(pairs), "invalid": session.void}
        if store:
            _record(store, candidates, session, references, files, pairs)
        if options.csv:
            _write(options.csv, pairs)


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = CommandParser(
        prog=program("latency"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="latest, a sweep id, a run id, or a .tflite file")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument("--experiment", default=Tracking.experiment, help="MLflow experiment (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")
    parser.add_argument(
        "--delegate", default="xnnpack", help="xnnpack, or builtin: LiteRT's own kernels (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", type=float, default=0.01,
        help="end a round when half of every ratio's interval in it is at most this share (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, help=f"time limit of all rounds (default: {SECONDS_PER_FILE:g} per file)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing (default: %(default)s)")
    parser.add_argument(
        "--span", type=float, help="seconds over which rounds are spread (default: six times --seconds, at most 60)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random order (default: %(default)s)")
    parser.add_argument("--dataset", help="an option of conf/dataset: time plain files on its test examples")
    parser.add_argument(
        "--module", action="append", default=[], metavar="NAME",
        help="a module that you trust, which the data set of a recorded run may name; repeatable",
    )  # fmt: skip
    parser.add_argument("--csv", type=argument_path, metavar="FILE", help="write the ratio of every pair of files")
    parser.add_argument(JSON, action="store_true", help=HELP)
    return parser


def _is_file(target: str) -> bool:
    return target.endswith(".tflite")


def _check_used(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Reject options that would have no effect."""
    files = [_is_file(target) for target in options.targets]
    unused = {
        "dataset": "requires a .tflite file; recorded runs are timed on their own test examples"
        if not any(files)
        else "",
        **dict.fromkeys(("uri", "experiment", "module"), "requires a recorded run" if all(files) else ""),
    }
    for name, rule in unused.items():
        if rule and getattr(options, name) != parser.get_default(name):
            raise UserError(f"--{name}: {rule}. Omit --{name}.")


def _store(options: argparse.Namespace) -> Store | None:
    """Return the store of the runs; None if all targets are plain files."""
    if all(_is_file(target) for target in options.targets):
        return None
    return open_existing(options.uri, options.experiment)


def _candidates(options: argparse.Namespace, store: Store | None) -> Iterator[Candidate]:
    """Yield the files of the targets, each once."""
    from experiments.runs.rounds import load_tests_once

    seen, tests_of = set(), load_tests_once()
    for target in options.targets:
        for candidate in (
            [_load_plain(target, options, tests_of)]
            if store is None or _is_file(target)
            else _load_recorded(target, store, options.module, tests_of)
        ):
            identity = candidate.run["run_id"] if candidate.run else candidate.name
            if identity not in seen:
                seen.add(identity)
                extended = candidate.recorded and _extends(candidate.recorded, options)
                yield candidate if extended else replace(candidate, recorded=None)


def _load_plain(target: str, options: argparse.Namespace, tests_of: "TestsOf") -> Candidate:
    from experiments.dataset.named import together
    from experiments.runs.configuration import compose_request
    from experiments.runs.rounds import reshape
    from experiments.tflite.conversion import TFLiteModel
    from experiments.tflite.graph import inputs_of

    path = argument_path(target)
    check_regular(path, target)
    try:
        model = TFLiteModel(path.read_bytes())
        inputs = inputs_of(model.content)
        shapes = {name: _checked_shape(tensor) for name, tensor in inputs.items()}
    except OSError as error:
        raise UserError(f"{target}: cannot be read ({error.strerror}).") from error
    except UserError as error:
        raise UserError(f"{target}: {error}") from error
    if options.dataset:
        tests = tests_of(compose_request([f"dataset={options.dataset}"]).experiment.dataset, model)
        return Candidate(target, model, reshape(model, tests.images))
    rng = np.random.default_rng(options.seed)
    images = {name: rng.random((RANDOM_IMAGES, *shape), np.float32) for name, shape in shapes.items()}
    return Candidate(target, model, together(images) if len(images) > 1 else next(iter(images.values())))


def _checked_shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of one input image, after checking that RANDOM_IMAGES of them can be generated.

    Raises:
        UserError: the file's input is not an image, has no fixed size, or is too large for memory.
    """
    shape, dtype = tuple(tensor["shape"]), np.dtype(tensor["dtype"])
    if dtype.kind not in "iuf" or (dtype.kind in "iu" and not tensor["quantization"][0] > 0):
        raise UserError(f"The input is {dtype.name}; a timing requires float or quantized values.")
    if not shape or any(size < 1 for size in shape):
        raise UserError(f"The input shape {shape} is not fixed. Convert the model with a fixed shape.")
    if (needed := 4.0 * RANDOM_IMAGES * prod(map(float, shape[1:]))) > MOST_BYTES:
        raise UserError(
            f"The input shape {shape} is too large: {RANDOM_IMAGES} images take {needed / 2**30:,.0f} GiB, and at most "
            f"{MOST_BYTES / 2**30:.0f} GiB are allowed."
        )
    return shape[1:]


def _load_recorded(target: str, store: Store, modules: Sequence[str], tests_of: "TestsOf") -> Iterator[Candidate]:
    from experiments.runs.rounds import load_file, load_run

    def load(row: Row) -> Candidate:
        if recorded := load_run(store, row, modules, tests_of):
            return Candidate(_name(row), recorded.model, recorded.images, row, recorded)
        return Candidate(_name(row), *load_file(store, row, modules, tests_of), row)

    rows = store.select_runs(target)
    found = [load(row) if len(rows) == 1 else read_or_none(partial(load, row)) for row in rows]
    if not any(found):
        raise UserError(f"{target}: none of the {len(rows)} runs can be timed.")
    yield from filter(None, found)


def _name(row: Row) -> str:
    epochs = f"@{row['finetune_epochs']}" if row["finetune_epochs"] else ""
    return f"{row['strategy']}{epochs} {row['run_id'][:6]}"


def _references(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """Return the float files of the runs that rounds are added to, by digest; they are timed, but not shown."""
    runs = [each.recorded for each in candidates if each.recorded]
    return {
        run.reference.digest: Candidate(f"reference {run.reference.digest}", run.reference, run.images) for run in runs
    }


def _extends(recorded: "RecordedRun", options: argparse.Namespace) -> bool:
    """Whether rounds are added to a run: it was timed on this machine under the same conditions."""
    from experiments.runs.rounds import measured_here
    from experiments.system.stamp import stamp

    same_machine = recorded.row["machine"] == stamp()["machine"] and measured_here(recorded.rounds)
    return same_machine and recorded.rounds.conditions == (options.threads, options.delegate)


def _time(
    candidates: Sequence[Candidate], options: argparse.Namespace, references: Mapping[str, Candidate]
) -> "JointRounds":
    from experiments.measure.latency import LatencyProtocol, time_together
    from experiments.measure.rounds import JointRounds, moments
    from experiments.runs.rounds import check_shape

    for candidate in candidates:
        check_shape(candidate.name, candidate.model, candidate.images)
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: requires an integer of at least 0.")
    protocol = _protocol(LatencyProtocol, options, len(candidates))
    protocol.check()

    def time(some: Sequence[Candidate], protocol: LatencyProtocol, number: int = 0) -> "Session":
        return time_together(
            {each.name: each.model for each in some},
            {each.name: each.images for each in some},
            replace(protocol, seconds=protocol.seconds / protocol.rounds),
            list(combinations([each.name for each in some], 2)),
            options.seed + number,
        )

    everything = [*candidates, *references.values()]
    try:
        rounds = moments(protocol.rounds, protocol.span_seconds)
        return JointRounds(tuple(time(everything, protocol, number) for number in rounds))
    except UserError:
        for candidate in candidates:
            _name_failure(candidate, lambda single: time([single], replace(protocol, seconds=RETRY_SECONDS)))
        raise


def _name_failure(candidate: Candidate, time: "Callable[[Candidate], Session]") -> None:
    """Time a file alone, to raise an error that names the file that cannot be run."""
    try:
        time(candidate)
    except UserError as error:
        raise UserError(f"{candidate.name}: {error}") from error


def _protocol(kind: "type[LatencyProtocol]", options: argparse.Namespace, files: int) -> "LatencyProtocol":
    try:
        return kind(
            threads=options.threads,
            delegate=options.delegate,
            seconds=SECONDS_PER_FILE * files if options.seconds is None else options.seconds,
            precision=options.precision,
            rounds=options.rounds,
            span=options.span,
        )
    except ValidationError as error:
        raise UserError(describe_errors("", error)) from error


def files_table(candidates: Sequence[Candidate], session: "Session | JointRounds", pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per file with its latency; `speedup` is the latency of the first file divided by it."""
    first, rows = candidates[0].name, []
    speeds = pairs[pairs["against"] == first].set_index("file")["speed"]
    for candidate in candidates:
        timings, ratio = session.timings[candidate.name], session.ratio(first, candidate.name)
        rows.append(
            {
                "file": candidate.name,
                "bytes": candidate.model.bytes,
                "latency_p50_us": timings.percentile_us(50),
                "latency_p90_us": timings.percentile_us(90),
                "latency_p99_us": timings.percentile_us(99),
                "latency_min_us": timings.min_us,
                "latency_first_us": timings.first_us,
                "latency_load_us": timings.load_us,
                **ratio.columns("speedup"),
                "speed": speeds.get(candidate.name, ""),
                "latency_void": session.void,
            }
        )
    return pd.DataFrame(rows)


def pairs_table(session: "Session | JointRounds", digests: Mapping[str, str]) -> pd.DataFrame:
    """Return one row per pair of files with the speedup of the second one, its interval, p-value and verdict.

    Two files with the same digest are not tested: neither is faster, whatever the timings.
    """
    from experiments.measure.latency import SAME_FILE
    from experiments.statistics.estimates import holm

    pairs = list(combinations((name for name in session.timings if name in digests), 2))
    differing = [(one, other) for one, other in pairs if digests[one] != digests[other]]
    tested = holm(np.array([session.p_value(one, other) for one, other in differing]))
    adjusted = dict(zip(differing, tested, strict=True))
    rows = []
    for one, other in pairs:
        ratio = session.ratio(one, other)
        p = adjusted.get((one, other), 1.0)
        verdict = session.verdict(ratio) if (one, other) in adjusted else SAME_FILE
        insignificant = verdict in ("faster", "slower") and p >= SIGNIFICANT
        rows.append(
            {
                "file": other,
                "against": one,
                **ratio.columns("speedup"),
                "p_holm": float(p),
                "speed": "unclear" if insignificant else verdict,
            }
        )
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def show(files: pd.DataFrame, pairs: pd.DataFrame, session: "JointRounds") -> None:
    """Print both tables and a note on how to read them."""
    print_whole(_files_display(files))
    if 1 < len(pairs) <= MOST_PAIRS:
        print_whole(_pairs_display(pairs))
    elif len(pairs) > MOST_PAIRS:
        say(f"{len(pairs)} pairs are not shown. Type --csv FILE to write them.")
    say(_note(session))


def _files_display(files: pd.DataFrame) -> Table:
    display = _table(
        "file", "bytes", *(f"{what}\n(µs)" for what in ("p50", "p90", "p99", "min", "first", "load")), "speedup", ""
    )  # fmt: skip
    for row in files.itertuples():
        times = (getattr(row, f"latency_{what}_us") for what in ("p50", "p90", "p99", "min", "first", "load"))
        ratio = f"{row.speedup:.3f}x\n[{row.speedup_low:.3f}, {row.speedup_high:.3f}]"
        display.add_row(
            str(row.file),
            f"{row.bytes:,}",
            *(f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in times),
            ratio if row.speed else "1",
            shown_speed(row.speed),
        )
    return display


def _pairs_display(pairs: pd.DataFrame) -> Table:
    display = _table("file", "against", "speedup", "p (Holm)", "")
    for row in pairs.itertuples():
        ratio = f"{row.speedup:.3f}x [{row.speedup_low:.3f}, {row.speedup_high:.3f}]"
        display.add_row(str(row.file), str(row.against), ratio, f"{row.p_holm:.2g}", shown_speed(row.speed))
    return display


def _table(*headings: str) -> Table:
    display = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        display.add_column(heading, justify="left" if heading in ("file", "against", "") else "right", no_wrap=True)
    return display


def _note(session: "JointRounds") -> str:
    first, sentinel = next(iter(session.timings)), session.sentinel
    replicates = len(session.timings[first].medians)
    void = f"INVALID: {session.void}. " if session.void else ""
    return (
        f"{void}{len(session.sessions)} rounds, {replicates} replicates with new interpreters, {session.threads} "
        f"thread(s). [low, high]: 95 % interval over rounds. Sentinel, {first} against its own copy: "
        f"{sentinel.value:.3f}x [{sentinel.low:.3f}, {sentinel.high:.3f}]. Other processes used at most "
        f"{session.conditions.other_cores:.1f} of {session.conditions.cores} cores."
    )


def _write(path: Path, pairs: pd.DataFrame) -> None:
    try:
        write_csv(pairs, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    say(f"wrote {path}")


def _record(
    store: Store,
    candidates: Iterable[Candidate],
    session: "JointRounds",
    references: Mapping[str, Candidate],
    files: pd.DataFrame,
    pairs: pd.DataFrame,
) -> None:
    """Store the session with every timed run, and add its rounds to those timed under the same conditions."""
    from experiments.measure.rounds import Round
    from experiments.record.artifacts import save_samples
    from experiments.runs.rounds import add_rounds, log_rounds
    from experiments.system.stamp import stamp, this_machine

    name = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
    p50: Mapping[str, float] = dict(zip(files["file"], files["latency_p50_us"], strict=True))
    with temporary_folder("session") as folder:
        write_csv(files, folder / "files.csv")
        write_csv(pairs, folder / "pairs.csv")
        save_samples(folder / "samples.csv.gz", session)
        (folder / "stamp.json").write_text(json.dumps(dict(stamp()), indent=2))
        runs = [candidate for candidate in candidates if candidate.run]
        for candidate in runs:
            assert candidate.run is not None
            store.add_session(candidate.run["run_id"], name, folder, p50[candidate.name])
    say(f"recorded as artifact latency_sessions/{name}/ of {len(runs)} runs")
    extended = [each for each in runs if each.recorded]
    for candidate in extended:
        assert candidate.recorded is not None
        reference = references[candidate.recorded.reference.digest].name
        further = [Round.of(each, candidate.name, reference, this_machine()) for each in session.sessions]
        rounds = add_rounds(store, candidate.recorded.run_id, candidate.recorded.rounds, further)
        log_rounds(store, candidate.recorded.run_id, rounds)
    if extended:
        say(f"added {len(session.sessions)} rounds to the timing of {len(extended)} runs")


if __name__ == "__main__":
    main()
