"""An experiment in an MLflow store: runs opened, recorded and closed, found and read."""

import json
import re
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from experiments.record.artifacts import PREDICTIONS, read_predictions
from experiments.record.description import description
from experiments.record.identity import Identity, name_of, with_digest
from experiments.record.run_record import Predictions, RunRecord, Setting
from experiments.system.disk import reserve
from experiments.system.errors import UserError, by_prefix, first_line, redacted, suggestion
from experiments.system.files import check_regular
from experiments.system.processes import alive, this_process
from experiments.system.progress import bar, say, warn
from experiments.system.stamp import stamp
from experiments.system.temporary import temporary_folder
from experiments.tracking.address import Tracking
from experiments.tracking.failures import explained, failures_explained
from experiments.tracking.intact import missing_in, missing_of
from experiments.tracking.model import NAME, data_inputs, described_by, measured_on, write_model
from experiments.tracking.places import Places
from experiments.tracking.registry import DESCRIPTION, Registered, register
from experiments.tracking.relocation import model_moved
from experiments.tracking.rows import Row, recorded, row_of, rows_of
from experiments.tracking.system_metrics import sampled
from experiments.tracking.tables import SCHEMAS, Recorded, StoreTables

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run
    from mlflow.store.entities import PagedList

Status = Literal["FINISHED", "FAILED", "KILLED"]

TAG_LENGTH = 5000  # characters
REUSED = "reused"  # said of a run that a sweep found finished
DETAILS = "traceback.txt"  # artifact of a run that failed
NOTE_LENGTH = 7500  # characters; MLflow cuts tags at 8000 without a word
METRICS_A_BATCH = 1000  # MLflow's own limit
RUNS_A_PAGE = 1000
COUNTED = 100  # of runs whose number alone is asked: the API has no count, and sends all that they hold


@dataclass(frozen=True)
class Store:
    """An experiment in an MLflow store, open for reading and writing."""

    client: "MlflowClient"
    experiment_id: str
    address: Tracking

    @explained
    def open_sweep(self, name: str, tags: Mapping[str, str]) -> str:
        """The id of a new parent run."""
        return self._open(name, {**tags, "kind": "sweep"})

    @explained
    def open_run(
        self,
        setting: Setting,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        sweep: str | None,
        job: int,
    ) -> str:
        """The id of a new run, written before its work starts, so that a failure has a place to be recorded in."""
        belongs = {"mlflow.parentRunId": sweep, _sweep_tag(sweep): f"{job:05d}"} if sweep else {}
        own = {field.name: str(getattr(setting, field.name)) for field in fields(setting)}
        files = (parameters.get("model.path"), parameters.get("dataset.path"))
        identity = Identity(name_of(setting.model, files[0]), name_of(setting.dataset, files[1]))
        run_id = self._open(run_name(setting, identity), {**tags, **own, **belongs, "kind": "run"})
        from mlflow.entities import Param

        params = [Param(key, redacted(str(value))) for key, value in parameters.items()]
        self.client.log_batch(run_id, params=params)
        return run_id

    @explained
    def reuse(self, key: str, sweep: str | None, job: int) -> Row | None:
        """A finished run of the same key, taken into the sweep; None where there is none."""
        found = self._intact(self.find(f"tags.run_key = '{key}' and attributes.status = 'FINISHED'"))
        if found and sweep and _sweep_tag(sweep) in found.data.tags:  # two of its jobs ask for the same
            self.client.set_tag(found.info.run_id, f"{_sweep_tag(sweep)}_{job:05d}", REUSED)
        elif found and sweep:
            run_id = found.info.run_id
            self.client.set_tag(run_id, _sweep_tag(sweep), f"{job:05d} {REUSED}")
            self.client.set_tag(run_id, "mlflow.parentRunId", sweep)  # in MLflow's pages it moves to the newest sweep
        return row_of(recorded(found)) if found else None

    def _intact(self, runs: "Iterable[Run]") -> "Run | None":
        """The first of these runs whose results and files are all there; of the others is said what they miss."""
        for run in runs:
            try:
                row_of(recorded(run))
                problem = self._missing(run)
            except UserError as error:
                problem = str(error)
            if not problem:
                return run
            say(f"  made anew: run {run.info.run_id} is finished, but {problem}")
        return None

    def _missing(self, run: "Run") -> str:
        """What a finished run lacks of its files; empty where it lacks nothing."""
        folders = self._places.candidates(str(run.info.artifact_uri))
        if not folders:
            sizes = {file.path: file.file_size for file in self.client.list_artifacts(run.info.run_id)}
            return missing_of(sizes, run.data.metrics)
        models = run.outputs.model_outputs if run.outputs else []
        locations = [str(self.client.get_logged_model(model.model_id).artifact_location) for model in models]
        return missing_in(folders, run.data.metrics, [self._places.candidates(each) for each in locations])

    def finish(self, run_id: str, record: RunRecord, files: Path) -> None:
        """Keep the record and its files, all that lie in this folder, and only then call the run finished.

        Raises:
            UserError: the store does not take them.
            OSError: they cannot be written as files that it could take.
        """
        said = description(record, f"runs:/{run_id}/{NAME}")
        model = self._log_model(run_id, record, said)
        self.attach(run_id, files)
        self._log_record(run_id, record, said, model)
        self.close(run_id, "FINISHED")

    @explained
    def _log_record(self, run_id: str, record: RunRecord, said: str, model: str) -> None:
        """The metrics and tags of a run, what it was trained on, and the model that came out."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, RunTag

        now, whose = int(time.time() * 1000), {"model_id": model, **measured_on(record)}
        metrics = [Metric(name, value, now, 0, **whose) for name, value in record.metrics().items()]
        for name, values in record.curves().items():
            metrics += [Metric(name, value, now, epoch) for epoch, value in enumerate(values, start=1)]
        tags = {
            **record.verdict(),
            **record.identity.tags(),
            "mlflow.runName": redacted(run_name(record.setting, record.identity)),
            "tflite_sha256": record.tflite.digest,
            "baseline_key": record.baseline.key or "not trained",
            **({"labels": json.dumps(record.data.renamed)} if record.data.renamed else {}),
            DESCRIPTION: said,
        }
        for start in range(0, len(metrics), METRICS_A_BATCH):
            self.client.log_batch(
                run_id,
                metrics=metrics[start : start + METRICS_A_BATCH],
                tags=[RunTag(key, value[:TAG_LENGTH]) for key, value in tags.items()] if start == 0 else [],
            )
        for data in data_inputs(record):
            self._log_input(run_id, data)
        self.client.log_outputs(run_id, [LoggedModelOutput(model, step=0)])
        self.client.finalize_logged_model(model, LoggedModelStatus.READY)

    def _log_input(self, run_id: str, data: "DatasetInput") -> None:
        """MLflow looks whether it knows the data set, and then writes it: another run may write it in between."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_inputs(run_id, [data])
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":  # what MLflow calls a row that its database has already
                raise
            self.client.log_inputs(run_id, [data])

    def _log_model(self, run_id: str, record: RunRecord, said: str) -> str:
        """The id of the run's file as a model of its own, which MLflow can load, serve and register."""
        with failures_explained(self.address):
            logged = self.client.create_logged_model(
                self.experiment_id,
                name=NAME,
                source_run_id=run_id,
                tags={DESCRIPTION: said},
                params={name: str(value) for name, value in described_by(record).items()},
                model_type="tflite",
            )
        with temporary_folder("model") as folder:
            write_model(folder, record, logged)
            with failures_explained(self.address):
                self.client.log_model_artifacts(logged.model_id, str(folder))
        return str(logged.model_id)

    def watched(self, run_id: str) -> AbstractContextManager[None]:
        """Around the work of a run: the machine's load is recorded meanwhile, where that is asked for."""
        return sampled(run_id, self.client.tracking_uri) if self.address.system_metrics else nullcontext()

    @explained
    def fail(self, run_id: str, reason: str, details: str, identity: Identity | None = None) -> None:
        """Record why a run failed: one line as a tag, all that is known as an artifact, and what the run was about."""
        for name, digest in (identity.tags() if identity else {}).items():
            self.client.set_tag(run_id, name, digest)
        self.client.set_tag(run_id, "error", reason[:TAG_LENGTH])
        self.client.log_text(run_id, details, DETAILS)
        self.close(run_id, "FAILED")

    @explained
    def close(self, run_id: str, status: Status) -> None:
        """End a run or a sweep; the model of a run that has no result is told to have failed before the run is."""
        if status != "FINISHED":
            self._fail_models(f"source_run_id = '{run_id}'")
        self.client.set_terminated(run_id, status)

    def _fail_models(self, query: str) -> None:
        """A model that says PENDING would do so for ever."""
        from mlflow.entities import LoggedModelStatus

        for model in self.client.search_logged_models([self.experiment_id], query):
            if model.status == LoggedModelStatus.PENDING:
                self.client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)

    @explained
    def describe(self, run_id: str, text: str) -> None:
        """The Markdown that MLflow shows above a run."""
        if len(text) > NOTE_LENGTH:
            text = f"{text[:NOTE_LENGTH].rpartition(chr(10))[0]}\n\nThe rest stands in the artifacts."
        self.client.set_tag(run_id, DESCRIPTION, text)

    @explained
    def attach(self, run_id: str, folder: Path) -> None:
        """Keep a folder's files as artifacts of a run."""
        self._keep(run_id, folder)

    @explained
    def stamp(self, run_id: str) -> dict[str, str]:
        """Where and with what a run was made."""
        tags = self.client.get_run(run_id).data.tags
        return {name: tags[name] for name in stamp() if name in tags}

    @explained
    def row(self, run_id: str) -> Row:
        """One run as a row."""
        return row_of(recorded(self.client.get_run(run_id)))

    @explained
    def predictions(self, run_id: str) -> Predictions | None:
        """What a run's models said of each test image; None where the run has no such artifact (any more).

        Raises:
            UserError: the artifact is there, and is not what a run writes.
        """
        content = self.content(run_id, PREDICTIONS)
        return None if content is None else read_predictions(content, run_id)

    @explained
    def content(self, run_id: str, artifact: str) -> bytes | None:
        """What an artifact of a run holds; None where the run has no such artifact (any more).

        Raises:
            UserError: it cannot be read, or the storage that it is on cannot be reached.
        """
        if folders := self._folders(run_id):  # MLflow's client would list the folder, and copy the file
            found = next((path for folder in folders if (path := folder / artifact).is_file()), None)
            if found is None and not any(folder.is_dir() for folder in folders):
                _say_missing(self.address)
            return _read(found, run_id) if found else None
        storage = urlsplit(self._recorded_address(run_id))._replace(path="", query="", fragment="").geturl()
        if storage in _OUT_OF_REACH:  # each run would wait as long again
            raise UserError(_OUT_OF_REACH[storage])
        try:
            if artifact not in {found.path for found in self.client.list_artifacts(run_id)}:
                return None
            with temporary_folder("artifact") as copy:
                return self.fetch(run_id, artifact, copy).read_bytes()
        except Exception as error:  # clients of storage raise every kind
            reason = first_line(error).rstrip(".")
            where = redacted(storage) or "the storage of the store"
            _OUT_OF_REACH[storage] = f"Files of runs in {where} cannot be read ({reason})."
            raise UserError(_OUT_OF_REACH[storage]) from error

    def _folders(self, run_id: str) -> tuple[Path, ...]:
        """Where a run's artifacts may lie, in the order of looking; empty where that is not on this machine."""
        return self._places.candidates(self._recorded_address(run_id))

    def _recorded_address(self, run_id: str) -> str:
        tables = self._tables()
        known = _addresses(tables) if tables else {}
        return known[run_id] if run_id in known else str(self.client.get_run(run_id).info.artifact_uri)

    @property
    def _places(self) -> Places:
        return Places(self.address.database)

    def _keep(self, run_id: str, files: Path, folder: str = "") -> None:
        """Make the files of a folder artifacts of a run; beside the database, also where that was moved or copied."""
        target = self._places.current(self._recorded_address(run_id))
        if target is None:
            self.client.log_artifacts(run_id, str(files), folder or None)
        else:
            copytree(files, target / folder, dirs_exist_ok=True)

    @explained
    def commands(self, run_ids: Iterable[str]) -> list[str]:
        """What was typed for these runs, or for the sweeps that they belong to."""
        parents = {run_id: self.client.get_run(run_id).data.tags.get("mlflow.parentRunId") for run_id in run_ids}
        makers = dict.fromkeys(parent or run_id for run_id, parent in parents.items())
        tags = (self.client.get_run(maker).data.tags for maker in makers)
        return [found["command"] for found in tags if "command" in found]

    @explained
    def newest_sweep(self, command: str) -> str | None:
        """The id of the newest sweep for which this was typed, and whose runs have all come to their end."""
        sweeps = (run for run in self._tagged("kind", "sweep") if run.tags.get("command") == command)
        return next((run.run_id for run in sweeps if run.status == "FINISHED"), None)

    def browse(self, run_id: str) -> str:
        """How to look at a run in MLflow's pages."""
        page = f"#/experiments/{self.experiment_id}/runs/{run_id}"
        if self.address.uri.startswith("http"):
            return f"{self.address.shown.rstrip('/')}/{page}"
        return f"mlflow ui --backend-store-uri {self.address.shown}, then http://127.0.0.1:5000/{page}"

    @explained
    def rows(self, sweep: str) -> list[Row]:
        """The runs of a sweep as rows, in the order of its jobs: an id, `latest`, or `all` for every run there is.

        Raises:
            UserError: the store holds no such sweep.
        """
        if sweep == "all":
            return rows_of(reversed(self._tagged("kind", "run")))
        sweeps = [run.run_id for run in self._tagged("kind", "sweep")]
        if sweep == "latest":
            if not sweeps:
                return self.rows("all")
            sweep = sweeps[0]
        if sweep not in sweeps:
            where = self.address.shown
            raise UserError(f"--sweep {sweep}: not in {where}. Give latest, all, or an id. {suggestion(sweep, sweeps)}")
        tag = _sweep_tag(sweep)
        runs = sorted(self._tagged(tag), key=lambda run: run.tags[tag])
        reused = {run.run_id: run.tags[tag].endswith(REUSED) for run in runs}
        return [{**row, REUSED: reused[row["run_id"]]} for row in rows_of(runs)]

    @explained
    def chosen(self, target: str) -> list[Row]:
        """The finished runs that a word means: `latest` or the id of a sweep, the id of a run, or its beginning.

        Raises:
            UserError: it means none, or more than one run begins like this.
        """
        if target == "latest" or target in [run.run_id for run in self._tagged("kind", "sweep")]:
            finished = [row for row in self.rows(target) if row["status"] == "FINISHED"]
            if not finished:
                raise UserError(f"{target}: no finished run in it.")
            return finished
        runs = {run.run_id: run for run in reversed(self._tagged("kind", "run")) if run.status == "FINISHED"}
        return [row_of(runs[by_prefix(target, list(runs))])]

    @explained
    def others(self) -> str:
        """How many runs of other programs the experiment holds, of which no row is made; empty where there are none."""
        if tables := self._tables():
            return f"{count:,}" if (count := tables.others()) else ""
        from mlflow.exceptions import MlflowException

        try:
            count = len(self._page("tags.kind IS NULL", COUNTED))
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return ""  # servers before MLflow 3.11 cannot be asked for runs without a tag
        return f"{count:,}{' or more' if count == COUNTED else ''}" if count else ""

    def _tagged(self, tag: str, value: str = "") -> list[Recorded]:
        """The runs with this value of a tag, or with any at all, newest first; from the tables where they are known."""
        if tables := self._tables():
            return tables.chosen(tag, value)
        return [recorded(run) for run in self.find(f"tags.{tag} = '{value}'" if value else f"tags.{tag} != ''")]

    def _tables(self) -> StoreTables | None:
        return _known_tables(self.address, self.experiment_id)

    @explained
    def fetch(self, run_id: str, artifact: str, folder: Path) -> Path:
        """An artifact of a run as a file: where it lies, or fetched into the folder.

        Raises:
            UserError: it is not there any more.
        """
        if folders := self._folders(run_id):
            if found := next((path for each in folders if (path := each / artifact).is_file()), None):
                return found
            raise UserError(
                f"Run {run_id}: its {artifact} is missing; looked in {' and '.join(map(str, folders))}. `python -m "
                "experiments.store check` lists what is missing; the command of the run makes it anew."
            )
        return Path(self.client.download_artifacts(run_id, artifact, str(folder)))

    @explained
    def register(self, run_id: str, name: str, why: str) -> Registered:
        """Make a run's model a version of a registered one; `why`, in Markdown, becomes its description.

        Raises:
            UserError: the name cannot be used, the run has no model, its recorded address leads elsewhere, or the
                store has no registry.
        """
        run = self.client.get_run(run_id)
        for model in run.outputs.model_outputs if run.outputs else []:
            location = str(self.client.get_logged_model(model.model_id).artifact_location)
            if model_moved(self.address.database, location):
                raise UserError(
                    f"--register {name}: the model of run {run_id} is recorded in {location}, which is not where it is "
                    "now, and MLflow believes its records. Mend them first: python -m experiments.store relocate "
                    f"--uri {self.address.shown}"
                )
        return register(self.client, run, name, why)

    @explained
    def add_session(self, run_id: str, name: str, folder: Path, p50_us: float) -> None:
        """Keep a latency session that a run took part in; the run's own measurements stay as they are."""
        self._keep(run_id, folder, f"latency_sessions/{name}")
        self.client.set_tag(run_id, "latency_session", name)
        self.client.log_metric(run_id, "session_latency_p50_us", p50_us)

    @explained
    def jobs(self, sweep: str) -> set[int]:
        """The jobs of a sweep, counted from 0, that have a run: their own, or one that several of them share."""
        own = _sweep_tag(sweep)
        tags = [run.tags for run in self._tagged(own)]
        shared = [name.removeprefix(f"{own}_") for names in tags for name in names if name.startswith(f"{own}_")]
        numbers = [*(names[own].partition(" ")[0] for names in tags), *shared]
        return {int(number) for number in numbers if re.fullmatch(r"[0-9]{1,9}", number)}

    @explained
    def close_unfinished(self, sweep: str) -> None:
        """When all jobs of a sweep are over, a run of it that still says RUNNING could not be recorded to its end."""
        for run in self.find(f"attributes.status = 'RUNNING' and tags.{_sweep_tag(sweep)} != ''"):
            self.close(run.info.run_id, "KILLED")

    def reserve_room(self) -> None:
        """Take room beside a database, so that what is open can be closed when its disk is full.

        What killed processes have reserved there is given back.
        """
        if database := self.address.database:
            for left in database.parent.glob(f".{database.name}.room-*"):
                if not alive(left.name.rpartition("-")[2]):
                    left.unlink(missing_ok=True)
            reserve(self._reserved(database))

    def give_room_back(self) -> None:
        """Let the database have the room that this process has reserved."""
        if database := self.address.database:
            self._reserved(database).unlink(missing_ok=True)

    def _reserved(self, database: Path) -> Path:
        return database.with_name(f".{database.name}.room-{this_process()}")

    @explained
    def close_own(self, status: Status = "KILLED") -> None:
        """Close what this process has open, also where the id of a run never came back from the store."""
        mine = f"tags.process = '{this_process()}' and tags.host = '{socket.gethostname()}'"
        for run in self.find(f"attributes.status = 'RUNNING' and {mine}"):
            self.close(run.info.run_id, status)

    @explained
    def close_orphans(self) -> None:
        """Runs that still say RUNNING were killed if their process here is gone, or their sweep elsewhere: say so."""
        elsewhere = []
        for run in self.find("attributes.status = 'RUNNING' and tags.kind != ''"):  # those of other programs are theirs
            tags = run.data.tags
            if tags.get("host") != socket.gethostname():
                elsewhere.append(run)
            elif not alive(tags.get("process", "")):
                self.close(run.info.run_id, "KILLED")
        for run in elsewhere:  # only now: the sweeps of this machine that were killed are closed
            parent = run.data.tags.get("mlflow.parentRunId")
            if parent and not self._runs(parent):
                self.close(run.info.run_id, "KILLED")

    def _runs(self, run_id: str) -> bool:
        """Whether a run says that it is under way; one that was deleted for good does not."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_run(run_id).info.status) == "RUNNING"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _open(self, name: str, tags: Mapping[str, str]) -> str:
        process = {"host": socket.gethostname(), "process": this_process()}
        told = {key: redacted(value)[:TAG_LENGTH] for key, value in {**tags, **process}.items()}
        run = self.client.create_run(self.experiment_id, run_name=redacted(name), tags=told)
        return str(run.info.run_id)

    @explained
    def find(self, query: str, limit: int | None = None) -> "list[Run]":
        """Runs that a query finds, newest first; a bar shows how many there are once it takes more than one page."""
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


_OUT_OF_REACH: dict[str, str] = {}  # storage that this process has tried in vain, and the reason


def _read(path: Path, run_id: str) -> bytes:
    check_regular(path, f"Run {run_id}: its {path.name}")
    return path.read_bytes()


@cache
def _known_tables(address: Tracking, experiment_id: str) -> StoreTables | None:
    """The tables to read runs from; None where the API is the way, which is said where a reader may wonder."""
    if address.tables is None:
        return None
    tables = StoreTables(address.tables, int(experiment_id))
    if (schema := tables.schema()) in SCHEMAS:
        return tables
    say(
        f"{address.shown} has tables of an MLflow that this version does not know (schema {schema}), so runs "
        "are read through MLflow's API, which takes longer."
    )
    return None


@cache
def _addresses(tables: StoreTables) -> Mapping[str, str]:
    """Those of all runs that there were when one was first asked for; the place of a run never changes."""
    return tables.addresses()


@cache
def _say_missing(address: Tracking) -> None:
    """Said once a store, and not of each of thousands of runs."""
    warn(
        f"{address.shown}: files of its runs are missing, so that pictures, intervals and differences go without them. "
        "`python -m experiments.store check` lists what is missing and where it was looked for."
    )


def run_name(setting: Setting, identity: Identity) -> str:
    """What a run is called in MLflow's tables; files, whose names say little, with a digest once it is known."""
    extra = f"+{setting.finetune_epochs}" if setting.finetune_epochs else ""
    model, dataset = identity.model_name, identity.dataset_name
    if model != setting.model:
        model = with_digest(model, identity.model)
    if dataset != setting.dataset:
        dataset = with_digest(dataset, identity.test)
    return f"{setting.strategy} {model} {dataset} epochs={setting.epochs}{extra} seed={setting.seed}"


def _sweep_tag(sweep: str) -> str:
    return f"sweep_{sweep}"
