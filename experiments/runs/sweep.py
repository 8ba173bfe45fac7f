"""Hydra callbacks around a sweep: check every job's configuration, open the parent run, compare at the end."""

import atexit
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, NoReturn, ParamSpec

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.comparison.choices import answer_lines, recommended
from experiments.comparison.columns import frame, without_internal_columns
from experiments.comparison.compared import Comparison
from experiments.comparison.files import records
from experiments.comparison.loading import show_and_write
from experiments.comparison.names import names
from experiments.comparison.saving import command_to_save
from experiments.comparison.summary import summary
from experiments.report.page import illustrate
from experiments.runs.command_line import count_jobs
from experiments.runs.composition import Composer
from experiments.runs.configuration import Request, explaining_errors, read
from experiments.runs.experiment import Experiment
from experiments.runs.forecast import FINISHING, Schedule
from experiments.runs.launchers import check_launcher, threads_per_job
from experiments.runs.plan import ENDED, STARTED, Follower, open_existing, plan, show
from experiments.runs.refusals import explain
from experiments.runs.rounds import LOCAL, complete_rounds
from experiments.runs.worker import check_in_process, preload
from experiments.system.disk import check_writable, explain_os_error
from experiments.system.errors import Ended, UserError
from experiments.system.escaping import escape_control, markdown_text
from experiments.system.machine import usable_cores
from experiments.system.program import program
from experiments.system.progress import (
    advance,
    bar,
    expect,
    flush,
    format_duration,
    listen,
    report,
    say,
    say_wrapped,
    shown_here,
    warn,
)
from experiments.system.silence import ignore_schemas_of_launchers
from experiments.system.stamp import stamp, typed_command
from experiments.system.stopping import is_stopped, raise_if_stopped, stop_handled
from experiments.system.temporary import temporary_folder, user_folder
from experiments.tracking import REUSED, Row, Status, Store, Tracking, check_answer, connect
from hydra_plugins.checked_sweeper import CheckedSweeper

P = ParamSpec("P")
SWEEP_BAR = "Sweep"
FIRST = ("on_run_start", "on_multirun_start")  # hooks before anything is run
ANNOUNCED_FROM = 20  # from this number of jobs on, the configuration check is announced


def _ends_sweep_on_error(hook: Callable[P, None]) -> Callable[P, None]:
    """Let a hook's error end the sweep: Hydra would turn it into a warning and continue."""

    @wraps(hook)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        raise_if_stopped()
        try:
            hook(*args, **kwargs)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            sys.stderr.write(f"{escape_control(explain(error))}\n")
            raise Ended(2 if hook.__name__ in FIRST else 1, explain(error)) from error  # 2: nothing was run
        except Exception:  # noqa: BLE001  # any error is shown and fails the sweep
            traceback.print_exc()
            sys.exit(1)

    return wrapped


class SweepCallback(Callback):  # type: ignore[misc]  # Hydra ships no types
    """Hydra's hooks around a sweep and its jobs."""

    dry_run: ClassVar[bool] = False  # whether to show the plan and do nothing
    document: ClassVar[dict[str, Any]] = {}  # the result for --json

    def __init__(self, jobs: Sequence[Sequence[str]] = ()) -> None:
        ignore_schemas_of_launchers()  # a launcher's process composes its jobs after this callback has reached it
        self._open = ExitStack()
        self._store: Store | None = None
        self._sweep = ""
        self._jobs = jobs  # the overrides of each
        self._ended = False
        self._together: Experiment | None = None  # how to time the runs together
        self._modules: frozenset[str] = frozenset()  # of the data sets of the runs
        self._resume = True

    def __reduce__(self) -> tuple[type["SweepCallback"], tuple[Sequence[Sequence[str]]]]:
        """Launchers send the callback to the worker processes, where it reports the start and end of each job."""
        return SweepCallback, (self._jobs,)

    @_ends_sweep_on_error
    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the configuration of a single run before Hydra creates its folder."""
        settings = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        with explaining_errors():
            request = read(settings, config.hydra.runtime.choices)
        request.experiment.check()
        if self.dry_run:
            self._show_and_quit([request])
        check_folder("hydra.run.dir", config.hydra.run.dir)
        request.experiment.cache.check()
        check_answer(request.tracking)
        check_model_files([request.experiment])

    @_ends_sweep_on_error
    def on_multirun_start(self, config: DictConfig, config_name: str, **_: Any) -> None:
        """Check the configuration of every job, open the parent run, and pass its id to the jobs."""
        check_launcher(config.hydra.launcher)
        with explaining_errors():
            self._jobs = _jobs_of(config)
        if self.dry_run:
            requests = _requests(self._jobs, Composer(config_name, _unresolved(config.hydra.overrides.hydra)))
            check_same_store([request.tracking for request in requests])
            if config.hydra.runtime.choices["hydra/launcher"] in LOCAL:
                check_inputs([request.experiment for request in requests])
            self._show_and_quit(requests)
        self._open.enter_context(shown_here())
        atexit.register(self._open.close)  # also when the sweep ends early
        requests = _requests(self._jobs, Composer(config_name, _unresolved(config.hydra.overrides.hydra)))
        check_same_store([request.tracking for request in requests])
        check_folder("hydra.sweep.dir", config.hydra.sweep.dir)
        if config.hydra.runtime.choices["hydra/launcher"] in LOCAL:  # other nodes have their own files and cores
            check_inputs([request.experiment for request in requests])
            requests[0].experiment.cache.check()
            requests[0].experiment.cache.remove_leftovers()
            self._together = max(
                (request.experiment for request in requests),
                key=lambda each: (each.latency.rounds, each.latency.seconds),
            )
            self._modules = frozenset().union(*(request.experiment.modules for request in requests))
            self._resume = all(request.resume for request in requests)
        if config.hydra.runtime.choices["hydra/launcher"] == "basic":  # other launchers start their own processes
            preload(shared_modules([request.experiment for request in requests]))
        if config.hydra.runtime.choices["hydra/launcher"] in LOCAL:
            check_model_files([request.experiment for request in requests])
        self._store = connect(requests[0].tracking)
        atexit.register(self._close_early)
        self._store.close_orphans()
        self._store.reserve_space()
        name = f"sweep {' '.join(config.hydra.overrides.task)}".strip()[:250]
        self._sweep = self._store.open_sweep(name, {**stamp(), "command": typed_command()})
        asked = [request.parameters["threads"] for request in requests]
        threads = threads_per_job(config.hydra.launcher, asked, usable_cores())
        with open_dict(config):
            config.hydra.overrides.task.append(f"sweep={self._sweep}")
            if threads:
                config.hydra.overrides.task.append(f"threads={threads}")
        found = plan(requests, self._store)
        say_wrapped(found.summary)
        schedule = Schedule(found.works, found.costs, found.afterwards if self._together else FINISHING)
        listen(SWEEP_BAR, Follower(schedule, len(self._jobs)))
        self._open.enter_context(bar(SWEEP_BAR, total=len(self._jobs), name=SWEEP_BAR))
        expect(SWEEP_BAR, schedule.left)

    @_ends_sweep_on_error
    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Print a line for the job that starts."""
        if config.hydra.mode == RunMode.MULTIRUN and self._jobs:
            number = int(config.hydra.job.num)
            common = set.intersection(*map(set, self._jobs)) if len(self._jobs) > 1 else set()
            own = [override for override in self._jobs[number] if override not in common]
            say(f"{number + 1}/{len(self._jobs)} {' '.join(own)}")
            report(SWEEP_BAR, STARTED, number)

    @_ends_sweep_on_error
    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Report the end of a job, with its row, and advance the progress bar of the sweep."""
        if config.hydra.mode == RunMode.MULTIRUN:
            row = job_return.return_value if job_return.status == JobStatus.COMPLETED else None
            report(SWEEP_BAR, ENDED, int(config.hydra.job.num), row)
        advance(SWEEP_BAR, 1)
        flush()

    @_ends_sweep_on_error
    def on_multirun_end(self, **_: Any) -> None:
        """Show the comparison, store it with the parent run, and list failures: with any, the exit code is 1."""
        self._open.close()
        assert self._store is not None
        self._store.release_space()
        self._store.close_unfinished(self._sweep)
        rows = self._time_together(self._store.rows(self._sweep))
        recorded = self._store.jobs(self._sweep)
        lost = [overrides for number, overrides in enumerate(self._jobs) if number not in recorded]
        failed = [row for row in rows if row["status"] != "FINISHED"]
        unverified = [row for row in rows if row["verified"] == "false"]
        run_names = _names_of(rows)
        comparison = None
        try:
            if rows:
                comparison = self._compare(rows)
        finally:
            _print_list(
                f"{len(failed)} of {len(rows)} runs failed:",
                [_run_line(row, run_names, row["error"] or row["status"]) for row in failed],
            )
            _print_list(
                f"{len(lost)} of {len(self._jobs)} jobs recorded no run:", [" ".join(overrides) for overrides in lost]
            )
            _print_list(
                "Files that do not match their strategy's expectation:",
                [_run_line(row, run_names, row["broken_promise"]) for row in unverified],
            )
        if comparison:
            self._store.summarize(self._sweep, *summary(comparison))
        view = self._store.save_view(self._sweep)
        self._store.close(self._sweep, "FAILED" if failed or lost else "FINISHED")
        self._ended = True
        if comparison:
            with self._attached_folder("pictures") as folder:
                illustrate(self._store, comparison, typed_command(), folder)
        self.document.update(
            {
                "sweep": self._sweep,
                "rows": records(without_internal_columns(comparison.runs)) if comparison else [],
                "answer": answer_lines(comparison) if comparison else [],
                "failed": [{"run_id": row["run_id"], "error": row["error"] or row["status"]} for row in failed],
                "not_recorded": [" ".join(overrides) for overrides in lost],
                "unverified": [{"run_id": row["run_id"], "error": row["broken_promise"]} for row in unverified],
                "mlflow": {"ui": self._store.ui_command, "page": self._store.page(self._sweep), "view": view},
            }
        )
        if comparison and len(recommended(comparison)) == 1:
            say(f"To write the recommended file: {command_to_save(self._store.address)}")
        say(f"In MLflow: {self._store.describe_page(self._sweep)}")
        say(f"Its runs as a table, best first: {view}")
        if failed or lost or unverified:
            sys.exit(1)

    def _show_and_quit(self, requests: Sequence[Request]) -> NoReturn:
        """Show the plan of these runs, and end without doing anything."""
        check_answer(requests[0].tracking)
        planned = plan(requests, open_existing(requests[0].tracking))
        show(planned)
        self.document["plan"] = planned.described
        sys.stdout.flush()
        sys.exit(0)

    def _time_together(self, rows: list[Row]) -> list[Row]:
        """Time the files of all finished runs together, and return the rows with these timings.

        Runs that were sent to other machines are timed there, each by its own job.
        """
        assert self._store is not None
        if not self._together:
            return rows
        try:
            complete_rounds(self._store, rows, self._together.latency, self._modules, reuse=self._resume)
        except (UserError, OSError) as error:  # the disk for temporary files may be full
            warn(f"The runs could not be timed together; each run keeps its own timing. {error}")
        return self._store.rows(self._sweep)

    def _compare(self, rows: Sequence[Row]) -> Comparison:
        """Show the comparison and store it with the parent run."""
        assert self._store is not None
        with self._attached_folder("comparison") as folder:
            comparison = show_and_write(self._store, rows, folder)
            say(training_totals(rows))
            answer = [f"**{markdown_text(line)}**" for line in answer_lines(comparison)]  # MLflow folds long texts
            table = (folder / "comparison.md").read_text(encoding="utf-8")
            self._store.describe(self._sweep, "\n\n".join([*answer, table]))
        return comparison

    @contextmanager
    def _attached_folder(self, what: str) -> Iterator[Path]:
        """Yield a folder whose files become artifacts of the parent run."""
        assert self._store is not None
        try:
            with temporary_folder(what) as folder:
                yield folder
                self._store.attach(self._sweep, folder)
        except OSError as error:
            reason = explain_os_error(error, user_folder())
            raise UserError(f"The {what} cannot be written ({reason}). Free space there, or set TMPDIR.") from error

    def _close_early(self) -> None:
        """Close a sweep that ends early, and the runs that its worker processes left open."""
        if self._ended or self._store is None:
            return
        status: Status = "KILLED" if is_stopped() else "FAILED"
        self._store.release_space()
        with suppress(UserError):  # the store is unavailable, which was reported; the next sweep closes the runs
            stop_handled()
            store = connect(self._store.address, create=False)  # fails at once instead of retrying for a minute
            if self._sweep:
                store.close_unfinished(self._sweep)
                store.close(self._sweep, status)
            store.close_own()


def shared_modules(experiments: Iterable[Experiment]) -> list[str]:
    """Return the modules that two or more of the runs need, so that they are loaded once."""
    needed = Counter(
        module for each in experiments for option in (each.dataset, each.strategy) for module in option.loads_once
    )
    return [module for module, runs in needed.items() if runs > 1]


def _names_of(rows: Sequence[Row]) -> Mapping[str, str]:
    """Return the display name of each run by its id; names include every setting in which the runs differ."""
    return dict(zip((row["run_id"] for row in rows), names(frame(rows)), strict=True)) if rows else {}


def _run_line(row: Row, run_names: Mapping[str, str], text: str) -> str:
    return f"{run_names[row['run_id']]} (run {row['run_id']}): {text}"


def _print_list(heading: str, items: Sequence[str]) -> None:
    """Print a list on standard error, if it has items."""
    if items:
        sys.stderr.write(escape_control("\n  ".join([heading, *items])) + "\n")


def check_same_store(places: Sequence[Tracking]) -> None:
    """Check that all jobs of a sweep use the same store as the sweep.

    Raises:
        UserError: their tracking settings differ.
    """
    found = dict.fromkeys(f"{place.shown} ({place.experiment})" for place in places)
    if len(found) > 1:
        raise UserError(
            f"tracking: a sweep requires one store for all of its runs, not {' and '.join(found)}. Start one sweep "
            "for each."
        )


def check_folder(setting: str, folder: object) -> None:
    """Check that Hydra can create the folder of a run or a sweep, where it writes the configuration.

    Raises:
        UserError: the folder is not writable.
    """
    try:
        check_writable(Path(str(folder)))
    except OSError as error:
        raise UserError(
            f"{setting}={folder}: the folder is not writable ({explain_os_error(error)}). Run in a writable "
            f"folder with free space, or set {setting}=FOLDER."
        ) from error


def training_totals(rows: Sequence[Row]) -> str:
    """Return a line with the epochs that the finished runs of a sweep trained, and those reused from earlier work."""
    finished = [row for row in rows if row["status"] == "FINISHED"]
    done = [row for row in finished if not row[REUSED]]
    found = [row for row in finished if row[REUSED]]
    trained = sum(row["epochs_trained"] for row in done)
    reused = sum(row["epochs_reused"] for row in done) + sum(
        row["epochs_trained"] + row["epochs_reused"] for row in found
    )
    saved = sum(row["train_seconds_reused"] for row in done) + sum(row["train_seconds"] for row in found)
    text = f"Epochs trained: {trained:.0f}; reused: {reused:.0f}, which saved {format_duration(saved)} of training."
    failed = len(rows) - len(finished)
    return f"{text} The {failed} failed runs are not counted." if failed else text


def _jobs_of(config: DictConfig) -> list[list[str]]:
    """Return the overrides of each job of the sweep, as the sweeper will split them.

    Raises:
        UserError: the sweep has no job, or too many.
    """
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*arguments, *_unresolved(config.hydra.overrides.task)])
    if not count_jobs(overrides):
        empty = [each.input_line for each in overrides if each.is_sweep_override() and not count_jobs([each])]
        raise UserError(
            f"{', '.join(empty)}: the sweep has no job, since the glob matches no option or the range is empty. For "
            f"the options, type {program('run')} --help."
        )
    (jobs,) = CheckedSweeper.split_arguments(overrides, max_batch_size=None)
    return list(jobs)


def _unresolved(overrides: ListConfig) -> list[str]:
    r"""Return overrides as Hydra passes them to its sweeper: unresolved, and with \${ kept as an escaped literal."""
    given = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(given, list)
    return given


def _requests(jobs: Sequence[Sequence[str]], composer: Composer) -> list[Request]:
    """Return the request of each job; raises UserError if one is invalid."""
    if len(jobs) >= ANNOUNCED_FROM:
        say(f"checking the configuration of {len(jobs):,} jobs")
    requests = []
    with bar("Checking", len(jobs)) as advance:
        for overrides in jobs:
            requests.append(composer.request(overrides))
            advance(1)
    return requests


def check_model_files(experiments: Sequence[Experiment]) -> None:
    """Load each model file once, with the data that it will get, before anything is run.

    Raises:
        UserError: a model cannot be loaded, or does not accept the data.
    """
    given = {(id(each.dataset), id(each.model)): each for each in experiments if each.model.given}
    for each in given.values():
        check_in_process(each)


def check_inputs(experiments: Sequence[Experiment]) -> None:
    """Check the inputs of the runs; a file that several runs share is checked and reported once."""
    seen: set[tuple[int, ...]] = set()
    for each in experiments:
        options = (id(each.dataset), id(each.model), id(each.latency), id(each.strategy))
        if options not in seen:
            seen.add(options)
            each.check()
