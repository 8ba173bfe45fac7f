"""The door: `python -m experiments.run [-m] KEY=VALUE ...`; `--help` shows the menu.

Exit codes: 0 all went well; 1 a run failed, or its file is not what its strategy promises; 2 the command or the
configuration is wrong, nothing was run; 130 stopped.
"""

import os
import signal
import sys
from typing import NoReturn

from experiments.card import CONF
from experiments.errors import UserError
from experiments.progress import complain, end_bars


def main() -> None:
    """Show the menu, or hand over to Hydra and turn what goes wrong into one message and an exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from experiments.menu import show

        show()
        return
    signal.signal(signal.SIGTERM, _stop)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    try:
        _hydra()
    except UserError as error:
        _quit(str(error), 2)
    except KeyboardInterrupt:
        _quit("stopped; what was finished is kept, and the same command goes on from there", 130)


def _hydra() -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from experiments.compare import show_rows
    from experiments.configuration import read, told
    from experiments.job import JobError, perform

    def job(config: DictConfig) -> None:
        whole = HydraConfig.get()
        in_sweep = whole.mode == RunMode.MULTIRUN
        if in_sweep:
            try:
                perform(read(config, whole.runtime.choices), job=whole.job.num)
            except JobError as failure:
                complain(str(failure))  # the sweep goes on, and ends with a list of what failed
            except UserError as error:
                _quit(str(error), 1)  # the store is gone: whatever ran on could not be recorded
            return
        try:
            row = perform(read(config, whole.runtime.choices), job=0)
            show_rows([row])
        except UserError as error:
            _quit(str(error), 2)
        except JobError as failure:
            _quit(str(failure), 1)
        if row["verified"] == "false":
            _quit(f"not verified: the file breaks its strategy's promise: {row['broken_promise']}", 1)

    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(told(error)) from error
    except OSError as error:
        raise UserError(f"{error}. Run in a folder that can be written, or give hydra.run.dir=FOLDER.") from error


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _quit(message: str, code: int) -> NoReturn:
    end_bars()
    sys.stderr.write(f"{message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
