"""What surrounds a sweep: every job's configuration checked first, the parent run, the comparison at the end."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from experiments.compare import show_rows, write_tables
from experiments.configuration import Request, read
from experiments.errors import UserError
from experiments.progress import Advance, bar, say
from experiments.stamp import stamp
from experiments.tracking import Store


class SweepCallback(Callback):  # type: ignore[misc]  # Hydra ships no types
    """Hydra's hooks around a sweep and its jobs."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._advance: Advance = lambda _steps: None
        self._store: Store | None = None
        self._sweep = ""
        self._jobs: list[list[str]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Launchers send the callback to other processes, where it has nothing to do."""
        return {}

    def on_multirun_start(self, config: DictConfig, config_name: str, **_: Any) -> None:
        """Check the configuration of every job, open the parent run, and tell the jobs its id."""
        self._jobs = _jobs_of(config)
        requests = [_request(overrides, config_name) for overrides in self._jobs]
        self._store = requests[0].tracking.connect()
        self._store.close_orphans()
        command = " ".join(config.hydra.overrides.task) or "suite"
        self._sweep = self._store.open_sweep(f"sweep {command}"[:250], {**stamp(), "command": command[:5000]})
        with open_dict(config):
            config.hydra.overrides.task.append(f"sweep={self._sweep}")
        say(f"{len(self._jobs)} runs")
        self._advance = self._open.enter_context(bar("Sweep", total=len(self._jobs)))

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Say which job begins."""
        if config.hydra.mode == RunMode.MULTIRUN and self._jobs:
            number = int(config.hydra.job.num)
            say(f"{number + 1}/{len(self._jobs)} {' '.join(self._jobs[number])}")

    def on_job_end(self, **_: Any) -> None:
        """Move the bar of the sweep on."""
        self._advance(1)

    def on_multirun_end(self, **_: Any) -> None:
        """Show the comparison, keep it with the parent run, and list what failed: then the exit code is 1."""
        self._open.close()
        assert self._store is not None
        rows = self._store.rows(self._sweep)
        failed = [row for row in rows if row["status"] != "FINISHED"]
        with tempfile.TemporaryDirectory(prefix="comparison-") as folder:
            write_tables(rows, Path(folder))
            self._store.attach(self._sweep, Path(folder))
            self._store.describe(self._sweep, (Path(folder) / "comparison.md").read_text())
        self._store.close(self._sweep, "FAILED" if failed else "FINISHED")
        show_rows(rows)
        if failed:
            lines = [f"  {row['strategy']} (run {row['run_id']}): {row['error'] or row['status']}" for row in failed]
            sys.stderr.write("\n".join([f"{len(failed)} of {len(rows)} runs failed:", *lines, ""]))
            sys.exit(1)


def _jobs_of(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of the sweep, as Hydra's own sweeper will make them."""
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*arguments, *config.hydra.overrides.task])
    batches: list[list[list[str]]] = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return batches[0]


def _request(overrides: list[str], config_name: str) -> Request:
    config = GlobalHydra.instance().config_loader().load_configuration(config_name, overrides, run_mode=RunMode.RUN)
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    try:
        return read(config, choices)
    except UserError as error:
        raise UserError(f"{error}\n(in the run {' '.join(overrides)}; nothing was run)") from error
