"""Full disks: the message says which, and what to do. Requires root, to mount small disks in memory."""

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments.runs.worker import Failure
from experiments.system.cache import Arrays, Cache
from experiments.system.disk import explain_os_error, is_full, mount_point
from experiments.system.errors import UserError
from experiments.system.temporary import temporary_folder, user_folder
from experiments.tracking import Tracking, connect
from experiments.tracking.failures import explaining_failures
from tests.conftest import run, save_images

Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes a small disk, such as of size=64k or nr_inodes=5."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", size, "none", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    with pytest.raises(OSError, match="No space"), (path / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_full_disk_is_named_with_its_free_space(disk: Disk) -> None:
    place = disk("size=64k")
    fill(place)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place / "folder" / "file"))
    assert f"No space left on device: {place}/folder/file; the disk at {place} has 0 KiB and" in explain_os_error(error)


def test_of_several_disks_the_full_one_is_named(disk: Disk, tmp_path: Path) -> None:
    place = disk("size=64k")
    fill(place)
    said = explain_os_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path, place)
    assert said.endswith(f"the disk at {place} has 0 KiB and {os.statvfs(place).f_favail:,} inodes free")


def test_a_disk_without_room_for_another_file_is_full(disk: Disk) -> None:
    place = disk("size=2m,nr_inodes=2")
    (place / "last").touch()
    assert is_full(place)
    assert not is_full(mount_point(place.parent))


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EMFILE, "ulimit -n"), (errno.ENOMEM, "out of memory"), (errno.EAGAIN, "ulimit -u")]
)
def test_system_limit_is_reported_with_a_remedy(number: int, said: str) -> None:
    assert said in explain_os_error(OSError(number, os.strerror(number)))


def test_a_full_cache_disk_is_named(disk: Disk) -> None:
    cache = Cache(dir=disk("size=64k"))
    made: Arrays = {"logits": np.zeros(100_000, np.float32)}
    with pytest.raises(UserError, match=rf"cache\.dir=.*the disk at {cache.dir} has .* Use another: cache.dir="):
        cache.load_or_compute("key", lambda: made, "")
    assert not list(cache.dir.rglob("*.partial"))


def test_a_full_disk_of_temporary_files_is_named(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    place = disk("nr_inodes=2")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    user_folder.cache_clear()
    user_folder()
    with (
        pytest.raises(
            UserError, match=rf"the disk at {place} has .* and 0 inodes free\. Free space there, or set TMPDIR\."
        ),
        temporary_folder("artifacts"),
    ):
        pass
    user_folder.cache_clear()


def test_disk_that_fills_during_a_run_is_named(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    place = disk("size=64k")
    fill(place)
    monkeypatch.setattr("tempfile.tempdir", str(place))
    failure = Failure.of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert f"the disk at {place} has 0 KiB and" in failure.reason


def test_a_full_disk_of_a_store_is_named(disk: Disk) -> None:
    place = disk("size=64k")
    with pytest.raises(UserError, match=rf"The disk at {place} has .* free.*\. Free space there\."):
        connect(Tracking(uri=f"sqlite:///{place}/mlflow.db"))


@pytest.mark.endtoend
def test_disk_that_fills_between_jobs_ends_the_sweep_orderly(disk: Disk, tmp_path: Path) -> None:
    place = disk("nr_inodes=9")  # enough for Hydra's notes on the sweep and its first job
    save_images(tmp_path / "images.npz")
    sweep = ["strategy=none,ptq_dynamic", "model=mlp", "dataset=npz", "dataset.path=images.npz", "latency.seconds=0.1"]
    done = run(tmp_path, "experiments.run", "-m", *sweep, f"hydra.sweep.dir={place}/notes", measured=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"the disk at {place} has" in done.stderr
    runs = connect(Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db"), create=False).find("tags.kind != ''")
    assert sorted((run.data.tags["kind"], run.info.status) for run in runs) == [
        ("run", "FINISHED"),
        ("sweep", "FAILED"),
    ]


@pytest.mark.endtoend
def test_sweep_in_a_folder_on_a_full_disk_is_closed(disk: Disk) -> None:
    place = disk("size=1600k")  # enough for the store and the first run
    save_images(place / "images.npz")
    sweep = ["strategy=none,ptq_dynamic", "model=mlp", "dataset=npz", "dataset.path=images.npz", "latency.seconds=0.1"]
    done = run(place, "experiments.run", "-m", *sweep)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"he disk at {place} has" in done.stderr
    runs = connect(Tracking(uri=f"sqlite:///{place}/mlflow.db"), create=False).find("tags.kind != ''")
    assert {run.info.status for run in runs if run.data.tags["kind"] == "sweep"} == {"FAILED"}
    assert "RUNNING" not in {run.info.status for run in runs}


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    assert "ulimit -f unlimited" in explain_os_error(OSError(errno.EFBIG, "File too large", str(tmp_path)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with (
            pytest.raises(UserError, match=r"disk I/O error.*limited to 1,024 KiB: `ulimit -f unlimited`"),
            explaining_failures(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")),
        ):
            raise sqlite3.OperationalError("disk I/O error")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_store_that_is_deleted_while_it_is_used_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="the file was deleted or moved while it was in use"),
        explaining_failures(Tracking(uri=f"sqlite:///{tmp_path / 'gone.db'}")),
    ):
        raise sqlite3.OperationalError("attempt to write a readonly database")
