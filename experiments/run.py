"""Run one configuration or a sweep: `python -m experiments.run [-m] KEY=VALUE ...`; `--help` lists the options.

`--dry-run` shows the plan and the configuration of every run, and does nothing. `--json` writes the result as one JSON
document on standard output, and everything else on standard error.

Exit codes: 0 success; 1 a run failed, or its file does not match the strategy's expectation; 2 the command or the
configuration is invalid and nothing was run; 130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # the imports below take seconds

import os
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from experiments.system.disk import explain_os_error
from experiments.system.errors import (
    Ended,
    UserError,
    first_line,
    print_error,
    reporting_user_errors,
    robust_streams,
)
from experiments.system.escaping import escape_control
from experiments.system.options import CONF
from experiments.system.program import version_line
from experiments.system.progress import end_bars, say, warn
from experiments.system.result import JSON, result
from experiments.system.silence import ignore_schemas_of_launchers
from experiments.system.stopping import stop_handled, stop_on_signals

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from experiments.tracking import Row

DRY_RUN = "--dry-run"  # an option of this suite; Hydra does not see it
RESUME_HINT = "Finished runs are kept; run the same command again to continue."


class InternalError(Exception):
    """An unexpected error in a run: a bug in the suite. Its text is the traceback.

    `__cause__` would be lost when a launcher pickles the error in a worker process.
    """


def main() -> None:
    """Show the options, or run Hydra; every error becomes one message and an exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from experiments.runs.menu import show

        with reporting_user_errors():
            show()
        return
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        sys.stdout.write(version_line())
        return
    arguments = [each for each in sys.argv[1:] if each != JSON]
    with result("run", JSON in sys.argv[1:]) as document:
        _run(arguments, document)


def _run(arguments: Sequence[str], document: dict[str, Any]) -> None:
    """Run Hydra, and put the result for --json into `document`."""
    robust_streams()
    stop_on_signals()
    ignore_schemas_of_launchers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    try:
        _hydra(arguments, document)
    except UserError as error:
        _quit(str(error), 2)
    except KeyboardInterrupt:
        stop_handled()
        _quit(f"interrupted. {RESUME_HINT}", 130)


def _hydra(arguments: Sequence[str], document: dict[str, Any]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from experiments.runs.command_line import check_overrides, normalize
    from experiments.runs.refusals import CONFIGURATION_ERRORS, explain, is_configuration_error
    from experiments.runs.sweep import SweepCallback

    started: list[int] = []

    def job(config: DictConfig) -> "Row | None":
        hydra_config = HydraConfig.get()
        started.append(1)
        try:
            if hydra_config.mode == RunMode.MULTIRUN:
                return _sweep_job(config, hydra_config)
            return _single_run(config, hydra_config, document)
        except OmegaConfBaseException as error:
            _quit(explain(error), 2)
        except Exception as error:
            raise InternalError("".join(traceback.format_exception(error))) from error

    SweepCallback.dry_run, SweepCallback.document = DRY_RUN in arguments, document
    sys.argv[1:] = normalize([each for each in arguments if each != DRY_RUN])  # Hydra reads its arguments from here
    check_overrides(sys.argv[1:])
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except InternalError as error:
        _quit(f"{error}This is a bug in the suite, not an error in the command. Please report it.", 1)
    except CONFIGURATION_ERRORS as error:
        raise UserError(explain(error)) from error
    except ConnectionError as error:
        raise UserError(
            f"hydra/launcher: {first_line(error).rstrip('.')}. Check that the cluster at this address is running."
        ) from error
    except OSError as error:
        message = (
            f"{explain_os_error(error, Path.cwd())}. Run in a writable folder with free space, or set "
            "hydra.run.dir=FOLDER (for a sweep, hydra.sweep.dir=FOLDER)."
        )
        if started:
            _quit(f"{message}\n{RESUME_HINT}", 1)
        raise UserError(message) from error
    except Exception as error:
        if is_configuration_error(error):
            raise UserError(explain(error)) from error
        if type(error).__module__.startswith("submitit."):
            from experiments.runs.slurm import reason

            _quit(f"hydra/launcher: Slurm ended the sweep ({reason(str(error))})\n{RESUME_HINT}", 1)
        if not _is_launcher_error(error):
            if changed := [each for each in arguments if each.lstrip("+~").startswith("hydra")]:
                raise UserError(f"{' '.join(changed)}: Hydra rejects this value ({first_line(error)}).") from error
            raise
        _quit(f"hydra/launcher: a worker process died ({first_line(error)})\n{RESUME_HINT}", 1)


def _sweep_job(config: "DictConfig", hydra_config: "HydraConf") -> "Row | None":
    from experiments.runs.configuration import read
    from experiments.runs.job import JobError, StoreUnavailableError, run_job
    from experiments.runs.rounds import LOCAL
    from experiments.tracking import await_server

    try:
        request = read(config, hydra_config.runtime.choices)
        await_server(request.tracking)
        timed_by_sweep = hydra_config.runtime.choices["hydra/launcher"] in LOCAL
        return run_job(request, hydra_config.job.num, timed_by_sweep)
    except (StoreUnavailableError, UserError) as error:  # the configuration was checked, so the store is unavailable
        if hydra_config.runtime.choices["hydra/launcher"] == "basic":
            _quit(f"{error}\n{RESUME_HINT}", 1)  # later runs could not be recorded either
        warn(str(error))  # in a worker process; the sweep lists the missing run at its end
    except JobError as failure:
        warn(str(failure))  # the sweep continues and lists the failures at its end
    return None


def _single_run(config: "DictConfig", hydra_config: "HydraConf", document: dict[str, Any]) -> "Row":
    from experiments.comparison.columns import frame, without_internal_columns
    from experiments.comparison.files import records
    from experiments.comparison.loading import show_rows
    from experiments.runs.configuration import read
    from experiments.runs.job import JobError, StoreUnavailableError, run_job
    from experiments.runs.plan import announce
    from experiments.tracking import connect

    try:
        request = read(config, hydra_config.runtime.choices)
        with announce(request):
            row = run_job(request, job=0)
    except UserError as error:
        _quit(str(error), 2)
    except StoreUnavailableError as error:
        _quit(f"{error}\n{RESUME_HINT}", 1)
    except JobError as failure:
        _quit(str(failure), 1)
    show_rows([row])
    store = connect(request.tracking, create=False)
    document["rows"] = records(without_internal_columns(frame([row])))
    document["mlflow"] = {"ui": store.ui_command, "page": store.page(row["run_id"])}
    say(f"Run {row['run_id']}. In MLflow: {store.describe_page(row['run_id'])}")
    if row["verified"] == "false":
        _quit(f"not verified: the file does not match its strategy's expectation: {row['broken_promise']}", 1)
    return row


def _is_launcher_error(error: Exception) -> bool:
    """Whether joblib or Ray lost a worker process, for example because memory ran out."""
    return isinstance(error, BrokenExecutor) or type(error).__module__.startswith("ray.")


def _quit(message: str, code: int) -> NoReturn:
    end_bars()
    print_error(escape_control(message))
    raise Ended(code, message)


if __name__ == "__main__":
    main()
