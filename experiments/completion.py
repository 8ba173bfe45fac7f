"""Shell completion: `tqb completion bash|zsh|fish` prints a script that completes commands, options and settings.

bash: tqb completion bash > ~/.local/share/bash-completion/completions/tqb
zsh:  tqb completion zsh > ~/.tqb.zsh, and `source ~/.tqb.zsh` in ~/.zshrc
fish: tqb completion fish > ~/.config/fish/completions/tqb.fish

The script contains all words that it proposes, and does not start Python. After an update of this package, print it
again.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from experiments.system.options import CONF
from experiments.system.program import PROGRAM, program

# Options of Hydra's command line, in addition to KEY=VALUE.
RUN_OPTIONS = ("--config-dir", "--dry-run", "--help", "--json", "--multirun", "-m")


@dataclass(frozen=True)
class Words:
    """Completions after a command: words, and for some of them a list of values."""

    words: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by option (--kind) or setting (strategy)


def main() -> None:
    """Run the command line."""
    options = parser().parse_args()
    sys.stdout.write(SCRIPTS[options.shell](words_of_commands()))


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog=program("completion"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="the shell to print the script for")
    return parser


def words_of_commands() -> dict[str, Words]:
    """Return the words of each command, from its parser or from the files in conf/."""
    from experiments import cache, compare, latency, sensitivity, store

    settings = _settings()
    baseline_settings = {
        name: values
        for name, values in settings.items()
        if name.lstrip("+").partition(".")[0] in sensitivity.EFFECTIVE or name in sensitivity.EFFECTIVE
    }
    return {
        "run": _of_settings(settings, RUN_OPTIONS),
        "compare": _of_parser(compare.parser()),
        "latency": _of_parser(latency.parser()),
        "sensitivity": _of_settings({**baseline_settings, **dict.fromkeys(sensitivity.OWN, ())}, ("--help", "--json")),
        "cache": _of_parser(cache.parser()),
        "store": _of_parser(store.parser()),
        "completion": _of_parser(parser()),
    }


def _settings() -> dict[str, tuple[str, ...]]:
    """Return every setting, with the names of its options if it is a group."""
    from experiments.runs.menu import GROUPS
    from experiments.runs.refusals import known_settings

    settings: dict[str, tuple[str, ...]] = dict.fromkeys(known_settings(), ())
    del settings["sweep"]  # set by sweeps for their runs, not by users
    for group in GROUPS:
        names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        match group:
            case "suite":
                settings["+suite"] = tuple(names)
            case "hydra/launcher":
                settings[group] = ("basic", *names)
            case _:
                settings[group] = tuple(names)
    return settings


def _of_settings(settings: Mapping[str, tuple[str, ...]], options: tuple[str, ...]) -> Words:
    values = {name: listed for name, listed in settings.items() if listed}
    return Words((*options, *(f"{name}=" for name in sorted(settings))), values)


def _of_parser(parser: argparse.ArgumentParser) -> Words:
    words: list[str] = []
    values: dict[str, tuple[str, ...]] = {}
    for action in parser._actions:  # argparse has no public list of them
        choices = tuple(map(str, action.choices or ()))
        long = [option for option in action.option_strings if option.startswith("--")]
        words += long or choices  # choices without an option belong to a positional argument
        values |= dict.fromkeys(long, choices) if choices else {}
    return Words(tuple(words), values)


BASH = r"""
_PROGRAM_words() {
    case "$1" in
WORDS
    esac
}
_PROGRAM_values() {
    case "$1 $2" in
VALUES
    esac
}
_PROGRAM() {
    local command=${COMP_WORDS[1]} typed=${COMP_LINE:0:$COMP_POINT} head= words= word= broken=
    typed=${typed##*[[:space:]]}
    if [[ $COMP_CWORD -eq 1 ]]; then
        words='COMMANDS --help --version'
    elif [[ $typed == *=* ]]; then
        head=${typed%"${typed##*[=,]}"}  # of several values, those before the last one
        words=$(_PROGRAM_values "$command" "${typed%%=*}")
        # bash treats the value as a word of its own, and replaces only this word
        [[ ${COMP_WORDBREAKS-} == *=* ]] && broken=${typed%%=*}=
    else
        words=$(_PROGRAM_values "$command" "${COMP_WORDS[$((COMP_CWORD - 1))]}")
        [[ -n $words ]] || words=$(_PROGRAM_words "$command")
    fi
    COMPREPLY=()
    for word in $words; do
        if [[ $head$word == "$typed"* ]]; then
            word=$head$word
            [[ $word == *= || -n $head ]] || word="$word "
            COMPREPLY+=("${word#"$broken"}")
        fi
    done
}
complete -o default -o nospace -F _PROGRAM PROGRAM
"""


def _bash(commands: Mapping[str, Words]) -> str:
    listed = "\n".join(_case(name, of.words) for name, of in commands.items())
    values = "\n".join(
        _case(f"{name} {key}", values) for name, of in commands.items() for key, values in of.values.items()
    )
    script = BASH.replace("PROGRAM", PROGRAM).replace("COMMANDS", " ".join(commands))
    return script.replace("WORDS\n", f"{listed}\n", 1).replace("VALUES\n", f"{values}\n", 1).lstrip()


def _case(pattern: str, words: tuple[str, ...]) -> str:
    return f"        {shlex.quote(pattern)}) echo {shlex.quote(' '.join(words))} ;;"


def _zsh(commands: Mapping[str, Words]) -> str:
    """Return the script for bash, with zsh's functions that run such scripts."""
    return f"autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n{_bash(commands)}"


def _fish(commands: Mapping[str, Words]) -> str:
    def line(condition: str, words: tuple[str, ...], *options: str) -> str:
        return " ".join(["complete", "-c", PROGRAM, "-n", shlex.quote(condition), *options, "-a", _listed(words)])

    lines = [line("__fish_use_subcommand", (*commands, "--help", "--version"), "-f")]
    for name, of in commands.items():
        here = f"__fish_seen_subcommand_from {name}"
        settings = {key: values for key, values in of.values.items() if not key.startswith("-")}
        plain = tuple(word for word in of.words if word.removesuffix("=") not in settings)
        lines.append(line(here, (*plain, *_chosen(settings))))
        for key, values in of.values.items():
            if key.startswith("--"):
                lines.append(f"complete -c {PROGRAM} -n '{here}' -x -l {key[2:]} -a {_listed(values)}")
    return "\n".join([*lines, ""])


def _chosen(settings: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    yield from (f"{key}={value}" for key, values in settings.items() for value in values)


def _listed(words: tuple[str, ...]) -> str:
    return shlex.quote(" ".join(words))


SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


if __name__ == "__main__":
    main()
