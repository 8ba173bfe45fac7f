"""The plan of a sweep, the time that is left of it, and --dry-run."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import yaml

from experiments.runs.configuration import Request, compose_request
from experiments.runs.forecast import FINISHING, Costs, Schedule, Work
from experiments.runs.plan import (
    ENDED,
    SAME_RUN,
    STARTED,
    Follower,
    finished_line,
    open_existing,
    plan,
    shared_settings,
)
from experiments.runs.trainings import training_name
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.system.errors import UserError
from experiments.system.stamp import stamp
from experiments.task.auto import Auto
from experiments.task.regression import Regression
from experiments.tracking import Row, Store, Tracking
from tests import rows
from tests.conftest import run, run_interpreter, save_images

SECONDS = {"": 10.0, "qat": 19.0, "finetune": 11.0}  # of an epoch, by who trains
REST, START = 6.0, 2.0  # of a run, beside training


def measured(strategy: str, epochs: int, trained: tuple[int, int]) -> tuple[Row, float]:
    """A finished run that trained so many epochs of the baseline and of its own, and how long it took."""
    own = epochs if strategy in SECONDS else 0
    every = epochs * SECONDS[""] + own * SECONDS.get(strategy, 0)
    now = trained[0] * SECONDS[""] + trained[1] * SECONDS.get(strategy, 0)
    row = rows.row(
        strategy,
        epochs=epochs,
        finetune_epochs=own,
        epochs_trained=float(sum(trained)),
        epochs_reused=float(epochs + own - sum(trained)),
        train_seconds=every,
        train_seconds_reused=every - now,
        latency_seconds=REST,
    )
    return row, now + REST + START


# Strategy, epochs, and the epochs that it trains, of the baseline and of its own.
SWEEP = [
    ("none", 1, (1, 0)), ("none", 4, (3, 0)), ("ptq_int8", 1, (0, 0)), ("ptq_int8", 4, (0, 0)),
    ("qat", 1, (0, 1)), ("qat", 4, (0, 3)), ("finetune", 1, (0, 1)), ("finetune", 4, (0, 3)),
]  # fmt: skip


def works(sweep: Sequence[tuple[str, int, tuple[int, int]]]) -> dict[int, Work]:
    subject = Work.settings_of(rows.row("none"))
    return {job: Work(*subject, strategy, *trained) for job, (strategy, _, trained) in enumerate(sweep)}


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("experiments.runs.forecast.time.monotonic", lambda: self.now)


def test_time_left_is_right_within_half_from_the_second_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, schedule = Clock(monkeypatch), Schedule(works(SWEEP), Costs())
    found = [measured(*each) for each in SWEEP]
    assert schedule.left() is None  # nothing was measured yet
    for job, (row, seconds) in enumerate(found):
        schedule.start(job)
        clock.now += seconds
        schedule.finish(job, row)
        left = sum(seconds for _, seconds in found[job + 1 :])
        if job and left:
            assert left / 1.5 <= (schedule.left() or 0) <= left * 1.5


# A small sweep on a busy machine, as it was recorded: strategy, seconds of the run, seconds of its measured parts, and
# epochs that it trained, of 2.4 s each. After the last run, five seconds of timing and the report took 17 s.
SMALL = [
    ("none", 16.2, 3.1, (1, 0)), ("ptq_int8", 16.0, 4.5, (0, 0)), ("finetune_ptq_int8", 15.5, 4.7, (0, 1)),
    ("qat", 25.0, 11.5, (0, 1)), ("finetune", 14.2, 2.6, (0, 0)),
]  # fmt: skip


def test_time_left_is_right_within_half_where_starts_and_ends_take_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    schedule = Schedule(works([(name, 1, trained) for name, _, _, trained in SMALL]), Costs(), 5.0 + FINISHING)
    for job, (strategy, seconds, parts, (baseline, own)) in enumerate(SMALL):
        schedule.start(job)
        clock.now += seconds
        trains = strategy not in ("none", "ptq_int8")
        row = rows.row(
            strategy, epochs=1, finetune_epochs=int(trains), epochs_trained=float(baseline + own),
            epochs_reused=float(1 + trains - baseline - own), train_seconds=2.4 * (1 + trains),
            train_seconds_reused=2.4 * (1 + trains - baseline - own), latency_seconds=parts,
        )  # fmt: skip
        schedule.finish(job, row)
        left = sum(seconds for _, seconds, _, _ in SMALL[job + 1 :]) + 17
        if job:
            assert left / 1.5 <= (schedule.left() or 0) <= left * 1.5


def test_time_left_counts_down_within_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, schedule = Clock(monkeypatch), Schedule(works(SWEEP[:1]), Costs([measured(*SWEEP[0])[0]]))
    schedule.start(0)
    before = schedule.left() or 0
    clock.now += 5
    assert schedule.left() == before - 5
    clock.now += 1000
    assert schedule.left() == 0


def test_runs_at_once_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    costs = Costs([measured("none", 1, (1, 0))[0]])
    alone, together = (Schedule(works([("none", 1, (1, 0))] * 4), costs) for _ in range(2))
    alone.start(0)
    together.start(0)
    together.start(1)
    assert together.left() == (alone.left() or 0) / 2


def test_what_follows_the_last_run_is_part_of_the_time_left() -> None:
    assert Schedule({}, Costs(), afterwards=40.0).left() == 40.0


def test_epochs_of_a_strategy_are_told_apart_from_those_of_its_baseline() -> None:
    costs = Costs([measured("none", 4, (4, 0))[0], measured("qat", 4, (4, 4))[0]])
    subject, _ = Work.settings_of(rows.row("none"))
    assert costs.epoch(subject, "") == pytest.approx(SECONDS[""])
    assert costs.epoch(subject, "qat") == pytest.approx(SECONDS["qat"])


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    settings = [f"cache.dir={tmp_path}/cache", "model=mlp", f"dataset.path={save_images(tmp_path / 'x.npz')}"]
    jobs = [("none", 1), ("none", 3), ("qat", 3), ("finetune", 2), ("finetune_ptq_int8", 2), ("none", 1)]
    return [
        compose_request(["dataset=npz", f"strategy={strategy}", f"epochs={epochs}", *settings])
        for strategy, epochs in jobs
    ]


def test_epochs_that_an_earlier_run_of_the_sweep_trains_are_not_trained_again(requests: list[Request]) -> None:
    planned = plan(requests, store=None)
    found = [(run.work.baseline_epochs, run.work.own_epochs, run.shared_epochs) for run in planned.runs]
    assert found == [(1, 0, 0), (2, 0, 1), (0, 3, 3), (0, 2, 2), (0, 0, 4), (0, 0, 0)]
    assert planned.runs[-1].reused == SAME_RUN
    expected = "Plan: 6 runs, 1 reused; 8 epochs to train, 10 shared with earlier runs of this sweep, 0 from the cache."
    assert planned.summary.startswith(expected)


def test_epochs_in_the_cache_are_found_by_the_name_of_their_training(requests: list[Request]) -> None:
    experiment = requests[1].experiment
    trajectory = experiment.cache.trajectory("0" * 32)
    trajectory.folder.mkdir(parents=True)
    for epoch in (1, 2):
        trajectory.keep(epoch, {}, "a training")
    trajectory.name(training_name(experiment, 0))
    first, second = plan([requests[1], requests[2]], store=None).runs
    assert (first.work.baseline_epochs, first.cached_epochs, first.shared_epochs) == (1, 2, 0)
    assert (second.work.baseline_epochs, second.cached_epochs, second.shared_epochs) == (0, 2, 1)


def test_early_stopping_makes_epochs_of_the_plan_a_maximum_until_its_end_is_known(requests: list[Request]) -> None:
    experiment = requests[1].experiment
    stopping = replace(experiment, training=replace(experiment.training, patience=1, epochs=20))
    request = replace(requests[1], experiment=stopping)
    assert "seed=0: at most 20 epochs to train" in plan([request], store=None).runs[0].line
    trajectory = experiment.cache.trajectory("0" * 32)
    trajectory.folder.mkdir(parents=True)
    trajectory.keep(3, {"history/val_loss": np.array([0.5, 0.4, 0.6])}, "a training that stopped")
    trajectory.name(training_name(stopping, 0))
    assert ": 0 epochs to train, 3 from the cache" in plan([request], store=None).runs[0].line


def test_a_strategy_that_trains_three_times_has_three_names(requests: list[Request]) -> None:
    experiment = requests[2].experiment
    assert PruneClusterQAT.trainings == 3
    assert len({training_name(experiment, stage) for stage in range(4)}) == 4


def test_trainings_for_another_task_have_another_name(requests: list[Request]) -> None:
    experiment = requests[0].experiment
    tasks = (Auto(), Regression(), Regression(loss="mae"))
    assert len({training_name(replace(experiment, task=task), 0) for task in tasks}) == 3


def test_trainings_that_differ_in_what_judges_or_keeps_their_epochs_have_one_name(requests: list[Request]) -> None:
    experiment = requests[2].experiment
    kept = replace(experiment, training=replace(experiment.training, keep="best"))
    judged = replace(experiment, task=Regression(metric="rmse"))
    alike = replace(experiment, task=Regression())
    assert training_name(kept, 0) == training_name(experiment, 0)
    assert training_name(kept, 1) != training_name(experiment, 1)  # it starts from other weights
    assert [training_name(judged, stage) for stage in (0, 1)] == [training_name(alike, stage) for stage in (0, 1)]


def test_settings_are_parted_into_those_of_all_runs_and_others() -> None:
    one = {"seed": 0, "strategy": {"kind": "a", "layers": 1}, "model": {"units": [1, 2]}}
    other = {"seed": 0, "strategy": {"kind": "b"}, "model": {"units": [1, 2]}}
    common, own = shared_settings([one, other])
    assert common == {"seed": 0, "model": {"units": [1, 2]}}
    assert own == [{"strategy": {"kind": "a", "layers": 1}}, {"strategy": {"kind": "b"}}]


def test_line_of_a_finished_run_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert finished_line(2, 8, rows.ROWS[1], 75.0, 130.0) == (
        "2/8 done in 1 min 15 s: accuracy 98.12 % (Δ +0.47), 156,664 bytes (3.83x smaller), speedup 3.72x, about "
        "2 min 10 s left"
    )
    of_errors = {"tflite_score": 0.304, "score_change": 0.00888, "metric": "mae", "metric_better": "lower"}
    larger = finished_line(1, 1, {**of_errors, "tflite_bytes": 2904.0, "size_ratio": 0.8}, 1.0, None)
    assert larger == "1/1 done in 1 s: MAE 0.304 (Δ +0.00888), 2,904 bytes (1.25x larger)"
    void = {**rows.ROWS[0], "latency_void": "disturbed"}
    assert "timing invalid" in finished_line(1, 1, void, 1.0, None)
    first = finished_line(1, 1, {**void, "latency_rounds": 1.0}, 1.0, None)
    assert first.endswith("first round of timing disturbed, more follow")
    follow = Follower(Schedule(works(SWEEP[:1]), Costs()), jobs=1)
    follow(STARTED, 0)
    follow(ENDED, 0, {**rows.ROWS[0], "train_seconds_reused": 0.0})
    assert capsys.readouterr().out.startswith("1/1 done in 0 s: accuracy 97.65 %")


class Recorded:
    """A store of finished runs."""

    def __init__(self, requests: Sequence[Request], latency_rounds: float) -> None:
        self.rows = [
            rows.row(
                **{name: str(value) for name, value in request.parameters.items() if "." in name},
                **asdict(request.experiment.setting), run_key="of another code", machine=stamp()["machine"],
                latency_rounds=latency_rounds, train_seconds_reused=0.0,
            )
            for request in requests
        ]  # fmt: skip

    def finished(self) -> Sequence[Row]:
        return self.rows


def test_rounds_of_timing_that_earlier_runs_have_are_not_counted_again(requests: list[Request]) -> None:
    one, other = requests[0], requests[2]
    span = one.experiment.latency.span_seconds
    assert plan([one, other], cast("Store", Recorded([one, other], 1))).afterwards == span + FINISHING
    known = plan([one, other], cast("Store", Recorded([one, other], 6)))
    assert known.afterwards == FINISHING
    assert known.summary.endswith("Rounds of timing of earlier runs with the same files are reused.")
    anew = [replace(each, resume=False) for each in (one, other)]
    assert plan(anew, cast("Store", Recorded([one, other], 6))).afterwards == span + FINISHING
    assert plan([one, other], cast("Store", Recorded([one], 6))).afterwards == span + FINISHING


def test_the_time_of_a_single_run_includes_its_further_rounds(requests: list[Request]) -> None:
    one = requests[0]
    assert plan([one], store=None).afterwards == pytest.approx(0.8 * one.experiment.latency.span_seconds)
    assert plan([one], cast("Store", Recorded([one], 5 + 1))).afterwards == 0


@pytest.mark.parametrize("sweep", [[], ["-m"]], ids=["single", "sweep"])
def test_dry_run_shows_plan_and_configuration_and_does_nothing(sweep: list[str], tmp_path: Path) -> None:
    names = "none,qat" if sweep else "qat"
    save_images(tmp_path / "images.npz")
    before = set(tmp_path.iterdir())
    heavy = (
        "import atexit, sys\natexit.register(lambda: print('loaded:', {'tensorflow', 'mlflow'} & set(sys.modules)))\n"
    )
    code = f"{heavy}from experiments.run import main\nmain()"
    arguments = [*sweep, f"strategy={names}", "epochs=2", "model=mlp", "dataset=npz", "dataset.path=images.npz"]
    done = run_interpreter(tmp_path, "-c", code, *arguments, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 epochs to train" in done.stdout
    assert "qat mlp images epochs=2+2 seed=0:" in done.stdout
    configuration = done.stdout.partition("Configuration")[2].partition(":\n")[2].partition("\n\n")[0]
    assert yaml.safe_load(configuration)["dataset"]["path"] == "images.npz"
    assert done.stdout.endswith("Nothing was run, created or recorded (--dry-run).\nloaded: set()\n")
    assert set(tmp_path.iterdir()) == before


def test_dry_run_rejects_what_the_run_would(tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.run", "--dry-run", "strategy=qat", "finetune.epochs=0")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "finetune.epochs=0: strategy=qat requires at least 1" in done.stderr


def test_a_store_that_is_not_usable_is_reported_before_any_plan(tmp_path: Path) -> None:
    """Not only by the run, which would wait once more for a writer, say."""
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert open_existing(tracking) is None
    (tmp_path / "mlflow.db").touch()
    assert open_existing(tracking) is None
    (tmp_path / "mlflow.db").write_text("no database, though long enough to be one" * 100)
    with pytest.raises(UserError, match="cannot be read as a database"):
        open_existing(tracking)
