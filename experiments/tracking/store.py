"""An experiment in an MLflow store: open, record, close, find and read runs."""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from experiments.measure.rounds import Rounds
from experiments.record.artifacts import CONFIGURATION, LAYERS, ROUNDS, read_evidence, read_layers, read_rounds
from experiments.record.description import describe, with_speed
from experiments.record.evidence import Evidence
from experiments.record.identity import Identity, name_of
from experiments.record.run_record import RunRecord, Setting
from experiments.system.disk import reserve
from experiments.system.errors import UserError, find_by_prefix, first_line, redact, suggestion
from experiments.system.files import check_regular, copy_whole_files
from experiments.system.locks import open_in_use, unused_files
from experiments.system.processes import Origin, this_origin, this_process
from experiments.system.program import program
from experiments.system.progress import bar, say, warn
from experiments.system.stamp import stamp
from experiments.system.temporary import temporary_folder
from experiments.tracking.address import Tracking
from experiments.tracking.failures import explaining_failures, explains_failures
from experiments.tracking.intact import missing_in, missing_of
from experiments.tracking.model import (
    data_inputs,
    metric_dataset,
    model_name,
    model_parameters,
    run_name,
    write_model,
)
from experiments.tracking.places import Places, check_storage
from experiments.tracking.registry import DESCRIPTION, Registered, register
from experiments.tracking.relocation import is_model_moved
from experiments.tracking.rows import SETTINGS, Row, from_mlflow, to_row, to_rows
from experiments.tracking.system_metrics import record_system_metrics
from experiments.tracking.tables import SCHEMAS, Recorded, StoreTables
from experiments.tracking.view import (
    ACCURACY,
    PARAMETERS,
    SCORE,
    SHARE_KEY,
    VIEW,
    new_key,
    page_of,
    superfluous,
    view_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run
    from mlflow.store.entities import PagedList

Status = Literal["FINISHED", "FAILED", "KILLED"]

TAG_LENGTH = 5000  # characters
REUSED = "reused"  # marks a run that was finished before the sweep
DETAILS = "traceback.txt"  # artifact of a failed run
NOTE_LENGTH = 7500  # characters; MLflow truncates tags at 8000 without a warning
METRICS_A_BATCH = 1000  # MLflow's limit
RUNS_A_PAGE = 1000
MOST_COUNTED = 100  # counting stops here, since the API has no count and returns whole runs


@dataclass(frozen=True)
class Store:
    """An experiment in an MLflow store, open for reading and writing."""

    client: "MlflowClient"
    experiment_id: str
    address: Tracking

    @explains_failures
    def open_sweep(self, name: str, tags: Mapping[str, str]) -> str:
        """Open a parent run; returns its id."""
        return self._open(name, {**tags, "kind": "sweep"})

    @explains_failures
    def open_run(
        self,
        setting: Setting,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        sweep: str | None,
        job: int,
        changed: Mapping[str, Any] | None = None,
    ) -> str:
        """Open a run before its work starts, so that a failure can be recorded; returns its id.

        MLflow's parameters are the setting and the `changed` parameters, for people; all are in a tag. Without
        `changed`, or if they are too long for a tag, all are parameters.
        """
        parent = {"mlflow.parentRunId": sweep, _sweep_tag(sweep): f"{job:05d}"} if sweep else {}
        own = {field.name: str(getattr(setting, field.name)) for field in fields(setting)}
        files = (parameters.get("model.path"), parameters.get("dataset.path"))
        identity = Identity(name_of(setting.model, files[0]), name_of(setting.dataset, files[1]))
        every = {name: redact(str(value)) for name, value in parameters.items()}
        shown, kept = every, {}
        if changed is not None and len(text := json.dumps(every)) <= TAG_LENGTH:
            shown, kept = {name: every[name] for name in changed}, {SETTINGS: text}
        run_id = self._open(run_name(setting, identity), {**tags, **own, **parent, **kept, "kind": "run"})
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(name, value) for name, value in {**shown, **own}.items()])
        return run_id

    @explains_failures
    def reuse(self, key: str, sweep: str | None, job: int) -> Row | None:
        """Add the finished run of the same key to the sweep and return it; None if there is none."""
        found = self._intact(self.find(f"tags.run_key = '{key}' and attributes.status = 'FINISHED'"))
        if found and sweep and _sweep_tag(sweep) in found.data.tags:  # two jobs of the sweep are identical
            self.client.set_tag(found.info.run_id, f"{_sweep_tag(sweep)}_{job:05d}", REUSED)
        elif found and sweep:
            run_id = found.info.run_id
            self.client.set_tag(run_id, _sweep_tag(sweep), f"{job:05d} {REUSED}")
            self.client.set_tag(run_id, "mlflow.parentRunId", sweep)  # MLflow's pages show it in the newest sweep
        return to_row(from_mlflow(found)) if found else None

    def _intact(self, runs: "Iterable[Run]") -> "Run | None":
        """Return the first run with complete results and files; reports what the others lack."""
        for run in runs:
            try:
                to_row(from_mlflow(run))
                problem = self._missing(run)
            except UserError as error:
                problem = str(error)
            if not problem:
                return run
            say(f"  run {run.info.run_id} is finished, but {problem}; it is repeated")
        return None

    def _missing(self, run: "Run") -> str:
        """Describe the missing files of a finished run; empty if there are none."""
        folders = self._places.candidates(str(run.info.artifact_uri))
        if not folders:
            check_storage(self.address, str(run.info.artifact_uri))
            sizes = {file.path: file.file_size for file in self.client.list_artifacts(run.info.run_id)}
            return missing_of(sizes, run.data.metrics)
        models = run.outputs.model_outputs if run.outputs else []
        locations = [str(self.client.get_logged_model(model.model_id).artifact_location) for model in models]
        candidates = [self._places.candidates(each) for each in locations]
        return missing_in(folders, run.data.metrics, candidates) or self._unreadable(run.info.run_id)

    def _unreadable(self, run_id: str) -> str:
        """Describe files of a run that are damaged, and without which its row lacks intervals, layers or rounds."""
        try:
            read_evidence(self, run_id)
            read_layers(self.content(run_id, LAYERS) or b"", run_id)
            if (rounds := self.content(run_id, ROUNDS)) is not None:  # missing in runs of earlier versions
                read_rounds(rounds, run_id)
        except UserError as error:
            return str(error).removeprefix(f"Run {run_id}: ").rstrip(".")
        return ""

    def finish(self, run_id: str, record: RunRecord, files: Path) -> None:
        """Store the record and the files of this folder, then mark the run as finished.

        Raises:
            UserError: the store does not accept them.
            OSError: temporary files cannot be written.
        """
        text = describe(record, f"runs:/{run_id}/{model_name(record)}", self._settings_page(run_id))
        model = self._log_model(run_id, record, text)
        self.attach(run_id, files)
        self._log_record(run_id, record, text, model)
        self.close(run_id, "FINISHED")

    @explains_failures
    def _log_record(self, run_id: str, record: RunRecord, text: str, model: str) -> None:
        """Log the metrics and tags of a run, its data sets and its model."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, RunTag

        now, owner = int(time.time() * 1000), {"model_id": model, **metric_dataset(record)}
        metrics = [Metric(name, value, now, 0, **owner) for name, value in record.metrics().items()]
        for name, values in record.curves().items():
            metrics += [Metric(name, value, now, epoch) for epoch, value in enumerate(values, start=1)]
        tags = {
            **record.verdict(),
            **record.identity.tags(),
            "mlflow.runName": redact(run_name(record.setting, record.identity)),
            "tflite_sha256": record.tflite.digest,
            "baseline_key": record.baseline.key or "not trained",
            **({"labels": json.dumps(record.data.renamed)} if record.data.renamed else {}),
            DESCRIPTION: text,
        }
        for start in range(0, len(metrics), METRICS_A_BATCH):
            self.client.log_batch(
                run_id,
                metrics=metrics[start : start + METRICS_A_BATCH],
                tags=[RunTag(key, value[:TAG_LENGTH]) for key, value in tags.items()] if start == 0 else [],
            )
        for name, value in (("task", record.task), ("engine", record.engine)):
            if value:
                self.client.log_param(run_id, name, value)
        for data in data_inputs(record):
            self._log_input(run_id, data)
        self.client.log_outputs(run_id, [LoggedModelOutput(model, step=0)])
        self.client.finalize_logged_model(model, LoggedModelStatus.READY)

    def _log_input(self, run_id: str, data: "DatasetInput") -> None:
        """Log a data set; retries once, since MLflow does not insert it atomically and another run may be faster."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_inputs(run_id, [data])
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":  # MLflow's code for an existing row
                raise
            self.client.log_inputs(run_id, [data])

    def _log_model(self, run_id: str, record: RunRecord, text: str) -> str:
        """Log the run's file as a model that MLflow can load, serve and register; returns its id."""
        with explaining_failures(self.address):
            logged = self.client.create_logged_model(
                self.experiment_id,
                name=model_name(record),
                source_run_id=run_id,
                tags={DESCRIPTION: text},
                params={name: str(value) for name, value in model_parameters(record).items()},
                model_type="tflite",
            )
        with temporary_folder("model") as folder:
            write_model(folder, record, logged)
            with explaining_failures(self.address):
                self.client.log_model_artifacts(logged.model_id, str(folder))
        return str(logged.model_id)

    def recording_system_metrics(self, run_id: str) -> AbstractContextManager[None]:
        """Record the machine's load during the block, if `system_metrics` is set."""
        return record_system_metrics(run_id, self.client.tracking_uri) if self.address.system_metrics else nullcontext()

    @explains_failures
    def fail(self, run_id: str, reason: str, details: str, identity: Identity | None = None) -> None:
        """Record why a run failed: one line as a tag, details as an artifact, and the identity of model and data."""
        for name, digest in (identity.tags() if identity else {}).items():
            self.client.set_tag(run_id, name, digest)
        self.client.set_tag(run_id, "error", reason[:TAG_LENGTH])
        self.client.log_text(run_id, details, DETAILS)
        self.close(run_id, "FAILED")

    @explains_failures
    def close(self, run_id: str, status: Status) -> None:
        """Close a run or a sweep; the model of a run without a result is marked as failed first."""
        if status != "FINISHED":
            self._fail_models(f"source_run_id = '{run_id}'")
        self.client.set_terminated(run_id, status)

    def _fail_models(self, query: str) -> None:
        """Mark pending models as failed, which would otherwise stay pending forever."""
        from mlflow.entities import LoggedModelStatus

        for model in self.client.search_logged_models([self.experiment_id], query):
            if model.status == LoggedModelStatus.PENDING:
                self.client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)

    @explains_failures
    def describe(self, run_id: str, text: str) -> None:
        """Set the description, in Markdown, that MLflow shows above a run."""
        if len(text) > NOTE_LENGTH:
            text = f"{text[:NOTE_LENGTH].rpartition(chr(10))[0]}\n\nThe complete text is in the artifacts."
        self.client.set_tag(run_id, DESCRIPTION, text)

    @explains_failures
    def summarize(self, sweep: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Record the summary of a sweep's runs with the sweep."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            sweep,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
            tags=[RunTag(name, value[:TAG_LENGTH]) for name, value in tags.items()],
        )

    @explains_failures
    def save_view(self, sweep: str) -> str:
        """Store a view of the sweep's runs for MLflow's pages, and return its address; see `describe_page`."""
        key, runs = new_key(sweep), self._tagged(_sweep_tag(sweep))
        varied = [name for name in PARAMETERS if len({run.tags.get(name) for run in runs}) > 1]
        of_score = bool(runs) and not any(ACCURACY in run.metrics for run in runs)
        # A failed run has no metric.
        lower = of_score and {run.tags.get("metric_better", "lower") for run in runs} == {"lower"}
        view = view_of(_sweep_tag(sweep), varied, SCORE if of_score else ACCURACY, lower)
        self.client.set_experiment_tag(self.experiment_id, f"{VIEW}{key}", view)
        for tag in superfluous(list(self.client.get_experiment(self.experiment_id).tags), key):
            self.client.delete_experiment_tag(self.experiment_id, tag)
        return self._address(page_of(self.experiment_id, "runs", **{SHARE_KEY: key}))

    @explains_failures
    def attach(self, run_id: str, folder: Path) -> None:
        """Store a folder's files as artifacts of a run."""
        self._keep(run_id, folder)

    @explains_failures
    def stamp(self, run_id: str) -> dict[str, str]:
        """Return the machine, versions and commit of a run."""
        tags = self.client.get_run(run_id).data.tags
        return {name: tags[name] for name in stamp() if name in tags}

    @explains_failures
    def row(self, run_id: str) -> Row:
        """Return a run as a row."""
        return to_row(from_mlflow(self.client.get_run(run_id)))

    @explains_failures
    def read_evidence(self, run_id: str) -> Evidence | None:
        """Return the predictions or scores of a run's models on the test examples; None if the artifact is missing.

        Raises:
            UserError: the artifact is not in its format.
        """
        return read_evidence(self, run_id)

    @explains_failures
    def content(self, run_id: str, artifact: str) -> bytes | None:
        """Return the content of a run's artifact; None if it is missing.

        Raises:
            UserError: the artifact cannot be read, or its storage is not reachable.
        """
        if folders := self._folders(run_id):  # MLflow's client would list the folder and copy the file
            found = next((path for folder in folders if (path := folder / artifact).is_file()), None)
            if found is None and not any(folder.is_dir() for folder in folders):
                _warn_missing(self.address)
            return _read(found, run_id) if found else None
        check_storage(self.address, recorded := self._recorded_address(run_id))
        storage = urlsplit(recorded)._replace(path="", query="", fragment="").geturl()
        if storage in _UNREACHABLE:  # every run would wait again for the same timeout
            raise UserError(_UNREACHABLE[storage])
        try:
            if artifact not in {found.path for found in self.client.list_artifacts(run_id)}:
                return None
            with temporary_folder("artifact") as copy:
                return self.fetch(run_id, artifact, copy).read_bytes()
        except Exception as error:  # storage clients raise errors of any type
            reason = first_line(error).rstrip(".")
            where = redact(storage) or "the storage of the store"
            _UNREACHABLE[storage] = f"Files of runs in {where} cannot be read ({reason})."
            raise UserError(_UNREACHABLE[storage]) from error

    def _folders(self, run_id: str) -> tuple[Path, ...]:
        """Return the folders that may have a run's artifacts, in search order; empty if not on this machine."""
        return self._places.candidates(self._recorded_address(run_id))

    def _recorded_address(self, run_id: str) -> str:
        tables = self._tables()
        addresses = _addresses(tables) if tables else {}
        return addresses[run_id] if run_id in addresses else str(self.client.get_run(run_id).info.artifact_uri)

    @property
    def _places(self) -> Places:
        return Places(self.address.database)

    def _keep(self, run_id: str, files: Path, folder: str = "") -> None:
        """Store a folder's files as artifacts of a run; beside the database, even if it was moved or copied."""
        target = self._places.current(recorded := self._recorded_address(run_id))
        if target is None:
            check_storage(self.address, recorded)
            self.client.log_artifacts(run_id, str(files), folder or None)
        else:
            copy_whole_files(files, target / folder)

    @explains_failures
    def commands(self, run_ids: Iterable[str]) -> list[str]:
        """Return the commands of these runs, or of their sweeps."""
        parents = {run_id: self.client.get_run(run_id).data.tags.get("mlflow.parentRunId") for run_id in run_ids}
        started = dict.fromkeys(parent or run_id for run_id, parent in parents.items())
        tags = (self.client.get_run(run_id).data.tags for run_id in started)
        return [found["command"] for found in tags if "command" in found]

    @explains_failures
    def newest_sweep(self, command: str) -> str | None:
        """Return the id of the newest finished sweep of this command."""
        sweeps = (run for run in self._tagged("kind", "sweep") if run.tags.get("command") == command)
        return next((run.run_id for run in sweeps if run.status == "FINISHED"), None)

    def describe_page(self, run_id: str) -> str:
        """Return the address of a run in MLflow's pages, with the command that starts them for a database."""
        return ", then ".join([*([self.ui_command] if self.ui_command else []), self.page(run_id)])

    @property
    def ui_command(self) -> str:
        """The command that starts MLflow's pages for a database; empty for a server, which has them."""
        return "" if self._is_server else f"mlflow ui --backend-store-uri {self.address.shown}"

    def page(self, run_id: str) -> str:
        """Return the address of a run in MLflow's pages; for a database, on this machine after `ui_command`."""
        return self._address(page_of(self.experiment_id, f"runs/{run_id}"))

    def _address(self, page: str) -> str:
        server = self.address.shown.rstrip("/") if self._is_server else "http://127.0.0.1:5000"
        return f"{server}/{page}"

    def _settings_page(self, run_id: str) -> str:
        """Return the address of the complete settings of a run, from any page of the same server."""
        return page_of(self.experiment_id, f"runs/{run_id}/artifacts/{CONFIGURATION}")

    @property
    def _is_server(self) -> bool:
        return self.address.uri.startswith("http")

    @explains_failures
    def rows(self, sweep: str) -> list[Row]:
        """Return the runs of a sweep as rows, in the order of its jobs; `sweep` is an id, `latest`, or `all`.

        Raises:
            UserError: the store has no such sweep.
        """
        if sweep == "all":
            return to_rows(reversed(self._tagged("kind", "run")))
        sweeps = [run.run_id for run in self._tagged("kind", "sweep")]
        if sweep == "latest":
            if not sweeps:
                return self.rows("all")
            sweep = sweeps[0]
        if sweep not in sweeps:
            where = self.address.shown
            raise UserError(f"--sweep {sweep}: not in {where}. Type latest, all, or an id. {suggestion(sweep, sweeps)}")
        tag = _sweep_tag(sweep)
        runs = sorted(self._tagged(tag), key=lambda run: run.tags[tag])
        reused = {run.run_id: run.tags[tag].endswith(REUSED) for run in runs}
        return [{**row, REUSED: reused[row["run_id"]]} for row in to_rows(runs)]

    @explains_failures
    def finished(self) -> list[Row]:
        """Return all finished runs that a later run may reuse, newest first; damaged ones are omitted silently."""
        rows = []
        for run in self._tagged("run_key"):
            with suppress(UserError):  # the commands that show runs report it
                rows += [to_row(run)] if run.status == "FINISHED" else []
        return rows

    @explains_failures
    def find_by_file(self, digest: str) -> list[Row]:
        """Return the finished runs whose file has this digest, newest first; damaged ones are omitted silently."""
        rows = []
        for run in self._tagged("tflite_sha256", digest):
            with suppress(UserError):
                rows += [to_row(run)] if run.status == "FINISHED" else []
        return rows

    @explains_failures
    def select_runs(self, target: str) -> list[Row]:
        """Return the finished runs of a target: `latest`, the id of a sweep, or the id of a run or a prefix of it.

        Raises:
            UserError: no run matches, or several runs have this prefix.
        """
        if target == "latest" or target in [run.run_id for run in self._tagged("kind", "sweep")]:
            finished = [row for row in self.rows(target) if row["status"] == "FINISHED"]
            if not finished:
                raise UserError(f"{target}: the sweep has no finished run.")
            return finished
        runs = {run.run_id: run for run in reversed(self._tagged("kind", "run")) if run.status == "FINISHED"}
        return [to_row(runs[find_by_prefix(target, list(runs))])]

    @explains_failures
    def count_others(self) -> str:
        """Return the number of runs by other programs in the experiment, as text; empty if there are none."""
        if tables := self._tables():
            return f"{count:,}" if (count := tables.count_others()) else ""
        from mlflow.exceptions import MlflowException

        try:
            count = len(self._page("tags.kind IS NULL", MOST_COUNTED))
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return ""  # servers before MLflow 3.11 cannot search for a missing tag
        return f"{count:,}{' or more' if count == MOST_COUNTED else ''}" if count else ""

    def _tagged(self, tag: str, value: str = "") -> list[Recorded]:
        """Return the runs with this value of a tag, or with any value, newest first; from the tables if supported."""
        if tables := self._tables():
            return tables.select_runs(tag, value)
        return [from_mlflow(run) for run in self.find(f"tags.{tag} = '{value}'" if value else f"tags.{tag} != ''")]

    def _tables(self) -> StoreTables | None:
        return _supported_tables(self.address, self.experiment_id)

    @explains_failures
    def fetch(self, run_id: str, artifact: str, folder: Path) -> Path:
        """Return the path of a run's artifact; a remote one is downloaded into the folder.

        Raises:
            UserError: the artifact no longer exists.
        """
        if folders := self._folders(run_id):
            if found := next((path for each in folders if (path := each / artifact).is_file()), None):
                return found
            raise UserError(
                f"Run {run_id}: the artifact {artifact} is missing; searched {' and '.join(map(str, folders))}. Type "
                f"`{program('store')} check` to list missing files, or the command of the run to repeat it."
            )
        check_storage(self.address, self._recorded_address(run_id))
        return Path(self.client.download_artifacts(run_id, artifact, str(folder)))

    @explains_failures
    def register(self, run_id: str, name: str, reasons: str) -> Registered:
        """Register a run's model under a name; `reasons`, in Markdown, becomes the description.

        Raises:
            UserError: the name is invalid, the run has no model, its recorded address is outdated, or the store has no
                registry.
        """
        run = self.client.get_run(run_id)
        for model in run.outputs.model_outputs if run.outputs else []:
            location = str(self.client.get_logged_model(model.model_id).artifact_location)
            if is_model_moved(self.address.database, location):
                raise UserError(
                    f"--register {name}: the recorded address of run {run_id}'s model, {location}, is outdated. Update "
                    f"it first: {program('store')} relocate --uri {self.address.shown}"
                )
        return register(self.client, run, name, reasons)

    @explains_failures
    def add_session(self, run_id: str, name: str, folder: Path, p50_us: float) -> None:
        """Store a latency session with a run; the run's own measurements are kept."""
        self._keep(run_id, folder, f"latency_sessions/{name}")
        self.client.set_tag(run_id, "latency_session", name)
        self.client.log_metric(run_id, "session_latency_p50_us", p50_us)

    @explains_failures
    def update_timing(self, run_id: str, rounds: Rounds) -> None:
        """Log the metrics and tags of a run's timing anew, after rounds were added; also those of its model."""
        from mlflow.entities import Metric, RunTag

        run, now = self.client.get_run(run_id), int(time.time() * 1000)
        models = [each.model_id for each in (run.outputs.model_outputs if run.outputs else [])]
        owner = {"model_id": models[0]} if models else {}
        metrics = [Metric(name, value, now, 0, **owner) for name, value in rounds.metrics().items()]
        text = with_speed(run.data.tags.get(DESCRIPTION, ""), run.data.metrics, run.data.tags, rounds)
        tags = {**rounds.tags(), DESCRIPTION: text}
        self.client.log_batch(
            run_id, metrics=metrics, tags=[RunTag(key, value[:TAG_LENGTH]) for key, value in tags.items()]
        )
        for model in models:
            self.client.set_logged_model_tags(model, {DESCRIPTION: text[:TAG_LENGTH]})

    @explains_failures
    def jobs(self, sweep: str) -> set[int]:
        """Return the numbers, from 0, of a sweep's jobs that have a run; identical jobs share one."""
        own = _sweep_tag(sweep)
        tags = [run.tags for run in self._tagged(own)]
        shared = [name.removeprefix(f"{own}_") for names in tags for name in names if name.startswith(f"{own}_")]
        numbers = [*(names[own].partition(" ")[0] for names in tags), *shared]
        return {int(number) for number in numbers if re.fullmatch(r"[0-9]{1,9}", number)}

    @explains_failures
    def close_unfinished(self, sweep: str) -> None:
        """Close the runs of a finished sweep that are still marked RUNNING because their end could not be recorded."""
        for run in self.find(f"attributes.status = 'RUNNING' and tags.{_sweep_tag(sweep)} != ''"):
            self.close(run.info.run_id, "KILLED")

    @explains_failures
    def close_lost(self, ids: Iterable[str]) -> list[str]:
        """Mark open runs as KILLED whose processes have ended, as the user says; with a sweep, also its runs.

        Returns:
            The ids of the runs, which are given as ids or as prefixes of them.

        Raises:
            UserError: there is no such open run, or its process is seen to run.
        """
        found = self.find("attributes.status = 'RUNNING' and tags.kind != ''")
        marked = {run.info.run_id: Origin.of(run.data.tags) for run in reversed(found)}
        chosen = [find_by_prefix(prefix, list(marked), "RUNNING") for prefix in ids]
        parts = [run.info.run_id for run in found if run.data.tags.get("mlflow.parentRunId") in chosen]
        for run_id in (*chosen, *parts):
            if (origin := marked[run_id]).state(self.address.database) == "running":
                raise UserError(
                    f"{run_id}: its process {origin.process.partition('@')[0]} is running. Stop it: Ctrl-C, or `kill`."
                )
        for run_id in chosen:
            self.close_unfinished(run_id)
            self.close(run_id, "KILLED")
        return chosen

    def reserve_space(self) -> None:
        """Reserve disk space beside a database, so that open runs can be closed even if the disk is full.

        Space that killed processes reserved is freed.
        """
        if database := self.address.database:
            for left in database.parent.glob(f".{database.name}.room-*"):
                with suppress(OSError), unused_files([left]) as unused:
                    if unused:
                        left.unlink(missing_ok=True)
            own = self._reserved(database)
            reserve(own)
            with suppress(OSError):  # the disk is full
                _IN_USE[own] = open_in_use(own)  # this process may not be visible to the others, in another container

    def release_space(self) -> None:
        """Free the disk space that this process reserved."""
        if database := self.address.database:
            own = self._reserved(database)
            own.unlink(missing_ok=True)
            if own in _IN_USE:
                os.close(_IN_USE.pop(own))

    def _reserved(self, database: Path) -> Path:
        return database.with_name(f".{database.name}.room-{this_process()}")

    @explains_failures
    def close_own(self, status: Status = "KILLED") -> None:
        """Close the open runs of this process, even if the store never returned their ids."""
        own = " and ".join(f"tags.{name} = '{value}'" for name, value in this_origin().tags().items())
        for run in self.find(f"attributes.status = 'RUNNING' and {own}"):
            self.close(run.info.run_id, status)

    @explains_failures
    def close_orphans(self) -> None:
        """Mark runs as KILLED if they are RUNNING but their process here, or their sweep elsewhere, has ended."""
        elsewhere = []
        for run in self.find("attributes.status = 'RUNNING' and tags.kind != ''"):  # not those of other programs
            match Origin.of(run.data.tags).state(self.address.database):
                case "unknown":
                    elsewhere.append(run)
                case "ended":
                    self.close(run.info.run_id, "KILLED")
        for run in elsewhere:  # after the killed sweeps of this machine are closed
            parent = run.data.tags.get("mlflow.parentRunId")
            if parent and not self._is_running(parent):
                self.close(run.info.run_id, "KILLED")

    def _is_running(self, run_id: str) -> bool:
        """Whether a run is marked RUNNING; false for a deleted one."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_run(run_id).info.status) == "RUNNING"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _open(self, name: str, tags: Mapping[str, str]) -> str:
        values = {key: redact(value)[:TAG_LENGTH] for key, value in {**tags, **this_origin().tags()}.items()}
        run = self.client.create_run(self.experiment_id, run_name=redact(name), tags=values)
        return str(run.info.run_id)

    @explains_failures
    def find(self, query: str, limit: int | None = None) -> "list[Run]":
        """Return the runs that match a query, newest first; shows a bar if there is more than one page."""
        page = self._page(query, limit or RUNS_A_PAGE)
        found = list(page)
        if limit or not page.token:
            return found
        with bar("reading runs", None) as advance:
            advance(len(page))
            while page.token:
                page = self._page(query, RUNS_A_PAGE, page.token)
                found += page
                advance(len(page))
        return found

    def _page(self, query: str, size: int, token: str | None = None) -> "PagedList[Run]":
        newest_first = ["attributes.start_time DESC"]
        return self.client.search_runs(
            [self.experiment_id], query, max_results=size, page_token=token, order_by=newest_first
        )


_IN_USE: dict[Path, int] = {}  # descriptors of reserved space
_UNREACHABLE: dict[str, str] = {}  # messages by storage


def _read(path: Path, run_id: str) -> bytes:
    check_regular(path, f"Run {run_id}: the artifact {path.name}")
    return path.read_bytes()


@cache
def _supported_tables(address: Tracking, experiment_id: str) -> StoreTables | None:
    """Return the tables to read runs from; None to use the API, which is reported for an unknown schema."""
    if address.tables is None:
        return None
    tables = StoreTables(address.tables, int(experiment_id))
    if (schema := tables.schema()) in SCHEMAS:
        return tables
    say(f"{address.shown}: unknown schema of MLflow ({schema}). Runs are read through MLflow's API, which is slower.")
    return None


@cache
def _addresses(tables: StoreTables) -> Mapping[str, str]:
    """Return the addresses of all runs, cached since they never change."""
    return tables.addresses()


@cache
def _warn_missing(address: Tracking) -> None:
    """Warn once per store, not for each of thousands of runs."""
    warn(
        f"{address.shown}: files of runs are missing, so plots, intervals and differences are incomplete. Type "
        f"`{program('store')} check` to list them."
    )


def _sweep_tag(sweep: str) -> str:
    return f"sweep_{sweep}"
