"""The output of --help: every option with its first comment line, read from the files in conf/."""

from pathlib import Path
from textwrap import indent

from rich.table import Table

from experiments.system.options import CONF
from experiments.system.program import program
from experiments.system.progress import CONSOLE

GROUPS = {
    "dataset": "the examples and their targets",
    "model": "the architecture, or your own model",
    "task": "what the model predicts, and the metric that judges it",
    "strategy": "how the trained model is quantized or compressed",
    "tracking": "the store of the runs",
    "suite": "predefined sweeps",
    "hydra/launcher": "how a sweep executes its runs; basic: one after another on this machine",
}
# The first line of an option that was never the best choice in measurements; it works as others do.
UNLISTED = "# unlisted:"
USAGE = """\
Train a model, quantize it, convert it to TFLite, measure the file, and record
the run.

[bold]{run}[/] [KEY=VALUE ...]   one run
[bold]{run} -m[/] KEY=V1,V2 ...  a sweep: all combinations
[bold]{run} +suite=NAME[/]       a predefined sweep
[bold]{compare}[/]               then: which file to ship

--dry-run   show the plan and the configuration of every run, and do nothing
--json      write the result as JSON on standard output, and everything else on
            standard error

Example: {run} -m strategy=none,ptq_int8,qat epochs=1,5
'strategy=glob(*)' selects all strategies.
"""


def show() -> None:
    """Print the usage, every option of every group, and every other setting with its default."""
    run, compare = program("run"), program("compare")
    CONSOLE.print(USAGE.format(run=run, compare=compare), markup=True, highlight=False)
    for group, meaning in GROUPS.items():
        prefix = "+" if group == "suite" else ""
        CONSOLE.print(f"[italic]{prefix}{group}=…[/]  {meaning}", markup=True, highlight=False)
        table = Table.grid(padding=(0, 2, 0, 0))
        for path in sorted((CONF / group).glob("*.yaml")):
            if path.read_text().startswith(UNLISTED):
                continue
            table.add_row(f"   {path.stem}", first_comment(path), style="default")
        CONSOLE.print(table, "")
    CONSOLE.print(
        "[italic]settings and their defaults[/]  (those of an option are in conf/GROUP/OPTION.yaml)", markup=True
    )
    CONSOLE.print(indent(settings_text(), "  "), highlight=False)
    CONSOLE.print(
        "Exit codes: 0 success; 1 a run failed; 2 invalid command or configuration;\n"
        "130 interrupted. Hydra's own help: --hydra-help"
    )


def first_comment(path: Path) -> str:
    """Return the first comment line of an option, after Hydra's own comments (# @package) and UNLISTED."""
    lines = (line for line in path.read_text().splitlines() if not line.startswith(UNLISTED))
    return next(line for line in (line.removeprefix("#").strip() for line in lines) if not line.startswith("@"))


def settings_text() -> str:
    """Return the settings outside options with their defaults: config.yaml without `defaults` and `hydra`."""
    _, _, rest = (CONF / "config.yaml").read_text().partition("\ndefaults:\n")
    settings = rest[rest.index("\n\n") : rest.index("\nhydra:")]
    return "\n".join(line for line in settings.strip().splitlines() if "_target_" not in line)
