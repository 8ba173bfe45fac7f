"""The door: `python -m experiments.run [-m] KEY=VALUE ...`; `--help` shows the menu.

Exit codes: 0 all went well; 1 a run failed, or its file is not what its strategy promises; 2 the command or the
configuration is wrong, nothing was run; 130 stopped.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from experiments.system.disk import explained
from experiments.system.errors import UserError, first_line, reporting_user_errors, robust_streams, tell
from experiments.system.escaping import visible
from experiments.system.options import CONF
from experiments.system.progress import end_bars, warn
from experiments.system.stopping import stop_handled, stop_on_signals

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

GOES_ON = "What was finished is kept, and the same command goes on from there."


class FaultError(Exception):
    """An error in a run that is nobody's mistake but the suite's: its text is all that is known of it.

    A launcher's process hands it over in a pickle, which would lose its cause.
    """


def main() -> None:
    """Show the menu, or hand over to Hydra and turn what goes wrong into one message and an exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from experiments.runs.menu import show

        with reporting_user_errors():
            show()
        return
    robust_streams()
    stop_on_signals()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    try:
        _hydra(sys.argv[1:])
    except UserError as error:
        _quit(str(error), 2)
    except KeyboardInterrupt:
        stop_handled()
        _quit(f"stopped. {GOES_ON}", 130)


def _hydra(arguments: Sequence[str]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from experiments.runs.command_line import check_overrides, readable
    from experiments.runs.refusals import WRONG, is_wrong, told

    begun: list[int] = []

    def job(config: DictConfig) -> None:
        whole = HydraConfig.get()
        begun.append(1)
        try:
            (_job_of_a_sweep if whole.mode == RunMode.MULTIRUN else _one_run)(config, whole)
        except OmegaConfBaseException as error:
            _quit(told(error), 2)
        except Exception as error:
            raise FaultError("".join(traceback.format_exception(error))) from error

    sys.argv[1:] = readable(arguments)  # where Hydra takes them from
    check_overrides(sys.argv[1:])
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except FaultError as fault:
        _quit(f"{fault}This is a fault of the suite itself, and not of what was asked for.", 1)
    except WRONG as error:
        raise UserError(told(error)) from error
    except ConnectionError as error:
        raise UserError(
            f"hydra/launcher: {first_line(error).rstrip('.')}. Is the cluster running that is named there?"
        ) from error
    except OSError as error:
        refused = (
            f"{explained(error, Path.cwd())}. Run in a folder that can be written and has room, or give "
            "hydra.run.dir=FOLDER (of a sweep, hydra.sweep.dir)."
        )
        if begun:
            _quit(f"{refused}\n{GOES_ON}", 1)
        raise UserError(refused) from error
    except Exception as error:
        if is_wrong(error):
            raise UserError(told(error)) from error
        if type(error).__module__.startswith("submitit."):
            from experiments.runs.slurm import reason

            _quit(f"hydra/launcher: Slurm ended the sweep ({reason(str(error))})\n{GOES_ON}", 1)
        if not _of_a_launcher(error):
            if changed := [each for each in arguments if each.lstrip("+~").startswith("hydra")]:
                raise UserError(f"{' '.join(changed)}: Hydra cannot work with this ({first_line(error)}).") from error
            raise
        _quit(f"hydra/launcher: a process that ran jobs is gone ({first_line(error)})\n{GOES_ON}", 1)


def _job_of_a_sweep(config: "DictConfig", whole: "HydraConf") -> None:
    from experiments.runs.configuration import read
    from experiments.runs.job import JobError, StoreGoneError, perform
    from experiments.tracking import await_server

    try:
        request = read(config, whole.runtime.choices)
        await_server(request.tracking)
        perform(request, job=whole.job.num)
    except (StoreGoneError, UserError) as error:  # the configuration was checked: it is the store that is gone
        if whole.runtime.choices["hydra/launcher"] == "basic":
            _quit(f"{error}\n{GOES_ON}", 1)  # whatever ran on could not be recorded
        warn(str(error))  # from another process, a sweep is told at its end that there is no run
    except JobError as failure:
        warn(str(failure))  # the sweep goes on, and ends with a list of what failed


def _one_run(config: "DictConfig", whole: "HydraConf") -> None:
    from experiments.comparison.loading import show_rows
    from experiments.runs.configuration import read
    from experiments.runs.job import JobError, StoreGoneError, perform

    try:
        request = read(config, whole.runtime.choices)
        row = perform(request, job=0)
    except UserError as error:
        _quit(str(error), 2)
    except StoreGoneError as error:
        _quit(f"{error}\n{GOES_ON}", 1)
    except JobError as failure:
        _quit(str(failure), 1)
    show_rows([row])
    if row["verified"] == "false":
        _quit(f"not verified: the file breaks its strategy's promise: {row['broken_promise']}", 1)


def _of_a_launcher(error: Exception) -> bool:
    """Whether joblib or Ray lost a process, as happens when it is killed or memory runs out."""
    return isinstance(error, BrokenExecutor) or type(error).__module__.startswith("ray.")


def _quit(message: str, code: int) -> NoReturn:
    end_bars()
    tell(visible(message))
    sys.exit(code)


if __name__ == "__main__":
    main()
