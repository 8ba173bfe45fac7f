"""Locks between processes, and the user's folder for temporary files."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.system import locks, temporary
from experiments.system.errors import UserError
from experiments.system.locks import file_lock, file_lock_if_free, holders
from experiments.system.temporary import temporary_folder, user_folder
from tests.conftest import ENVIRONMENT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Everybody's temporary files, for one test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    user_folder.cache_clear()
    yield tmp_path
    user_folder.cache_clear()


def started(code: str, folder: Path) -> subprocess.Popen[str]:
    """A process that runs this code, once it has printed a line."""
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


HOLD = """
import time
from pathlib import Path
from experiments.system.locks import file_lock
with file_lock(Path({path!r}), "", shared={shared}):
    print("in", flush=True)
    time.sleep({seconds})
"""


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_names_its_holder(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "lock"
    with started(HOLD.format(path=str(path), shared=shared, seconds=60), tmp_path) as other:
        (holder,) = holders(path)
        other.kill()
    assert holder.startswith(f"process {other.pid} ({sys.executable} -c ")


def test_killed_process_is_not_a_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with started(HOLD.format(path=str(path), shared=False, seconds=60), tmp_path) as other:
        other.kill()
    assert holders(path) == []


def test_released_lock_leaves_no_file(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock", ""):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_is_exclusive_even_if_its_file_is_replaced(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(30):
            with file_lock(tmp_path / "lock", ""):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_long_wait_is_reported_once_with_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    path = tmp_path / "lock"
    with (
        started(HOLD.format(path=str(path), shared=False, seconds=0.7), tmp_path) as other,
        file_lock(path, "a reason"),
    ):
        said = capsys.readouterr().out
    assert f"waiting: a reason: process {other.pid} (" in said
    assert said.count("waiting") == 1


def test_free_lock_is_not_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with file_lock(tmp_path / "lock", "a reason"), file_lock_if_free(tmp_path / "lock") as free:
        assert not free
    assert capsys.readouterr().out == ""


def test_symlink_at_the_path_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError), file_lock(tmp_path / "lock", ""):
        pass
    assert not (tmp_path / "target").exists()


def test_user_folder_is_not_accessible_to_others(place: Path) -> None:
    (place / f"tqb-{os.getuid()}").mkdir(mode=0o777)
    assert user_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["link", "file"])
def test_file_at_the_path_of_the_user_folder_is_rejected(kind: str, place: Path) -> None:
    path = place / f"tqb-{os.getuid()}"
    if kind == "link":
        (place / "elsewhere").mkdir()
        path.symlink_to(place / "elsewhere")
    else:
        path.touch()
    with pytest.raises(UserError, match=r"require a folder that belongs to you.*set TMPDIR to your own folder"):
        user_folder()


def test_folder_of_another_user_is_rejected(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "tqb-4711").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    if (place / "tqb-4711").stat().st_uid == 4711:
        pytest.skip("this user is the other one")
    with pytest.raises(UserError, match="require a folder that belongs to you"):
        user_folder()


KEEP = """
import time
from experiments.system.temporary import temporary_folder
with temporary_folder("artifacts") as folder:
    (folder / "file").touch()
    print("in", flush=True)
    time.sleep(60)
"""


def test_leftovers_of_a_killed_process_are_removed(place: Path) -> None:
    with started(KEEP, place) as killed:
        killed.kill()
    assert len(list(place.glob("*/artifacts-*/file"))) == 1
    user_folder()
    assert list(place.glob("*/artifacts-*")) == []


def test_files_of_a_running_process_are_kept(place: Path) -> None:
    with started(KEEP, place) as other:
        user_folder()
        kept = list(place.glob("*/artifacts-*/file"))
        other.kill()
    assert len(kept) == 1


def test_files_of_a_process_on_another_host_are_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(KEEP, place) as other:  # as one of another container that shares the folder
        monkeypatch.setattr(temporary, "is_running", lambda _: False)
        user_folder()
        kept = list(place.glob("*/artifacts-*/file"))
        other.kill()
    assert len(kept) == 1


def test_files_with_other_names_are_kept(place: Path) -> None:
    own = user_folder()
    (own / "mine").mkdir()
    (own / "artifacts-99999999@1-x").mkdir()
    (place / "elsewhere").mkdir()
    (own / "artifacts-99999999@1-0").symlink_to(place / "elsewhere")
    temporary.remove_leftovers(own)
    assert {path.name for path in own.iterdir()} == {"mine", "artifacts-99999999@1-x", "artifacts-99999999@1-0"}
    assert (place / "elsewhere").exists()


def test_temporary_folder_is_removed_after_its_block() -> None:
    with temporary_folder("artifacts") as folder:
        (folder / "file").touch()
    assert not folder.exists()
    assert folder.parent == user_folder()


def test_temporary_files_of_a_run_are_in_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_folder("run") as of_run:
        monkeypatch.setattr(tempfile, "tempdir", str(of_run))
        with temporary_folder("latency") as folder:
            assert folder.parent == of_run


def test_a_lock_whose_folder_is_removed_at_this_moment_is_taken_in_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `cache clear` removes the folder of a training that another process is about to continue."""
    open_file, left = os.open, [tmp_path / "training"]

    def removing(path: Any, *arguments: Any, **named: Any) -> int:
        if left and path == tmp_path / "training" / "lock":
            left.pop().rmdir()
        return open_file(path, *arguments, **named)

    monkeypatch.setattr(os, "open", removing)
    with file_lock(tmp_path / "training" / "lock", ""):
        assert (tmp_path / "training" / "lock").exists()
