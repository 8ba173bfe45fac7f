"""The console command `tqb`: `tqb NAME ...` is `python -m experiments.NAME ...`."""

import sys
from importlib import import_module

from experiments.system.errors import print_error, suggestion
from experiments.system.program import PROGRAM, version_line

COMMANDS = {
    "run": "train, quantize, convert and measure: one run, or a sweep",
    "compare": "show recorded runs as tables, write a report, choose which file to ship",
    "latency": "time files together and compare their latencies",
    "sensitivity": "find the layers that lose little accuracy when quantized",
    "cache": "list, verify or clear cached training states, conversions, evaluations and data",
    "store": "check a store of runs, update the addresses of its files, or close lost runs",
    "completion": "print the shell completion script for bash, zsh or fish",
}


def main() -> None:
    """Show the list of commands, or import and run one of them."""
    try:
        match sys.argv[1:]:
            case [] | ["-h" | "--help", *_]:
                sys.stdout.write(_menu())
            case ["--version", *_]:
                sys.stdout.write(version_line())
            case [name, *arguments] if name in COMMANDS:
                sys.argv = [f"{PROGRAM} {name}", *arguments]
                import_module(f"experiments.{name}").main()
            case [name, *_]:
                print_error(f"{name}: {PROGRAM} has no such command. {suggestion(name, COMMANDS)}")
                sys.exit(2)
    except KeyboardInterrupt:  # commands handle it themselves, once they are imported
        print_error("interrupted.")
        sys.exit(130)


def _menu() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {PROGRAM} {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join([
        "Find out which quantization of a Keras model to ship as TFLite, with the evidence.",
        "",
        *lines,
        "",
        f"{PROGRAM} COMMAND --help shows the options of a command; {PROGRAM} --version shows the version.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
