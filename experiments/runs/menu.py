"""The output of --help: every option with its first comment line, read from the files in conf/."""

from pathlib import Path
from textwrap import indent

from rich.table import Table

from experiments.system.options import CONF
from experiments.system.program import program
from experiments.system.progress import CONSOLE

GROUPS = {
    "dataset": "images and labels",
    "model": "the architecture",
    "strategy": "how the trained model is quantized or compressed",
    "tracking": "the store of the runs",
    "suite": "predefined sweeps",
    "hydra/launcher": "how a sweep executes its runs; basic: one after another on this machine",
}
USAGE = """\
[bold]{run}[/] [KEY=VALUE ...]   one run
[bold]{run} -m[/] KEY=V1,V2 ...  a sweep: every combination of values
[bold]{run} +suite=NAME[/]       a predefined sweep
[bold]{run} --dry-run ...[/]     show the plan and the configuration of every run, and do nothing
[bold]{run} --json ...[/]        write the result as JSON on standard output, and everything else on standard error
[bold]{compare}[/]               the tables of the latest sweep

'strategy=glob(*)' selects all strategies in a sweep.
"""


def show() -> None:
    """Print the usage, every option of every group, and every other setting with its default."""
    run, compare = program("run"), program("compare")
    CONSOLE.print(USAGE.format(run=run, compare=compare), markup=True)
    for group, meaning in GROUPS.items():
        prefix = "+" if group == "suite" else ""
        table = Table(
            title=f"{prefix}{group}=…  {meaning}",
            title_justify="left",
            box=None,
            show_header=False,
            pad_edge=True,
        )
        for path in sorted((CONF / group).glob("*.yaml")):
            table.add_row(f"  {path.stem}", first_comment(path), style="default")
        CONSOLE.print(table, "")
    CONSOLE.print("[italic]settings and their defaults[/]  (settings of an option: see conf/)", markup=True)
    CONSOLE.print(indent(settings_text(), "  "), highlight=False)
    CONSOLE.print(
        "Exit codes: 0 success; 1 a run failed; 2 invalid command or configuration;\n"
        "130 interrupted. Hydra's own help: --hydra-help"
    )


def first_comment(path: Path) -> str:
    """Return the first comment line of an option, after Hydra's own comments (# @package)."""
    lines = (line.removeprefix("#").strip() for line in path.read_text().splitlines())
    return next(line for line in lines if not line.startswith("@"))


def settings_text() -> str:
    """Return the settings outside options with their defaults: config.yaml without `defaults` and `hydra`."""
    _, _, rest = (CONF / "config.yaml").read_text().partition("\ndefaults:\n")
    settings = rest[rest.index("\n\n") : rest.index("\nhydra:")]
    return "\n".join(line for line in settings.strip().splitlines() if "_target_" not in line)
