"""Latency: verdicts and their limits, and the command that times files."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import latency
from experiments.dataset import Raw, Source
from experiments.dataset.npz import Npz
from experiments.measure.accuracy import can_batch, tflite_logits
from experiments.measure.latency import (
    SENTINEL,
    Latency,
    LatencyProtocol,
    Session,
    TimedFile,
    Timings,
    measure_latency,
)
from experiments.measure.stopwatch import REPLICATES_AT_LEAST, REPLICATES_OF_SLOW_FILES, finished, load, widest
from experiments.record.artifacts import save_samples
from experiments.record.identity import DIGITS
from experiments.runs import rounds
from experiments.statistics.estimates import ratio_of_medians, t_quantiles
from experiments.system.errors import UserError
from experiments.system.machine import Conditions
from tests.conftest import run, save_images
from tests.tiny import dense_file

IDLE = Conditions(cores=2, other_cores=0.1, steal_cores=0.0, load_before=0.1, load_after=0.1)
REPLICATES = 20
IMAGES = np.random.default_rng(0).random((50, 16), np.float32)
IMAGES_64 = np.random.default_rng(0).random((50, 64), np.float32)


def timings(microseconds: float, scatter: float = 0.001, seed: int = 0) -> Timings:
    """Made-up timings, one a replicate, that scatter by this share."""
    drawn = np.random.default_rng(seed).normal(1000 * microseconds, 1000 * microseconds * scatter, REPLICATES)
    return Timings(
        np.stack([np.arange(REPLICATES), drawn.astype(np.int64)], axis=1), np.ones((REPLICATES, 2), np.int64)
    )


def session(
    model_us: float, scatter: float = 0.001, sentinel_us: float = 100, conditions: Conditions = IDLE, threads: int = 1
) -> Session:
    """The reference takes 100 us."""
    everyone = {
        "reference": timings(100, scatter, seed=1),
        "model": timings(model_us, scatter, seed=2),
        SENTINEL: timings(sentinel_us, scatter, seed=3),
    }
    return Session(everyone, conditions, threads, start_seconds=0.2)


def verdict(timed: Session) -> str:
    return timed.verdict(timed.ratio("reference", "model"))


def test_verdicts_are_adjusted_for_the_number_of_pairs() -> None:
    everyone = {name: timings(101.5 if name == "f" else 100, 0.02, seed=n) for n, name in enumerate("abcdef")}
    six = Session({**everyone, SENTINEL: timings(100, 0.02, seed=999)}, IDLE, 1, start_seconds=0.2)
    candidates: Any = [SimpleNamespace(name=name, model=SimpleNamespace(bytes=1)) for name in everyone]

    files = latency.files_table(candidates, six, latency.pairs_table(six, {n: n for n in everyone})).set_index("file")

    assert (six.verdict(six.ratio("a", "f")), files.loc["f", "speed"], files.loc["a", "speed"]) == (
        "slower", "unclear", "",
    )  # fmt: skip


def test_identical_files_are_not_compared() -> None:
    everyone = {"a": timings(100, 0.001, seed=1), "copy": timings(90, 0.001, seed=2), "b": timings(50, 0.001, seed=3)}
    timed = Session({**everyone, SENTINEL: timings(100, 0.001, seed=4)}, IDLE, 1, start_seconds=0.2)
    pairs = latency.pairs_table(timed, {"a": "digest", "copy": "digest", "b": "another"})
    assert pairs["speed"].tolist() == ["same file", "faster", "faster"]


def test_verdict_of_the_float_file_is_same_file_unless_invalid() -> None:
    assert Latency(session(model_us=50), same_file=True).verdict == "same file"
    assert Latency(session(model_us=50, sentinel_us=50), same_file=True).verdict == "void"


@pytest.mark.parametrize("name", ["sparse50%.tflite", "a,b.tflite"])
def test_samples_allow_any_file_name(name: str, tmp_path: Path) -> None:
    timed = Session({name: timings(100), SENTINEL: timings(100)}, IDLE, 1, start_seconds=0.2)
    save_samples(tmp_path / "samples.csv.gz", timed)
    assert set(pd.read_csv(tmp_path / "samples.csv.gz")["file"]) == {name, SENTINEL}


@pytest.mark.parametrize(
    ("model_us", "scatter", "expected"),
    [
        (50, 0.001, "faster"),
        (103, 0.001, "slower"),
        (101, 0.001, "equivalent"),  # different beyond doubt, and too little to matter
        (100, 0.001, "equivalent"),
        (101, 0.2, "unclear"),
        (102, 0.06, "unclear"),
    ],
)
def test_verdict_follows_from_the_interval(model_us: float, scatter: float, expected: str) -> None:
    assert verdict(session(model_us, scatter)) == expected


def test_session_is_invalid_if_the_sentinel_differs() -> None:
    timed = session(50, sentinel_us=110)
    assert verdict(timed) == "void"
    assert "own copy" in timed.void


@pytest.mark.parametrize(
    ("other_cores", "threads", "void"),
    [(0.9, 1, False), (1.1, 1, False), (1.5, 1, True), (0.1, 2, False), (0.9, 2, True)],
)
def test_session_is_invalid_if_cores_were_busy(other_cores: float, threads: int, void: bool) -> None:
    busy = Conditions(cores=2, other_cores=other_cores, steal_cores=0.0, load_before=1.0, load_after=1.0)
    assert bool(session(50, conditions=busy, threads=threads).void) == void


def request(seconds: float = 10, precision: float = 0.01) -> dict[str, object]:
    pairs = [["one", "other"]]
    return {"seconds": seconds, "precision": precision, "pairs": pairs, "critical": t_quantiles(100)}


def samples(replicates: int, scatter: float) -> dict[str, list[list[int]]]:
    drawn = np.random.default_rng(0).normal(100_000, 100_000 * scatter, (2, replicates)).astype(int)
    return {"one": [[value] for value in drawn[0].tolist()], "other": [[value] for value in drawn[1].tolist()]}


@pytest.mark.parametrize(
    ("replicates", "scatter", "seconds", "over"),
    [
        (REPLICATES_AT_LEAST, 0.001, 1, True),
        (REPLICATES_AT_LEAST - 1, 0.001, 1, False),  # narrow by chance, perhaps
        (REPLICATES_AT_LEAST, 0.1, 1, False),
        (REPLICATES_AT_LEAST, 0.1, 10, True),  # the budget is spent
        (2, 0.001, 100, False),  # of two replicates nothing can be said, however long they took
        (3, 0.1, 100, True),
    ],
)
def test_session_ends_at_its_precision_or_time_limit(
    replicates: int, scatter: float, seconds: float, over: bool
) -> None:
    assert finished(samples(replicates, scatter), seconds, request()) == over


def test_stopping_rule_uses_the_interval_of_the_table() -> None:
    drawn = samples(15, 0.02)
    one, other = (np.array(drawn[name], float)[:, 0] for name in ("one", "other"))
    ratio = ratio_of_medians(one, other)
    assert widest(drawn, request()) == pytest.approx(ratio.high / ratio.value - 1)


def test_a_file_six_times_as_deep_is_slower() -> None:
    latency = measure_latency(dense_file(64, 10, 40), dense_file(64, 10), IMAGES_64, LatencyProtocol(seconds=2), seed=0)
    assert latency.speedup.high < 1


def test_every_replicate_has_samples_and_a_time_to_load() -> None:
    file = dense_file()
    own = measure_latency(file, file, IMAGES, LatencyProtocol(seconds=0.5), seed=0).own
    replicates = len(own.medians)
    assert replicates >= 3
    assert own.loads.shape == (replicates, 2)
    assert own.first_us > own.min_us > 0


def test_short_budget_has_the_minimum_of_replicates() -> None:
    file = dense_file()
    own = measure_latency(file, file, IMAGES, LatencyProtocol(seconds=1e-6), seed=0).own
    assert len(own.medians) == REPLICATES_OF_SLOW_FILES


def test_more_threads_than_cores_are_rejected() -> None:
    with pytest.raises(UserError, match=r"latency\.threads=1000: requires at most \d+"):
        LatencyProtocol(threads=1000).check()


@pytest.mark.parametrize(("delegate", "delegated"), [("xnnpack", True), ("builtin", False)])
def test_file_is_timed_on_the_selected_kernels(delegate: str, delegated: bool, tmp_path: Path) -> None:
    file = TimedFile.of(dense_file(), IMAGES)
    (tmp_path / "file.tflite").write_bytes(file.content)
    entered = load(tmp_path / "file.tflite", list(file.inputs), {"threads": 1, "delegate": delegate})
    ops = {op["op_name"] for op in entered.interpreter._get_ops_details()}
    assert ("DELEGATE" in ops) == delegated


def test_batches_are_bit_identical_to_single_images() -> None:
    file = dense_file()
    assert can_batch(file, IMAGES)
    assert len(tflite_logits(file, IMAGES[:33])) == 33


def test_the_command_times_plain_files_together(tmp_path: Path) -> None:
    (tmp_path / "small.tflite").write_bytes(dense_file(64, 10).content)
    (tmp_path / "deep.tflite").write_bytes(dense_file(64, 10, 40).content)
    files = ("deep.tflite", "small.tflite")
    done = run(tmp_path, "experiments.latency", *files, "--seconds", "2", "--span", "2", "--csv", "pairs.csv")
    assert done.returncode == 0, done.stderr
    (pair,) = pd.read_csv(tmp_path / "pairs.csv").to_dict("records")
    assert (pair["file"], pair["against"]) == ("small.tflite", "deep.tflite")
    assert pair["speedup_low"] > 1


def test_single_file_has_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "one.tflite").write_bytes(dense_file().content)
    done = run(tmp_path, "experiments.latency", "one.tflite", "--seconds", "0.5", "--span", "0.5", "--csv", "pairs.csv")
    assert done.returncode == 0, done.stderr
    assert "one.tflite" in done.stdout
    assert pd.read_csv(tmp_path / "pairs.csv").empty


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.tflite"], "missing.tflite: cannot be read (No such file or directory)"),
        (["wrong.tflite"], "Not a TFLite file"),
        (["good.tflite", "--threads", "1000"], "latency.threads=1000"),
        (["good.tflite", "--seconds", "0"], "seconds=0.0: input should be greater than 0"),
        (["good.tflite", "--delegate", "gpu"], "delegate=gpu"),
        (["good.tflite", "--dataset", "mnist"], "requires examples of shape (16,)"),
        (["good.tflite", "--dataset", "minst"], "Did you mean mnist?"),
        (
            ["good.tflite", "--uri", "sqlite:///my.db"],
            "--uri: requires a recorded run. Omit --uri.",
        ),
        (["latest", "--dataset", "mnist"], "--dataset: requires a .tflite file; recorded runs are timed on"),
        (["latest"], "no file "),
        (["latest", "--uri", "mlflow.db"], "tracking.uri=mlflow.db"),
    ],
)
def test_files_that_cannot_be_timed_are_rejected(tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "good.tflite").write_bytes(dense_file().content)
    (tmp_path / "wrong.tflite").write_bytes(b"no flatbuffer at all")
    done = run(tmp_path, "experiments.latency", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_damaged_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cut.tflite").write_bytes(dense_file(64, 10).content[:400])
    done = run(tmp_path, "experiments.latency", "cut.tflite")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@dataclass(frozen=True)
class Counted(Source):
    """A data set that counts how often it is read."""

    name: str = ""
    last: int = 0
    read_so_far: list[str] = field(default_factory=list, repr=False)

    def read(self) -> Raw:
        self.read_so_far.append(self.name)
        x, y = np.zeros((200, 4), np.float32), np.arange(200) % 2
        x[-1] = self.last
        return Raw(x, y, x, y)


@pytest.mark.parametrize("stored", [(4, 4), (4, 4, 1), (16,)])
def test_images_are_reshaped_for_a_file(stored: tuple[int, ...]) -> None:
    assert rounds.reshape(dense_file(inputs=16), np.zeros((5, *stored), np.float32)).shape == (5, 16)


def test_data_set_is_read_once_and_only_timed_images_are_kept() -> None:
    read: list[str] = []
    tests_of, file = rounds.load_tests_once(), dense_file(inputs=4)
    found = [tests_of(Counted(name=name, read_so_far=read), file).images for name in ("one", "one", "other")]
    assert read == ["one", "other"]
    assert {(len(images), images.base is None) for images in found} == {(100, True)}


def test_fewer_large_images_are_timed_so_that_few_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.dataset.rows.AT_ONCE_BYTES", 16 * 4 * 4)  # 16 examples of 4 floats
    assert len(rounds.load_tests_once()(Counted(name="one"), dense_file(inputs=4)).images) == 16


@pytest.mark.parametrize(("shift", "shape"), [(0, (4,)), (1, (4,)), (5, (4,)), (0, (4, 1))])
def test_test_digest_is_recognized_in_every_input_form(shift: int, shape: tuple[int, ...]) -> None:
    source = Counted(name="one", train_samples=100)
    examples = replace(source.examples(), labels=(shift, shift + 1), training_labels=(shift, shift + 1))
    examples = replace(examples, test_labels=examples.training_labels)
    digests = set(rounds.test_digests(examples, shape))
    assert examples.for_model(shape, 2 + shift).test_fingerprint[:DIGITS] in digests
    assert examples.for_new_model().test_fingerprint[:DIGITS] in digests


def test_changed_data_set_is_reported_before_timing(tmp_path: Path) -> None:
    path = save_images(tmp_path / "images.npz")
    source = Npz(path=path)
    recorded = source.load().test_fingerprint[:DIGITS]
    rounds.check_unchanged(source, rounds.load_tests_once()(source, dense_file(inputs=64)), recorded)
    save_images(path, test=41)
    with pytest.raises(UserError, match=r"images\.npz have changed since the run"):
        rounds.check_unchanged(source, rounds.load_tests_once()(source, dense_file(inputs=64)), recorded)
