"""The states that training leaves on disk: what is damaged or half-written is never used."""

from pathlib import Path

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.training import State, States


def state(value: float) -> State:
    return {"weight/0000": np.full(3, value, np.float32)}


@pytest.fixture
def states(tmp_path: Path) -> States:
    states = States(tmp_path / "trajectory")
    with states.lock():
        for epoch in (1, 2, 5):
            states.keep(epoch, state(epoch))
    return states


def test_the_latest_state_within_the_wanted_epochs_is_taken(states: States) -> None:
    epoch, found = states.latest(4)
    assert (epoch, found["weight/0000"][0]) == (2, 2.0)


def test_without_a_state_training_starts_at_the_beginning(tmp_path: Path) -> None:
    assert States(tmp_path).latest(3) == (0, {})


def test_a_damaged_state_is_thrown_away_and_an_earlier_one_taken(
    states: States, capsys: pytest.CaptureFixture[str]
) -> None:
    (newest,) = states.folder.glob("00005-*.npz")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert states.latest(5)[0] == 2
    assert not newest.exists()
    assert "damaged" in capsys.readouterr().out


def test_a_half_written_state_does_not_count(states: States) -> None:
    (states.folder / "00009.partial").write_bytes(b"PK")
    assert states.latest(20)[0] == 5


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refusal = r"cache\.dir: .*file/x cannot be written.*give another with cache\.dir="
    with pytest.raises(UserError, match=refusal), States(tmp_path / "file" / "x").lock():
        pass


def test_a_full_disk_leaves_no_half_written_state(states: States, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        states.keep(6, state(6))
    assert not list(states.folder.glob("00006*"))
