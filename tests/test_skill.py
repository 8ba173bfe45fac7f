"""SKILL.md is followed literally: each of its commands is run, in the order of the page, in a folder of its own."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS
from tests.conftest import REPOSITORY, run

SKILL = (REPOSITORY / "SKILL.md").read_text(encoding="utf-8")
COMMAND_LINES = [
    line for block in re.findall(r"^```bash\n(.*?)^```", SKILL, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
EXPECTED = re.compile(r"# exit code (\d+)$")


def followed(folder: Path, line: str) -> tuple[int, str]:
    """Run a line as a shell would; returns its exit code and what it wrote."""
    command, _, target = line.partition(" > ")
    match shlex.split(command, comments=True):
        case ["python", "-m", module, *arguments]:
            done = run(folder, module, *arguments, measured=False)
            if target:
                (folder / target).write_text(done.stdout)
            return done.returncode, done.stdout + done.stderr
        case ["python", *arguments]:
            ended = subprocess.run(
                [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
            )
            return ended.returncode, ended.stdout + ended.stderr
    raise AssertionError(f"{line}: no command of Python")


def test_the_page_shows_the_commands_that_choose_measure_and_ship() -> None:
    text = "\n".join(COMMAND_LINES)
    assert {name for name in COMMANDS if f"experiments.{name} " in text} >= {"run", "compare"}
    assert all(option in text for option in ("--dry-run", "--json", "--save", "--require", "--against", "--summary"))


def test_its_links_lead_to_pages_of_the_repository() -> None:
    links = re.findall(r"\]\(([^)#]+)", SKILL)
    assert links
    assert [link for link in links if not (REPOSITORY / link).is_file()] == []


@pytest.mark.endtoend
def test_every_command_of_the_page_ends_as_the_page_says(tmp_path: Path) -> None:
    for line in COMMAND_LINES:
        expected = EXPECTED.search(line)
        code, written = followed(tmp_path, line)
        assert code == (int(expected[1]) if expected else 0), f"{line}\n{written}"
    assert json.loads((tmp_path / "model.json").read_text())["reasons"]
    assert not (tmp_path / "tiny.tflite").exists()
    assert (tmp_path / "summary.md").read_text().startswith("## Which quantization to ship")
