"""The cache: damaged and partial entries are never used, and old entries are removed to make room."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import cache as command_line
from experiments.system import cache
from experiments.system.cache import GIB, Arrays, Cache, Trajectory, entries_in
from experiments.system.errors import UserError
from tests.conftest import ENVIRONMENT, Done, run


def state(value: float, numbers: int = 3) -> Arrays:
    return {"weight/0000": np.full(numbers, value, np.float32)}


@pytest.fixture
def states(tmp_path: Path) -> Trajectory:
    states = Cache(dir=tmp_path / "cache").trajectory("abc")
    with states.lock():
        for epoch in (1, 2, 5):
            states.keep(epoch, state(epoch), "Training the baseline: a model")
    return states


def test_latest_state_within_the_epochs_is_used(states: Trajectory) -> None:
    epoch, found = states.latest(4)
    assert (epoch, found["weight/0000"][0]) == (2, 2.0)


def test_state_is_read_as_written(states: Trajectory) -> None:
    assert states.latest(1)[1].keys() == state(1).keys()


def test_without_a_state_training_starts_at_the_beginning(tmp_path: Path) -> None:
    assert Cache(dir=tmp_path).trajectory("new").latest(3) == (0, {})


def test_damaged_state_is_removed_and_an_earlier_one_used(
    states: Trajectory, capsys: pytest.CaptureFixture[str]
) -> None:
    (newest,) = states.folder.glob("00005-*.npz")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert states.latest(5)[0] == 2
    assert not newest.exists()
    assert "damaged" in capsys.readouterr().out


def test_partial_state_is_ignored(states: Trajectory) -> None:
    (states.folder / "00009.1a2b.partial").write_bytes(b"PK")
    assert states.latest(20)[0] == 5


def test_unwritable_cache_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refusal = r"cache\.dir=.*file/x: the folder is not writable.*Use another: cache\.dir="
    with pytest.raises(UserError, match=refusal), Cache(dir=tmp_path / "file" / "x").trajectory("abc").lock():
        pass


def test_full_disk_leaves_no_partial_state(states: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        states.keep(6, state(6), "")
    assert not list(states.folder.glob("00006*"))


def _forbidden(*_: object, **__: object) -> NoReturn:
    raise PermissionError(13, "Permission denied")


def test_unreadable_state_of_another_user_is_reported(states: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", _forbidden)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\). Use another folder: cache.dir=FOLDER"):
        states.latest(20)


def test_a_state_of_another_user_is_used(states: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.utime", _forbidden)
    assert states.latest(20)[0] == 5


def test_entries_that_cannot_be_removed_are_reported(
    states: Trajectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "unlink", _forbidden)
    monkeypatch.setattr(sys, "argv", ["cache", "clear", "--dir", str(states.cache.dir)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert (ended.value.code, "Permission denied" in capsys.readouterr().err) == (2, True)


def test_result_is_computed_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Arrays:
        made.append(1)
        return state(7)

    for _ in range(2):
        assert Cache(dir=tmp_path).load_or_compute("key", make, "a result")["weight/0000"][0] == 7
    assert made == [1]


def test_damaged_result_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache(dir=tmp_path)
    cache.load_or_compute("key", lambda: state(7), "a result")
    (path,) = tmp_path.glob("results/*.npz")
    path.write_bytes(b"PK" + path.read_bytes()[2:-1])
    assert cache.load_or_compute("key", lambda: state(8), "a result")["weight/0000"][0] == 8
    assert "damaged" in capsys.readouterr().out


def without_key(path: Path) -> None:
    """Write an entry again as earlier versions did, which did not keep the key."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != cache.KEY}
    path.unlink()
    np.savez(path.parent / "old.npz", allow_pickle=False, **arrays)
    content = (path.parent / "old.npz").read_bytes()
    stem = path.stem.rpartition("-")[0]
    (path.parent / "old.npz").rename(path.with_name(f"{stem}-{cache._digest(content)}.npz"))


def under_name_of(path: Path, other: Path, link: bool = False) -> Path:
    """Put the file of an entry, its digest and all, where another key is looked for; the path that it has then."""
    name, digest = other.stem.rpartition("-")[0], path.stem.rpartition("-")[2]
    moved = other.with_name(f"{name}-{digest}.npz")
    if link:
        moved.hardlink_to(path)
    else:
        moved.write_bytes(path.read_bytes())
    return moved


def entry(cache: Cache, key: str, value: float) -> Path:
    cache.load_or_compute(key, lambda: state(value), key)
    (path,) = cache.dir.glob(f"results/{key}-*.npz")
    return path


def test_swapped_results_are_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache(dir=tmp_path)
    one, two = entry(cache, "one", 1), entry(cache, "two", 2)
    contents = {under_name_of(one, two): one.read_bytes(), under_name_of(two, one): two.read_bytes()}
    one.unlink()
    two.unlink()
    assert len(contents) == len(entries_in(tmp_path))
    assert cache.load_or_compute("one", lambda: state(3), "")["weight/0000"][0] == 3
    assert "has another key, results/two" in capsys.readouterr().out


@pytest.mark.parametrize("link", [False, True], ids=["copied", "hard link"])
def test_verify_finds_a_result_with_the_name_of_another(tmp_path: Path, link: bool) -> None:
    cache = Cache(dir=tmp_path / "cache")
    one, two = entry(cache, "one", 1), entry(cache, "two", 2)
    moved = under_name_of(one, two, link)
    found = run(tmp_path, "experiments.cache", "verify")
    assert (found.returncode, "2 of 3 entries are intact" in found.stdout) == (1, True)
    assert run(tmp_path, "experiments.cache", "verify", "--remove").returncode == 0
    assert (one.exists(), moved.exists()) == (True, False)


def test_state_with_the_name_of_another_epoch_is_not_used(states: Trajectory) -> None:
    (second,), (fifth,) = states.folder.glob("00002-*.npz"), states.folder.glob("00005-*.npz")
    under_name_of(second, fifth)
    fifth.unlink()
    assert states.latest(5)[0] == 2


def test_state_of_another_training_is_not_used(states: Trajectory) -> None:
    other = states.cache.trajectory("other")
    with other.lock():
        other.keep(1, state(9), "")
    for path in states.folder.glob("*.npz"):
        (other.folder / path.name).write_bytes(path.read_bytes())
    epoch, found = other.latest(5)
    assert (epoch, found["weight/0000"][0]) == (1, 9)


def test_a_training_state_is_not_used_as_a_result(states: Trajectory) -> None:
    key = entry(states.cache, "key", 7)
    (fifth,) = states.folder.glob("00005-*.npz")
    key.unlink()
    under_name_of(fifth, key)
    assert states.cache.load_or_compute("key", lambda: state(8), "")["weight/0000"][0] == 8


def test_a_result_is_not_used_as_a_training_state(states: Trajectory) -> None:
    (fifth,) = states.folder.glob("00005-*.npz")
    under_name_of(entry(states.cache, "key", 7), fifth)
    fifth.unlink()
    assert states.latest(5)[0] == 2


@pytest.mark.parametrize("damage", ["empty", "truncated", "no archive"])
def test_truncated_state_is_not_used(states: Trajectory, damage: str) -> None:
    (fifth,) = states.folder.glob("00005-*.npz")
    whole = fifth.read_bytes()
    content = {"empty": b"", "truncated": whole[: len(whole) // 2], "no archive": b"no archive"}[damage]
    fifth.unlink()
    states.folder.joinpath(f"00005-{cache._digest(content)}.npz").write_bytes(content)  # its digest is right
    assert states.latest(5)[0] == 2


def test_entry_of_an_earlier_version_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache(dir=tmp_path)
    without_key(entry(cache, "key", 7))
    assert cache.load_or_compute("key", lambda: state(8), "")["weight/0000"][0] == 8
    assert "has no key, like entries of earlier versions" in capsys.readouterr().out


def test_folder_with_the_name_of_an_entry_is_ignored(states: Trajectory) -> None:
    (states.folder / f"00009-{'0' * cache.DIGEST}.npz").mkdir()
    assert states.latest(9)[0] == 5
    assert len(entries_in(states.cache.dir)) == 3


def test_a_file_with_another_name_is_not_used_as_a_state(states: Trajectory) -> None:
    (states.folder / f"mine-{'0' * cache.DIGEST}.npz").write_bytes(b"")
    assert states.latest(9)[0] == 5


MAKE_SLOWLY = """
import sys, time
from pathlib import Path
import numpy as np
from experiments.system.cache import Cache
def make():
    print("made", flush=True)
    time.sleep({seconds})
    return {{"a": np.arange(3)}}
assert Cache(dir=Path(sys.argv[1])).load_or_compute("key", make, "slow")["a"][2] == 2
"""


def maker(folder: Path, seconds: float) -> subprocess.Popen[str]:
    script = MAKE_SLOWLY.format(seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )


def test_concurrent_processes_compute_a_result_once(tmp_path: Path) -> None:
    processes = [maker(tmp_path, seconds=1) for _ in range(3)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(said) == ["", "", "made\n"]


def test_result_of_a_killed_process_is_computed_by_the_next(tmp_path: Path) -> None:
    with maker(tmp_path, seconds=60) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
    assert maker(tmp_path, seconds=0).communicate()[0] == "made\n"


def keep_in_order(cache: Cache, sizes: list[int]) -> list[int]:
    """Keep results of so many bytes, one after another, and tell which are left."""
    for number, numbers in enumerate(sizes):
        cache.load_or_compute(f"{number:03d}", partial(state, number, numbers), "a result")
        for age, path in enumerate(sorted(cache.dir.glob("results/*"), reverse=True)):
            os.utime(path, (1_000_000 - age, 1_000_000 - age))  # clocks of file systems are coarse
    return sorted(int(path.name[:3]) for path in cache.dir.glob("results/*.npz"))


@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=6), bound=st.integers(2000, 20000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_least_recently_used_entry_is_removed(
    sizes: list[int], bound: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = Cache(dir=tmp_path_factory.mktemp("cache"), gib=bound / GIB)
    left = keep_in_order(cache, sizes)
    held = sum(entry.bytes for entry in entries_in(cache.dir))
    assert left == list(range(len(sizes)))[-len(left) :]  # the newest ones
    assert held <= bound or len(left) == 1


def test_used_entry_is_kept(tmp_path: Path) -> None:
    cache = Cache(dir=tmp_path, gib=3000 / GIB)
    keep_in_order(cache, [200, 200])
    cache.load_or_compute("000", lambda: state(0), "")  # used now
    cache.load_or_compute("002", lambda: state(2, 200), "")
    assert sorted(path.name[:3] for path in tmp_path.glob("results/*.npz")) == ["000", "002"]


def test_training_of_another_process_is_kept(tmp_path: Path) -> None:
    cache = Cache(dir=tmp_path, gib=1000 / GIB)
    training = cache.trajectory("abc")
    with training.lock():
        training.keep(1, state(1), "")
        cache.load_or_compute("key", lambda: state(1, 1000), "")
        assert training.latest(1)[0] == 1
    cache.load_or_compute("another", lambda: state(1, 1000), "")
    assert training.latest(1)[0] == 0


def command(states: Trajectory, *arguments: str) -> Done:
    return run(states.cache.dir.parent, "experiments.cache", *arguments)


def test_list_shows_the_entries(states: Trajectory) -> None:
    states.cache.load_or_compute("key", lambda: state(1), "conversion: a model")
    shown = command(states).stdout
    assert "Training the baseline: a model" in shown
    assert "conversion: a model" in shown


def test_verify_finds_damage_and_removes_it_on_request(states: Trajectory) -> None:
    (newest,) = states.folder.glob("00005-*.npz")
    newest.write_bytes(b"damaged")
    found = command(states, "verify")
    assert (found.returncode, "2 of 3 entries are intact" in found.stdout) == (1, True)
    assert command(states, "verify", "--remove").returncode == 0
    assert command(states, "verify").returncode == 0
    assert not newest.exists()


def test_clear_removes_the_selected_entries(states: Trajectory) -> None:
    states.cache.load_or_compute("key", lambda: state(1), "conversion: a model")
    assert command(states, "clear", "--unused-for", "1").stdout.startswith("Removed 0 entries")
    assert command(states, "clear", "--kind", "results").stdout.startswith("Removed 1 entries")
    assert command(states, "clear").stdout.startswith("Removed 3 entries")


def test_clear_keeps_a_running_training(states: Trajectory) -> None:
    with states.lock():
        assert "in use by a training" in command(states, "clear").stdout
    assert states.latest(5)[0] == 5


def test_other_files_are_neither_used_nor_removed(states: Trajectory) -> None:
    np.savez(states.folder / "my-notes.npz", mine=np.arange(3))
    assert states.latest(9)[0] == 5
    command(states, "clear")
    assert [path.name for path in states.folder.iterdir() if path.name != "lock"] == ["my-notes.npz"]


def test_cleared_training_leaves_no_folder(states: Trajectory) -> None:
    command(states, "clear")
    assert not states.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dir", "nowhere"], "no cache in this folder"),
        (["lits"], "invalid choice: 'lits'"),
        (["list", "--remove"], "--remove: requires verify; it has no effect with list"),
        (["verify", "--unused-for", "3"], "--unused-for: requires clear; it has no effect with verify"),
        (["clear", "--unused-for", "-1"], "-1: requires a number of days, at least 0"),
    ],
)
def test_invalid_command_has_exit_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.cache", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert said in done.stderr


def test_interrupted_command_prints_one_line(
    states: Trajectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "show", stopped)
    monkeypatch.setattr(sys, "argv", ["cache", "--dir", str(states.cache.dir)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted.\n")


def test_partial_files_of_killed_processes_are_removed(states: Trajectory) -> None:
    folder = states.cache.dir
    left = ["results/key.1a2b.partial", "results/key.lock", "runs/key.lock", "training/abc/00009.1a2b.partial"]
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    states.cache.remove_leftovers()
    assert [name for name in left if (folder / name).exists()] == []
    assert states.latest(9)[0] == 5


def test_partial_file_of_a_running_process_is_kept(states: Trajectory) -> None:
    partial = states.folder / "00009.1a2b.partial"
    with states.lock():
        partial.touch()
        states.cache.remove_leftovers()
        assert partial.exists()


def test_a_training_goes_on_after_somebody_removed_the_cache(states: Trajectory, tmp_path: Path) -> None:
    with states.lock():
        shutil.rmtree(states.cache.dir)
        states.keep(6, state(6), "Training the baseline: a model")
    states.name("a plan finds it")
    assert states.latest(9)[0] == 6
    assert [name for name, _ in states.cache.named_trainings()] == ["a plan finds it"]

    def remove_and_make() -> Arrays:
        shutil.rmtree(states.cache.dir)
        return state(1)

    assert states.cache.load_or_compute("key", remove_and_make, "a result")["weight/0000"][0] == 1


def test_a_name_without_states_is_neither_left_nor_kept(states: Trajectory) -> None:
    """As when `cache clear` comes between the last state of a training and its name."""
    states.name("one")
    (states.cache.dir / "training" / "notes.txt").write_text("mine")
    for state_file in states.folder.glob("*.npz"):
        state_file.unlink()
    command(states, "clear")
    assert [path.name for path in (states.cache.dir / "training").iterdir()] == ["notes.txt"]
    states.name("two")
    assert not states.folder.exists()


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(UserError, match="the folder is not writable"):
        Cache(dir=tmp_path).load_or_compute("key", lambda: state(0), "a result")
