"""Processes that kill themselves at a chosen write, for tests that must survive a kill."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness.kill_at_write import KillAtWrite, build, changes, has_compiler

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and has_compiler()), reason="needs Linux and a C compiler (apt-get install gcc)"
)
WRITES = """
import os, sqlite3
from pathlib import Path
Path("notes.txt").write_text("not counted")
Path("a.part").write_bytes(b"0123456789")
os.replace("a.part", "a.data")
database = sqlite3.connect("b.data")
database.execute("create table numbers (n)")
os.unlink("a.data")
"""


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> KillAtWrite:
    return KillAtWrite(build(tmp_path_factory.mktemp("library")), ("*/a.*", "*/b.data"))


def run(code: str, watch: KillAtWrite, folder: Path) -> int:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=watch.environment(os.environ), check=False).returncode


def test_every_change_of_a_matching_file_is_listed_in_order(watch: KillAtWrite, tmp_path: Path) -> None:
    assert run(WRITES, replace(watch, log=tmp_path / "log"), tmp_path) == 0
    found = changes(tmp_path / "log")
    assert [change.number for change in found] == list(range(1, len(found) + 1))
    told = [(change.call, change.path.name) for change in found]
    assert told[:3] == [("create", "a.part"), ("write", "a.part"), ("rename", "a.data")]
    assert told[-1] == ("unlink", "a.data")
    assert ("fsync", "b.data") in told
    assert {name for _, name in told} == {"a.part", "a.data", "b.data"}


@pytest.mark.parametrize(("when", "written"), [("before", b""), ("within", b"01234"), ("after", b"0123456789")])
def test_a_process_dies_before_within_or_after_a_write(
    when: str, written: bytes, watch: KillAtWrite, tmp_path: Path
) -> None:
    assert run(WRITES, replace(watch, at=2, when=when), tmp_path) == -signal.SIGKILL  # type: ignore[arg-type]
    assert (tmp_path / "a.part").read_bytes() == written
    assert not (tmp_path / "a.data").exists()


def test_only_calls_of_the_named_kinds_count(watch: KillAtWrite, tmp_path: Path) -> None:
    assert run(WRITES, replace(watch, at=1, when="after", calls=("unlink",)), tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "a.data").exists()
    assert (tmp_path / "b.data").exists()


PARENT = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "open('a.part', 'w').write('by a child')"])
open("a.part", "w").write("by its parent")
"""


@pytest.mark.parametrize(("whom", "code"), [("first", -signal.SIGKILL), ("self", 0)])
def test_kill_of_a_child_can_include_its_first_ancestor(
    whom: str, code: int, watch: KillAtWrite, tmp_path: Path
) -> None:
    counted = replace(watch, at=2, whom=whom, counter=tmp_path / "count")  # type: ignore[arg-type]
    assert run(PARENT, counted, tmp_path) == code
    assert (tmp_path / "a.part").read_text() == ("" if code else "by its parent")
