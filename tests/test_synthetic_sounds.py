"""Synthetic speech and machine noise of the tutorials, and folders of recordings for anomaly detection."""

import hashlib
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from experiments.dataset.audio_folder import AudioFolder
from experiments.system.errors import UserError
from tests.conftest import REPOSITORY

FEW = {
    "spoken_words": ("--words", "go", "no", "--train", "3", "--test", "2"),
    "machine_noise": ("--train", "4", "--test", "2"),
}
speaks = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="requires espeak-ng")


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    """Run a script of examples/; returns its names."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(folder), *FEW[name], *more])
    return runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"), run_name="__main__")


def digest(folder: Path) -> str:
    """The digest of all files of a folder, with their names."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return hashlib.sha256(
        b"".join(str(each.relative_to(folder)).encode() + each.read_bytes() for each in files)
    ).hexdigest()


@pytest.mark.parametrize("name", [pytest.param("spoken_words", marks=speaks), "machine_noise"])
def test_the_same_seed_gives_the_same_recordings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, seed in (("one", "0"), ("same", "0"), ("other", "1")):
        run(name, tmp_path / folder, monkeypatch, "--seed", seed)
    one, same, other = (digest(tmp_path / folder) for folder in ("one", "same", "other"))
    assert one == same != other


@speaks
def test_words_are_spoken_in_noise_by_voices_that_are_only_in_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("spoken_words", tmp_path / "words", monkeypatch)
    counts = {
        (part, word): len(list((tmp_path / "words" / part / word).glob("*.wav")))
        for part in ("train", "test")
        for word in ("go", "no")
    }
    assert counts == {("train", "go"): 3, ("train", "no"): 3, ("test", "go"): 2, ("test", "no"): 2}
    for path in (tmp_path / "words").rglob("*.wav"):
        rate, samples = wavfile.read(path)
        assert (rate, samples.shape, samples.dtype) == (16_000, (16_000,), np.int16)
        assert 0.09 < np.abs(samples / 32767).max() < 0.81


def test_no_accent_or_variant_of_the_test_is_used_for_training() -> None:
    voices = runpy.run_path(str(REPOSITORY / "examples" / "spoken_words.py"))["VOICES"]
    for trained, tested in zip(voices["train"], voices["test"], strict=True):
        assert not set(trained) & set(tested)


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"espeak-ng: not found\. Install the package espeak-ng"):
        run("spoken_words", tmp_path / "words", monkeypatch)
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize("name", ["spoken_words", "machine_noise"])
def test_a_folder_that_exists_is_not_mixed_with_new_recordings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "espeak-ng")
    with pytest.raises(SystemExit, match="exists already"):
        run(name, tmp_path, monkeypatch)


def noises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AudioFolder:
    run("machine_noise", folder / "machines", monkeypatch)
    return AudioFolder(path=folder / "machines", cache=folder / "cache", features="log_mel")


@pytest.mark.tensorflow
def test_recordings_in_folders_other_than_that_of_training_are_anomalies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = noises(tmp_path, monkeypatch).examples("anomalies")
    assert (examples.kind, examples.input_shape) == ("anomalies", (49, 40, 1))
    assert (len(examples.train) + len(examples.validation), len(examples.test)) == (12, 24)
    assert np.count_nonzero(examples.test.y) == 18  # in test/bearing, test/gear and test/loose
    assert not examples.train.y.any()


def test_a_training_part_of_several_classes_is_refused_for_reconstruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noises(tmp_path, monkeypatch)
    shutil.copytree(tmp_path / "machines" / "test" / "gear", tmp_path / "machines" / "train" / "gear")
    with pytest.raises(UserError, match="has the classes gear, normal; task=reconstruction learns from normal rec"):
        source.examples("anomalies")
