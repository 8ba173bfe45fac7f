"""What surrounds a sweep: every job's configuration checked first, the parent run, the comparison at the end."""

import atexit
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.comparison.columns import frame
from experiments.comparison.compared import Comparison
from experiments.comparison.loading import show_and_write
from experiments.comparison.names import names
from experiments.report.page import illustrate
from experiments.runs.command_line import count_of_jobs
from experiments.runs.composition import Composer
from experiments.runs.configuration import Request, configuration_explained, read
from experiments.runs.pipeline import Experiment
from experiments.runs.refusals import told
from experiments.runs.slurm import check_slurm
from experiments.runs.worker import check_apart, load_ahead
from experiments.system.disk import check_writable, explained
from experiments.system.errors import UserError
from experiments.system.escaping import visible
from experiments.system.machine import usable_cores
from experiments.system.progress import advance, bar, flush, say, shown_here
from experiments.system.stamp import stamp, typed
from experiments.system.stopping import is_stopped, raise_if_stopped, stop_handled
from experiments.system.temporary import own_folder, temporary_folder
from experiments.tracking import REUSED, Row, Status, Store, Tracking, check_answer, connect
from hydra_plugins.checked_sweeper import CheckedSweeper

P = ParamSpec("P")
SWEEP_BAR = "Sweep"
FIRST = ("on_run_start", "on_multirun_start")  # hooks before anything is run
MANY = 20  # jobs, whose check is announced
CLUSTER_PATIENCE = 5.0  # seconds
LOCAL = ("basic", "joblib")  # launchers whose jobs run on this machine
EXTRAS = {"hydra_ray_launcher": "ray", "hydra_submitit_launcher": "slurm"}  # what pip calls the plugins


def _decisive(hook: Callable[P, None]) -> Callable[P, None]:
    """Let a hook's error end the sweep: Hydra itself would turn it into a warning and go on."""

    @wraps(hook)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        raise_if_stopped()
        try:
            hook(*args, **kwargs)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            sys.stderr.write(f"{visible(told(error))}\n")
            sys.exit(2 if hook.__name__ in FIRST else 1)  # 2 says that nothing was run
        except Exception:  # noqa: BLE001  # whatever it is, it is shown, and the sweep has failed
            traceback.print_exc()
            sys.exit(1)

    return wrapped


class SweepCallback(Callback):  # type: ignore[misc]  # Hydra ships no types
    """Hydra's hooks around a sweep and its jobs."""

    def __init__(self, jobs: Sequence[Sequence[str]] = ()) -> None:
        self._open = ExitStack()
        self._store: Store | None = None
        self._sweep = ""
        self._jobs = jobs  # the overrides of each
        self._over = False

    def __reduce__(self) -> tuple[type["SweepCallback"], tuple[Sequence[Sequence[str]]]]:
        """Launchers send the callback to the processes of the jobs, where it tells which job begins and ends."""
        return SweepCallback, (self._jobs,)

    @_decisive
    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the configuration of a run that is no sweep's, before Hydra makes a folder for it."""
        settings = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        with configuration_explained():
            request = read(settings, config.hydra.runtime.choices)
        request.experiment.check()
        check_folder("hydra.run.dir", config.hydra.run.dir)
        request.experiment.cache.check()
        check_answer(request.tracking)
        check_given_models([request.experiment])

    @_decisive
    def on_multirun_start(self, config: DictConfig, config_name: str, **_: Any) -> None:
        """Check the configuration of every job, open the parent run, and tell the jobs its id."""
        check_launcher(config.hydra.launcher)
        with configuration_explained():
            self._jobs = _jobs_of(config)
        self._open.enter_context(shown_here())
        atexit.register(self._open.close)  # also when the sweep ends before its time
        requests = _requests(self._jobs, Composer(config_name, _as_given(config.hydra.overrides.hydra)))
        check_one_place([request.tracking for request in requests])
        check_folder("hydra.sweep.dir", config.hydra.sweep.dir)
        if config.hydra.runtime.choices["hydra/launcher"] in LOCAL:  # the files and cores of other nodes are theirs
            check_each_once([request.experiment for request in requests])
            requests[0].experiment.cache.check()
            requests[0].experiment.cache.remove_leftovers()
        if config.hydra.runtime.choices["hydra/launcher"] == "basic":  # others have processes of their own
            load_ahead(shared_modules([request.experiment for request in requests]))
        if config.hydra.runtime.choices["hydra/launcher"] in LOCAL:
            check_given_models([request.experiment for request in requests])
        self._store = connect(requests[0].tracking)
        atexit.register(self._close_if_early)
        self._store.close_orphans()
        self._store.reserve_room()
        name = f"sweep {' '.join(config.hydra.overrides.task)}".strip()[:250]
        self._sweep = self._store.open_sweep(name, {**stamp(), "command": typed()})
        asked = [request.parameters["threads"] for request in requests]
        threads = threads_of_a_job(config.hydra.launcher, asked, usable_cores())
        with open_dict(config):
            config.hydra.overrides.task.append(f"sweep={self._sweep}")
            if threads:
                config.hydra.overrides.task.append(f"threads={threads}")
        self._open.enter_context(bar(SWEEP_BAR, total=len(self._jobs), name=SWEEP_BAR))

    @_decisive
    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Say which job begins."""
        if config.hydra.mode == RunMode.MULTIRUN and self._jobs:
            number = int(config.hydra.job.num)
            common = set.intersection(*map(set, self._jobs)) if len(self._jobs) > 1 else set()
            own = [override for override in self._jobs[number] if override not in common]
            say(f"{number + 1}/{len(self._jobs)} {' '.join(own)}")

    @_decisive
    def on_job_end(self, **_: Any) -> None:
        """Move the bar of the sweep on."""
        advance(SWEEP_BAR, 1)
        flush()

    @_decisive
    def on_multirun_end(self, **_: Any) -> None:
        """Show the comparison, keep it with the parent run, and list what failed: then the exit code is 1."""
        self._open.close()
        assert self._store is not None
        self._store.give_room_back()
        self._store.close_unfinished(self._sweep)
        rows = self._store.rows(self._sweep)
        recorded = self._store.jobs(self._sweep)
        lost = [overrides for number, overrides in enumerate(self._jobs) if number not in recorded]
        failed = [row for row in rows if row["status"] != "FINISHED"]
        unverified = [row for row in rows if row["verified"] == "false"]
        called = _names_of(rows)
        comparison = None
        try:
            if rows:
                comparison = self._compare(rows)
        finally:
            _list(
                f"{len(failed)} of {len(rows)} runs failed:",
                [_told(row, called, row["error"] or row["status"]) for row in failed],
            )
            _list(f"{len(lost)} of {len(self._jobs)} jobs left no run:", [" ".join(overrides) for overrides in lost])
            _list(
                "Files that break their strategy's promise:",
                [_told(row, called, row["broken_promise"]) for row in unverified],
            )
        self._store.close(self._sweep, "FAILED" if failed or lost else "FINISHED")
        self._over = True
        if comparison:
            with self._attached("pictures") as folder:
                illustrate(self._store, comparison, typed(), folder)
        say(f"In MLflow: {self._store.browse(self._sweep)}")
        if failed or lost or unverified:
            sys.exit(1)

    def _compare(self, rows: Sequence[Row]) -> Comparison:
        """Show the comparison, and keep it with the parent run."""
        assert self._store is not None
        with self._attached("comparison") as folder:
            comparison = show_and_write(self._store, rows, folder)
            say(training_totals(rows))
            self._store.describe(self._sweep, (folder / "comparison.md").read_text(encoding="utf-8"))
        return comparison

    @contextmanager
    def _attached(self, what: str) -> Iterator[Path]:
        """A folder whose files become artifacts of the parent run."""
        assert self._store is not None
        try:
            with temporary_folder(what) as folder:
                yield folder
                self._store.attach(self._sweep, folder)
        except OSError as error:
            told = explained(error, own_folder())
            raise UserError(f"The {what} cannot be written ({told}). Make room there, or set TMPDIR.") from error

    def _close_if_early(self) -> None:
        """A sweep that ends before its time is closed now, with the runs that launchers' processes leave behind."""
        if self._over or self._store is None:
            return
        status: Status = "KILLED" if is_stopped() else "FAILED"
        self._store.give_room_back()
        with suppress(UserError):  # where the store is what is gone, which has been said, the next sweep closes them
            stop_handled()
            store = connect(self._store.address, create=False)  # finds out at once, and does not try for a minute
            if self._sweep:
                store.close_unfinished(self._sweep)
                store.close(self._sweep, status)
            store.close_own()


def shared_modules(experiments: Iterable[Experiment]) -> list[str]:
    """The modules that two or more of the runs need, and need to load only once."""
    needed = Counter(
        module for each in experiments for option in (each.dataset, each.strategy) for module in option.loads_once
    )
    return [module for module, runs in needed.items() if runs > 1]


def _names_of(rows: Sequence[Row]) -> Mapping[str, str]:
    """What runs are called beside one another, with all in which they differ, by their ids."""
    return dict(zip((row["run_id"] for row in rows), names(frame(rows)), strict=True)) if rows else {}


def _told(row: Row, called: Mapping[str, str], what: str) -> str:
    return f"{called[row['run_id']]} (run {row['run_id']}): {what}"


def _list(heading: str, items: Sequence[str]) -> None:
    """Say on standard error what did not go well, if anything."""
    if items:
        sys.stderr.write(visible("\n  ".join([heading, *items])) + "\n")


def check_one_place(places: Sequence[Tracking]) -> None:
    """Whether all jobs of a sweep are kept where the sweep itself is.

    Raises:
        UserError: their tracking differs.
    """
    found = dict.fromkeys(f"{place.shown} ({place.experiment})" for place in places)
    if len(found) > 1:
        raise UserError(
            "tracking: all runs of a sweep are kept in one place, and these would go to "
            f"{' and '.join(found)}. Start a sweep for each."
        )


def check_folder(setting: str, folder: object) -> None:
    """Whether Hydra can make the folder of a run or a sweep, where it writes the configuration.

    Raises:
        UserError: it cannot.
    """
    try:
        check_writable(Path(str(folder)))
    except OSError as error:
        raise UserError(
            f"{setting}={folder}: this folder cannot be written ({explained(error)}). Run in a folder that can be "
            f"written and has room, or give {setting}=FOLDER."
        ) from error


def check_launcher(launcher: DictConfig) -> None:
    """Whether a launcher can do its work, asked before anything is run.

    Raises:
        UserError: its plugin is not installed, joblib has no job to run, Ray no cluster or too few cores, or Slurm is
            missing or rejects the jobs.
    """
    module = str(launcher._target_).rpartition(".")[0]
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        plugin = module.split(".")[1]
        package = f"'.[{EXTRAS[plugin]}]'" if plugin in EXTRAS else plugin.replace("_", "-")
        raise UserError(
            f"hydra/launcher: its plugin {plugin} is not installed. Install it with `pip install -c constraints.txt "
            f"-e {package}`, or give hydra/launcher=basic or joblib."
        )
    if launcher.get("n_jobs") == 0:
        raise UserError(
            "hydra.launcher.n_jobs=0: give how many jobs run at once, or -1 for as many as there are cores."
        )
    if "ray" in launcher:
        _check_cluster(launcher.ray)
    if launcher._target_.endswith(".SlurmLauncher"):
        check_slurm(launcher)


def _check_cluster(ray: DictConfig) -> None:
    """Ray itself would wait for ever for cores that are not there, and try for 14 minutes where nobody answers."""
    address = str(ray.init.get("address") or "")
    asked, cores = ray.remote.get("num_cpus") or 1, ray.init.get("num_cpus") or usable_cores()
    if address == "local" and asked > cores:
        raise UserError(f"hydra.launcher.ray.remote.num_cpus={asked}: there are {cores} here. Give that many or fewer.")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CLUSTER_PATIENCE).close()
    except OSError as error:
        raise UserError(
            f"hydra.launcher.ray.init.address={address}: no Ray cluster answers there ({error}). Start one with `ray "
            "start --head`, or leave the address out, for this machine alone."
        ) from error


def threads_of_a_job(launcher: DictConfig, asked: Sequence[int | None], cores: int) -> int | None:
    """TensorFlow's threads in each of the jobs that a launcher runs at once; None where there is one at a time.

    `asked` is what each job asks for; where one does, nothing is chosen for any. On a cluster the cores of this machine
    do not count: a job has what it asks of its node.
    """
    if any(asked):
        return None
    match launcher._target_.rpartition(".")[2]:
        case "JoblibLauncher":
            wanted = int(launcher.n_jobs)
            at_once = wanted if wanted > 0 else cores + 1 + wanted  # as joblib reads it
            return max(1, cores // max(1, min(at_once, len(asked))))
        case "RayLauncher":
            return max(1, int(launcher.ray.remote.get("num_cpus") or 1))
        case "SlurmLauncher":
            return int(launcher.cpus_per_task or 1)
        case _:
            return None


def training_totals(rows: Sequence[Row]) -> str:
    """What the runs of a sweep trained that ended well, and were spared: epochs of the cache, and of earlier runs."""
    finished = [row for row in rows if row["status"] == "FINISHED"]
    done = [row for row in finished if not row[REUSED]]
    found = [row for row in finished if row[REUSED]]
    trained = sum(row["epochs_trained"] for row in done)
    reused = sum(row["epochs_reused"] for row in done) + sum(
        row["epochs_trained"] + row["epochs_reused"] for row in found
    )
    saved = sum(row["train_seconds_reused"] for row in done) + sum(row["train_seconds"] for row in found)
    told = f"Epochs trained: {trained:.0f}; reused: {reused:.0f}, which saved {duration_text(saved)} of training."
    failed = len(rows) - len(finished)
    return f"{told} Epochs trained by {failed} runs that failed are not counted." if failed else told


def duration_text(seconds: float) -> str:
    """A time for people: 8 s, 3 min 20 s, 2 h 5 min."""
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60:.0f} s" if minutes else f"{seconds:.0f} s"


def _jobs_of(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of the sweep, as the sweeper will make them.

    Raises:
        UserError: there is none, or there are too many.
    """
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*arguments, *_as_given(config.hydra.overrides.task)])
    if not count_of_jobs(overrides):
        empty = [each.input_line for each in overrides if each.is_sweep_override() and not count_of_jobs([each])]
        raise UserError(
            f"{', '.join(empty)}: this sweep has no job: a glob that matches no option, or an empty range, stands for "
            "nothing. The options: python -m experiments.run --help."
        )
    (jobs,) = CheckedSweeper.split_arguments(overrides, max_batch_size=None)
    return list(jobs)


def _as_given(overrides: ListConfig) -> list[str]:
    r"""Overrides as Hydra gives them to its sweeper: each job resolves what is in them, and \${ is no reference."""
    given = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(given, list)
    return given


def _requests(jobs: Sequence[Sequence[str]], composer: Composer) -> list[Request]:
    """What each job asks for; raises UserError where one of them cannot be meant."""
    if len(jobs) >= MANY:
        say(f"checking the configuration of {len(jobs):,} jobs")
    requests = []
    with bar("Checking", len(jobs)) as advance:
        for overrides in jobs:
            requests.append(composer.request(overrides))
            advance(1)
    return requests


def check_given_models(experiments: Sequence[Experiment]) -> None:
    """Load each model that is given once, with the data that it is to take, before anything is run.

    Raises:
        UserError: one of them cannot be loaded, or does not take the data.
    """
    given = {(id(each.dataset), id(each.model)): each for each in experiments if each.model.given}
    for each in given.values():
        check_apart(each)


def check_each_once(experiments: Sequence[Experiment]) -> None:
    """Check what the runs need; a file that many of them share is looked at once, and refused once."""
    seen: set[tuple[int, ...]] = set()
    for each in experiments:
        options = (id(each.dataset), id(each.model), id(each.latency), id(each.strategy))
        if options not in seen:
            seen.add(options)
            each.check()
