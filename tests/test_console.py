"""The console command: its list of commands, its version, and every command, without loading heavy libraries."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest

from experiments.__main__ import COMMANDS, main
from experiments.completion import SCRIPTS, words_of_commands
from experiments.system import program
from experiments.system.program import DISTRIBUTION, PROGRAM
from tests.conftest import REPOSITORY, Done, run_interpreter

# What the script does that an installer makes, and then says which heavy libraries it has loaded.
SCRIPT = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", *{{"tensorflow", "mlflow", "pandas", "hydra"}} & sys.modules.keys()))
sys.argv[0] = "/somewhere/bin/{PROGRAM}"
from experiments.__main__ import main
main()
"""


def tqb(folder: Path, *arguments: str) -> Done:
    """Run the console command in a folder."""
    return run_interpreter(folder, "-c", SCRIPT, *arguments)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_menu_names_every_command(arguments: list[str], tmp_path: Path) -> None:
    done = tqb(tmp_path, *arguments)
    assert done.returncode == 0
    assert all(f"{PROGRAM} {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("\nloaded:\n")


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"]])
def test_version_is_that_of_the_distribution(arguments: list[str], tmp_path: Path) -> None:
    done = tqb(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (0, f"{PROGRAM} {version(DISTRIBUTION)}\nloaded:\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_loads_neither_tensorflow_nor_mlflow(name: str, tmp_path: Path) -> None:
    done = tqb(tmp_path, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = done.stdout.rpartition("loaded:")[2].split()
    assert not {"tensorflow", "mlflow"} & set(loaded)


def test_unknown_command_is_rejected_with_a_suggestion(tmp_path: Path) -> None:
    done = tqb(tmp_path, "comapre")
    assert done.returncode == 2
    assert done.stderr.startswith(f"comapre: {PROGRAM} has no such command. Did you mean compare?")


def test_usage_names_the_command_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "usage: tqb store" in tqb(tmp_path, "store", "--help").stdout
    monkeypatch.setattr(sys, "argv", ["experiments/store.py"])
    assert program.program("store") == "python -m experiments.store"


def test_command_receives_arguments_and_returns_its_exit_code(tmp_path: Path) -> None:
    done = tqb(tmp_path, "run", "stratgy=qat")
    assert done.returncode == 2
    assert "stratgy" in done.stderr
    assert "Did you mean" in done.stderr


def test_ctrl_c_during_import_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_name: str) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [PROGRAM, "compare"])
    monkeypatch.setattr("experiments.__main__.import_module", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted.\n")


def test_every_command_can_be_started_as_a_module() -> None:
    for name in COMMANDS:
        assert re.search(r'^if __name__ == "__main__":', (REPOSITORY / "experiments" / f"{name}.py").read_text(), re.M)


# What readline does when somebody presses Tab: the words are parted at "=" as well.
TAB = r"""
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_tqb
printf '%s|' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "tqb.bash"
    path.write_text(SCRIPTS["bash"](words_of_commands()) + TAB)
    return path


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("tqb com", ["compare ", "completion "]),
        ("tqb run strategy=q", ["qat"]),
        (
            "tqb run -m strategy=none,ptq_i",
            ["none,ptq_int16x8", "none,ptq_int4", "none,ptq_int4_int8", "none,ptq_int8"],
        ),
        ("tqb run +suite=sm", ["smoke"]),
        ("tqb run hydra/launcher=", ["basic", "joblib", "ray", "submitit"]),
        ("tqb run dataset.test_sam", ["dataset.test_samples="]),
        ("tqb run --mul", ["--multirun "]),
        ("tqb sensitivity max", ["max_drop="]),
        ("tqb compare --mark", ["--markdown "]),
        ("tqb cache clear --kind tr", ["training "]),
        ("tqb store re", ["relocate "]),
        ("tqb run model.path=my", [""]),  # names of files are the shell's own matter
    ],
)
def test_bash_completes_commands_options_and_settings(typed: str, proposed: list[str], script: Path) -> None:
    words = re.sub(r"([=:])", r" \1 ", typed).split()
    done = subprocess.run(["bash", script, typed, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split("|")[:-1] == proposed


@pytest.mark.parametrize("shell", SCRIPTS)
def test_shell_accepts_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(SCRIPTS[shell](words_of_commands()))
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
