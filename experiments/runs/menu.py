"""The menu that --help shows: every option with the line it opens with, read from the files in conf/."""

from pathlib import Path
from textwrap import indent

from rich.table import Table

from experiments.system.options import CONF
from experiments.system.progress import CONSOLE

GROUPS = {
    "dataset": "images and labels",
    "model": "the architecture",
    "strategy": "what is done to the trained model",
    "tracking": "where runs are kept",
    "suite": "ready-made sweeps",
    "hydra/launcher": "where the runs of a sweep take place; basic: one after another, here",
}
USAGE = """\
[bold]python -m experiments.run[/] [KEY=VALUE ...]       one run
[bold]python -m experiments.run -m[/] KEY=V1,V2 ...      a sweep: every combination; 'strategy=glob(*)' takes all
[bold]python -m experiments.run +suite=NAME[/]          a ready-made sweep
[bold]python -m experiments.compare[/]                   the table of the latest sweep; --csv, --markdown, ...
"""


def show() -> None:
    """Print the usage, every option of every group, and every other setting with its default."""
    CONSOLE.print(USAGE, markup=True)
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
    CONSOLE.print("[italic]settings and their defaults[/]  (those of an option: see its file in conf/)", markup=True)
    CONSOLE.print(indent(settings_text(), "  "), highlight=False)
    CONSOLE.print(
        "Exit codes: 0 well; 1 a run failed; 2 wrong command or configuration; 130 stopped.\n"
        "Hydra's own help: --hydra-help"
    )


def first_comment(path: Path) -> str:
    """The line that an option opens with, without its mark; Hydra's own marks (# @package) come before it."""
    lines = (line.removeprefix("#").strip() for line in path.read_text().splitlines())
    return next(line for line in lines if not line.startswith("@"))


def settings_text() -> str:
    """The settings that belong to no option, with their defaults: config.yaml without its defaults list and Hydra."""
    _, _, rest = (CONF / "config.yaml").read_text().partition("\ndefaults:\n")
    settings = rest[rest.index("\n\n") : rest.index("\nhydra:")]
    return "\n".join(line for line in settings.strip().splitlines() if "_target_" not in line)
