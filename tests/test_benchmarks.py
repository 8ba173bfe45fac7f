"""The benchmarks' own arithmetic: what has to be trained at least, what the plain way costs, what tables say."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import choices, growth, memory, once, overhead, precision, publish, reading, starting
from benchmarks.__main__ import beside, chosen, committed
from benchmarks.harness import pages
from benchmarks.harness.bare import Bare
from benchmarks.harness.benchmark import HOUR, Study
from benchmarks.harness.results import Results
from benchmarks.harness.trajectories import (
    BASELINE,
    TRAININGS,
    Cell,
    Piece,
    least_epochs,
    plain_pieces,
    stations,
)
from benchmarks.killed import EARLY, KILLS, Outcome, Place, kinds_left, plan
from benchmarks.once import Work, full_work, mean_pieces
from benchmarks.precision import summary
from benchmarks.reading import equal
from benchmarks.registry import BENCHMARKS, STUDIES, TABLES, published, tables_from
from experiments.record.run_record import Setting
from experiments.system.errors import UserError
from experiments.tracking import Store, Tracking, connect
from experiments.training.precision import Precision
from tests.conftest import ENVIRONMENT, REPOSITORY


def cells(*strategies: str, epochs: tuple[int, ...] = (1, 2, 4), baseline: int = 10) -> list[Cell]:
    return [Cell(strategy, count, baseline) for strategy in strategies for count in epochs]


@pytest.mark.parametrize(
    ("strategies", "least"),
    [
        (["none", "ptq_int8"], 10),
        (["finetune"], 10 + 4),
        (["finetune", "finetune_ptq_int8"], 10 + 4),
        (["finetune", "qat", "annotate"], 10 + 3 * 4),
        (["prune_qat"], 10 + 4 + (1 + 2 + 4)),
        (["prune", "prune_qat"], 10 + 4 + (1 + 2 + 4)),
        (["prune_qat", "cluster_qat"], 10 + 2 * (4 + 1 + 2 + 4)),
        (["prune_cluster_qat"], 10 + 4 + 2 * (1 + 2 + 4)),
    ],
)
def test_the_smallest_number_of_epochs(strategies: list[str], least: int) -> None:
    assert least_epochs(cells(*strategies)) == least


def test_the_smallest_number_for_every_strategy() -> None:
    work = full_work(baseline_epochs=10)
    assert len(work.cells) == 3 * len(work.strategies)
    assert least_epochs(work.cells) == 10 + 5 * 4 + (1 + 2 + 4) + (1 + 2 + 4) + 2 * (1 + 2 + 4)


def test_every_strategy_that_trains_names_its_trajectories() -> None:
    from experiments.runs.configuration import compose_request

    every = full_work(baseline_epochs=1).strategies
    assert {
        name for name in every if compose_request([f"strategy={name}"]).experiment.strategy.trains
    } == TRAININGS.keys()


def test_a_trajectory_is_needed_at_several_numbers_of_epochs() -> None:
    assert stations(cells("prune", "prune_qat", epochs=(1, 4), baseline=2)) == {
        "baseline": {2},
        "baseline@2 > prune": {1, 4},
        "baseline@2 > prune@1 > qat keeping zeros": {1},
        "baseline@2 > prune@4 > qat keeping zeros": {4},
    }


def test_the_plain_way_pays_each_piece_in_every_cell() -> None:
    pieces = [
        Piece("building", BASELINE, 0, 0.5),
        Piece("epoch", BASELINE, 1, 10),
        Piece("epoch", BASELINE, 2, 7),
        Piece("epoch", "baseline@2 > qat", 1, 20),
        Piece("epoch", "baseline@2 > qat", 2, 15),
        *(Piece("building", name, 0, 3) for name in ("qat@1", "qat@2")),
        Piece("building", "none", 0, 0),
        *(Piece("conversion", name, 0, 2) for name in ("none", "qat@1", "qat@2")),
        *(Piece("tflite_evaluation", name, 0, 1) for name in ("none", "qat@1", "qat@2")),
        *(Piece("keras_evaluation", name, 0, 4) for name in (BASELINE, "qat@1", "qat@2")),
    ]
    none, qat = 0.5 + 17 + 2 + 1 + 4, 0.5 + 17 + 3 + 2 + 1 + 4
    everything = plain_pieces(pieces, cells("none", "qat", epochs=(1, 2), baseline=2))
    assert sum(piece.seconds for piece in everything) == 2 * none + (qat + 20) + (qat + 20 + 15)
    assert sum(piece.what == "epoch" for piece in everything) == 4 * 2 + 1 + 2


def test_pieces_of_two_passes_are_averaged() -> None:
    first, second = (Bare(seconds, (Piece("epoch", BASELINE, 1, seconds),)) for seconds in (2.0, 4.0))
    assert mean_pieces([first, second]) == [Piece("epoch", BASELINE, 1, 3.0)]


def test_the_sweep_over_everything_is_started_as_a_command() -> None:
    assert full_work(baseline_epochs=3).overrides[:2] == ["strategy=glob(*)", "finetune.epochs=1,2,4"]
    assert Work(("none", "qat"), (1,), 1, ()).overrides == [
        "strategy=none,qat",
        "finetune.epochs=1",
        "training.epochs=1",
    ]


def test_the_sweep_is_compared_with_the_mean_of_both_bare_passes() -> None:
    ways = [once.SWEEP, once.BARE_BEFORE, once.BARE_AFTER, once.PLAIN_RECKONED]
    table = pd.DataFrame({"way": ways, "seconds": [110.0, 90.0, 110.0, 550.0]})
    assert once.bare_ratio(table) == pytest.approx(1.1)
    assert once.plain_ratio(table) == pytest.approx(5)


def test_overhead_is_the_time_outside_the_parts_of_a_job() -> None:
    parts = {
        "training_seconds": [5.0, 0.0],
        "conversion_seconds": 1.0,
        "evaluation_seconds": 2.0,
        "latency_seconds": 0.5,
    }
    jobs = pd.DataFrame({"seconds": [10.5, 4.5], **parts, "sweep_seconds": 22.0})
    assert overhead.with_overhead(jobs)["overhead_seconds"].tolist() == [2.0, 1.0]
    assert overhead.overhead_with_starting(jobs) == 5.0


def test_memory_is_compared_between_the_first_and_the_last_jobs() -> None:
    jobs = range(1, 51)
    samples = pd.DataFrame({"job": [0, *jobs], "main_mib": [900.0, *(200.0 + i for i in jobs)], "children_mib": 500.0})
    ends = memory.memory_ends(samples).T["main_mib"]
    assert (ends["first"], ends["last"]) == (210, 250)
    assert ends["slope"] == pytest.approx(1)
    assert not memory.is_flat(ends)
    assert memory.is_flat(pd.Series({"first": 210.0, "last": 230.0}))
    assert memory.is_flat(pd.Series({"first": 2000.0, "last": 2060.0}))


def times_of_reading(**seconds: list[float]) -> pd.DataFrame:
    """What reading stores of 100, 1,000 and 5,000 runs took."""
    usual = {
        "searched_seconds": [0.5, 4.0, 20.0],
        "loaded_seconds": [0.1, 0.3, 1.5],
        "printed_seconds": [4.0, 5.0, 12.0],
        "written_seconds": [4.0, 5.0, 13.0],
        "reported_seconds": [5.0, 9.0, 30.0],
        "reported_mib": [300.0, 350.0, 600.0],
    }
    return pd.DataFrame({"store": "SQLite", "runs": [100, 1000, 5000], "equal": True, **usual, **seconds})


def test_reading_must_be_fast_linear_and_correct() -> None:
    assert reading.failures(times_of_reading()) == []
    assert reading.failures(times_of_reading(loaded_seconds=[0.1, 0.9, 3.5])) == ["SQLite, 5,000 runs: read in 3.5 s"]
    (grown,) = reading.failures(times_of_reading(printed_seconds=[4.0, 5.0, 100.0]))
    assert "printed_seconds" in grown
    assert reading.failures(times_of_reading().assign(equal=[True, False, True])) == ["SQLite, 1,000 runs: unequal"]


def test_a_report_must_be_fast_and_small() -> None:
    slow, *_ = reading.failures(times_of_reading(reported_seconds=[5.0, 9.0, 61.0]))
    assert slow == "SQLite, 5,000 runs: reported_seconds 61.0 s"
    (large,) = reading.failures(times_of_reading(reported_mib=[300.0, 350.0, 1100.0]))
    assert large == "SQLite, 5,000 runs: reported_mib 1100.0 MiB"


def test_a_way_of_reading_that_was_left_out_is_an_empty_cell() -> None:
    table = times_of_reading(searched_seconds=[0.5, 4.0, ""])  # type: ignore[list-item]  # as a CSV has it
    assert "|                           |" in reading.published_table(table)


def test_the_time_of_a_run_must_be_linear_in_the_layers() -> None:
    table = pd.DataFrame({"layers": [10, 50, 150, 10], "run": [10, 12, 20, 9], "conversion": [2, 3, 9, 2]})
    assert not list(growth.failures(table.assign(evaluation=[1, 2, 6, 1])))
    assert list(growth.failures(table.assign(evaluation=[1, 5, 45, 1]))) == [
        "evaluation: 9.0 times as long for three times as many layers"
    ]


def test_a_sweep_must_start_soon() -> None:
    table = pd.DataFrame({"jobs": [30, 300, 1000], "seconds": [5.0, 21.0, 60.0]})
    assert starting.failures(table) == ["300 jobs: started after 21.0 s"]


SEARCHED = pd.DataFrame(
    {
        "run_id": ["b", "a"], "status": ["FINISHED", "FAILED"], "metrics.agreement": [0.5, None],
        "params.x.y": ["1", "1"], "tags.strategy": ["qat", "none"], "tags.epochs": ["2", "1"],
    }
)  # fmt: skip
ROWS = [
    {"strategy": "none", "epochs": 1, "x.y": "1", "run_id": "a", "status": "FAILED"},
    {"strategy": "qat", "epochs": 2, "x.y": "1", "agreement": 0.5, "run_id": "b", "status": "FINISHED"},
]


@pytest.mark.parametrize(
    "change", [{}, {"agreement": 0.5000000001}, {"strategy": "none"}, {"agreement": None}, {"x.z": "1"}, {"epochs": 3}]
)
def test_equal_values_are_equal_in_every_digit(change: dict[str, object]) -> None:
    assert equal([ROWS[0], {**ROWS[1], **change}], SEARCHED) == (not change)


def precisions(bfloat16_seconds: float, wrong: int) -> tuple[pd.DataFrame, dict[Precision, Any]]:
    """Two epochs of two seeds in each precision; in bfloat16 so many more of 10,000 images are wrong."""
    seconds = [
        {"seed": seed, "epoch": epoch, "precision": precision, "seconds": took + 0.1 * seed}
        for seed in (0, 1)
        for epoch in (1, 2)
        for precision, took in (("float32", 50.0), ("mixed_bfloat16", bfloat16_seconds))
    ]
    right = np.tile(np.arange(10_000) >= 200, (2, 1))
    return pd.DataFrame(seconds), {"float32": right, "mixed_bfloat16": right & (np.arange(10_000) < 10_000 - wrong)}


EPOCHS_OF_TWO_PRECISIONS = precisions(25.0, wrong=5)


def test_a_precision_that_is_faster_and_as_accurate_pays() -> None:
    assert precision.failures(summary(*EPOCHS_OF_TWO_PRECISIONS)) == []


def test_a_precision_that_is_slower_or_less_accurate_does_not() -> None:
    slow, wrong = precisions(51.0, wrong=5), precisions(25.0, wrong=50)
    assert precision.failures(summary(*slow)) == ["mixed_bfloat16: not faster than float32"]
    assert "may differ by more than 0.30 points" in precision.failures(summary(*wrong))[0]


def example(name: str) -> pd.DataFrame:
    """Figures as a benchmark finds them."""
    parts = {f"{part}_seconds": 0.5 for part in overhead.NOT_OVERHEAD}
    work = Work(("none", "qat"), (1,), 1, ("dataset.train_samples=500",)).described
    ways = [once.SWEEP, once.BARE_BEFORE, once.BARE_AFTER, once.PLAIN_MEASURED]
    kill = Outcome(1, 2, "", 1, 1, 0, 0, 0, 0.31, 0, 0, 20.0, True, 0, 0, 0, "")
    start = {"time": 1, "exit_code": 0, "finished_rows": 2, "expected_rows": 2}
    frames = {
        "once": pd.DataFrame({"way": ways, "epochs_trained": 2, "seconds": 9.0, **parts, **work, "runs": 2}),
        "killed": pd.DataFrame([asdict(kill)]).assign(uninterrupted_seconds=30.0),
        "fresh_store": pd.DataFrame([{**start, "process": i, "seconds": 30.0 + i} for i in (1, 2)]),
        "overhead": pd.DataFrame({"strategy": ["none"], "seconds": 9.0, **parts, "sweep_seconds": 12.0}),
        "memory": pd.DataFrame({"job": range(60), "main_mib": 300.0, "children_mib": 1500.0}),
        "reading": times_of_reading(),
        "starting": pd.DataFrame({"jobs": [30, 300], "seconds": [5.0, 9.0]}),
        "choices": pd.DataFrame(CHOICES),
        "epoch": pd.DataFrame({"images": 9000, "plain_seconds": [10.3, 8.0], "here_seconds": [8.0, 8.1]}),
        "precision": summary(*EPOCHS_OF_TWO_PRECISIONS),
        "sizes": pd.DataFrame(
            {
                "model": ["resnet8"],
                "parameters": 78_666,
                "float_bytes": 318_000,
                "int8_bytes": 98_000,
                "essential_bytes": 92_000,
                "reference_float_bytes": 318_144,
                "reference_int8_bytes": 98_496,
                "reference_essential_bytes": 91_928,
            }
        ),
        "profile": pd.DataFrame(
            {"strategy": ["none"], "time": 1, "whole_us": 390.0, "sum_us": 400.0, "call_us": 0.6, "ratio": 400 / 390}
        ),
    }
    return frames[name]


WRITTEN = [
    "choices", "epoch", "fresh_store", "killed", "memory", "once", "overhead", "precision", "profile", "reading",
    "sizes", "starting",
]  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_results_are_written_as_they_are_published(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n<!-- table {name} -->\n<!-- end of table {name} -->\nafter\n")
    monkeypatch.setattr(pages, "README", readme)

    Results(BENCHMARKS[name]).write(
        example(name), "python -m experiments.run -m", {"more.csv": pd.DataFrame({"a": [1]})}
    )

    assert BENCHMARKS[name].tables[0].make(example(name)) in readme.read_text()
    folder = tmp_path / "results" / name
    assert {path.name for path in folder.iterdir()} == {f"{name}.csv", "more.csv", "stamp.json"}
    assert json.loads((folder / "stamp.json").read_text())["sweep"] == "python -m experiments.run -m"


def test_kills_are_spread_over_all_changes_and_over_before_within_and_after() -> None:
    counts: dict[Place, int] = {"creation": 5000, "cache": 45, "artifact": 140, "commit": 780, "moment": 0}
    folders = plan(counts, KILLS, 40.0, seed=0)
    kills = [kill for folder in folders for kill in folder]
    assert len(kills) == sum(KILLS.values())
    for place, number in KILLS.items():
        length = 40.0 if place == "moment" else counts[place]
        parts = sorted(int((kill.at - (place != "moment")) * number / length) for kill in kills if kill.place == place)
        assert parts == list(range(number))
        assert {kill.when for kill in kills if kill.place == place} == {"before", "within", "after"}


def test_the_store_is_made_first_and_a_late_change_comes_last_in_a_folder() -> None:
    folders = plan(dict.fromkeys(KILLS, 100), KILLS, 40.0, seed=1)
    for folder in folders:
        creations = [kill.place == "creation" for kill in folder]
        assert creations == sorted(creations, reverse=True)
        late = [kill.at > EARLY * 100 for kill in folder if kill.place in ("cache", "artifact", "commit")]
        assert late == [False] * (len(late) - 1) + [True]


def test_files_that_a_sweep_leaves_are_counted_by_kind(tmp_path: Path) -> None:
    for name in (
        "cache/results/0123456789abcdef0123456789abcdef-0123456789abcdef.npz",
        "tmp/fork-123@456-0",
        "mlruns/1/a",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    left = {"cache", "cache/results", "cache/results/#-#.npz", "tmp", "tmp/fork-#@#-#", "mlruns"}
    assert kinds_left(tmp_path) == left


def test_results_of_a_shared_host_are_kept_beside_those_of_a_quiet_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    spread = BENCHMARKS["spread"]
    assert Results(spread, shared_host=True).folder == Results(spread).folder / "shared_host"


def test_an_archived_study_keeps_its_table_and_names_the_commit_that_can_repeat_it() -> None:
    archived = [name for name, study in STUDIES.items() if study.removed]
    assert archived == ["ranges"]
    commit = json.loads(pages.on_disk("ranges/stamp.json"))["git_commit"]
    with pytest.raises(UserError, match=rf"requires strategy.range_init, which was removed.*checkout {commit}"):
        chosen(["ranges"], BENCHMARKS)
    (page,) = [page for page in pages.pages() if pages.OPENING.format("ranges") in page.read_text()]
    assert commit in page.read_text()
    assert "calibrated" in published("ranges")


def test_every_result_belongs_to_a_benchmark() -> None:
    assert {path.parent.name for path in pages.RESULTS.glob("*/stamp.json")} <= BENCHMARKS.keys()


def test_every_module_with_a_benchmark_is_listed_by_its_name() -> None:
    modules = pages.RESULTS.parent.glob("*.py")
    assert {path.stem for path in modules if "\nBENCHMARK = " in path.read_text()} == BENCHMARKS.keys()


def test_every_benchmark_says_what_it_shows_and_for_how_long_it_runs() -> None:
    assert all(each.title and 1 <= each.minutes <= 12 * HOUR for each in BENCHMARKS.values())


def test_no_two_tables_have_the_same_name() -> None:
    assert sum(len(each.tables) for each in BENCHMARKS.values()) == len(TABLES)


def test_published_tables_are_made_without_tensorflow_and_without_mlflow() -> None:
    code = (
        "import sys; from benchmarks.registry import TABLES; [table.published() for table in TABLES.values()]; "
        "assert not {'tensorflow', 'mlflow'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=ENVIRONMENT, check=False).returncode == 0


def test_the_files_of_strategies_are_those_of_the_longest_training_and_the_smallest_first() -> None:
    sizes = {"tflite_bytes": [600, 150, 150, 600], "tflite_gzip_bytes": [500, 130, 120, 100], "size_ratio": 1.0}
    runs = pd.DataFrame(
        {"strategy": ["none", "qat", "qat", "prune"], "finetune_epochs": [0, 1, 4, 4], **sizes, "arithmetic": "4 int8"}
        | {"speedup": 1.0, "speedup_low": 0.99, "speedup_high": 1.01}
        | {"arena_bytes": [np.nan, 8, 9, 9], "runs_on_micro": ["no: hybrid", "yes", "yes", "yes"]}
    )
    rows = [line.split("|") for line in once.files_of_strategies(runs).splitlines()[2:]]
    assert [(row[1].strip(), row[3].strip()) for row in rows] == [("qat", "120"), ("prune", "100"), ("none", "500")]


def choice(session: int, name: str, speedup: float, against_whole: float, void: str = "") -> dict[str, object]:
    ratios = {"speedup": speedup, "against_whole": against_whole}
    ends = {
        f"{ratio}_{end}": value + by for ratio, value in ratios.items() for end, by in (("low", -0.1), ("high", 0.1))
    }
    return {"session": session, "choice": name, "bytes": 1500, "void": void, **ratios, **ends}


CHOICES = [
    choice(1, choices.FLOAT, 1.0, 0.3), choice(1, choices.WHOLE, 3.3, 1.0), choice(1, "b", 3.5, 1.1),
    choice(2, choices.FLOAT, 1.0, 0.3), choice(2, choices.WHOLE, 3.4, 1.0), choice(2, "b", 3.7, 1.2),
    choice(3, choices.FLOAT, 1, 9, "busy"), choice(3, choices.WHOLE, 9, 1, "busy"), choice(3, "b", 9, 9, "busy"),
]  # fmt: skip


def test_choices_of_layers_are_listed_fastest_first_and_without_invalid_sessions() -> None:
    rows = [line.split("|") for line in choices.published_table(pd.DataFrame(CHOICES)).splitlines()[2:5]]
    assert [[cell.strip() for cell in row[1:-1]] for row in rows] == [
        ["b", "1,500", "3.60x [3.50, 3.70]", "1.15x [1.10, 1.20]", "1.000 to 1.200; 1.100 to 1.300"],
        ["all four", "1,500", "3.35x [3.30, 3.40]", "1.00x [1.00, 1.00]", "0.900 to 1.100; 0.900 to 1.100"],
        ["none, the float file", "1,500", "1.00x [1.00, 1.00]", "0.30x [0.30, 0.30]", "0.200 to 0.400; 0.200 to 0.400"],
    ]


@pytest.mark.parametrize(
    ("now", "was", "said"),
    [
        ("new\n", "old\n", "table a, now:\nnew\n\ncommitted before:\nold\n"),
        ("same\n", "same\n", "table a: as committed.\nsame\n"),
        ("new\n", "", "table a, never committed:\nnew\n"),
    ],
)
def test_a_table_is_shown_beside_what_was_committed(now: str, was: str, said: str) -> None:
    assert beside("a", now, was) == said


def test_the_committed_table_is_shown_as_the_page_shows_it() -> None:
    assert any(published("spread", committed).strip() in page.read_text() for page in pages.pages())


def test_an_unknown_benchmark_is_refused_with_similar_names() -> None:
    with pytest.raises(UserError, match=r"onc: no such benchmark. Did you mean once"):
        chosen(["onc"], BENCHMARKS)


def test_all_means_every_benchmark_once() -> None:
    every = BENCHMARKS
    assert chosen(["all", "once"], every) == [each for each in every.values() if each.name != "ranges"]


TWO_SWEEPS = Study(
    name="two", title="two sweeps", minutes=1, tables=(),
    sweeps=(("-m", "strategy=none"), ("+suite=smoke", "strategy.layers=[a]")),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return connect(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))


def sweep_of(store: Store, command: str, strategy: str, *, finished: bool = True) -> None:
    sweep = store.open_sweep("a sweep", {"command": command})
    store.open_run(Setting(strategy, "mlp", "mnist", 1, 0, 0), {}, {}, sweep, 0)
    store.close(sweep, "FINISHED" if finished else "FAILED")


def test_a_study_has_the_runs_of_the_newest_sweep_of_each_of_its_commands(store: Store) -> None:
    first, second = TWO_SWEEPS.typed
    for command, strategy in ((first, "of before"), (second, "annotate"), (first, "none"), ("another", "qat")):
        sweep_of(store, command, strategy)
    assert publish.runs_of(TWO_SWEEPS, store)["strategy"].tolist() == ["none", "annotate"]


def test_a_sweep_that_lost_runs_is_no_part_of_a_study(store: Store) -> None:
    first, second = TWO_SWEEPS.typed
    sweep_of(store, first, "none")
    sweep_of(store, second, "annotate")
    sweep_of(store, second, "half of it", finished=False)
    assert publish.runs_of(TWO_SWEEPS, store)["strategy"].tolist() == ["none", "annotate"]


def test_a_table_that_is_derived_from_results_is_renewed_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "".join(f"<!-- table {name} -->\n<!-- end of table {name} -->\n" for name in ("once", "strategies"))
    )
    monkeypatch.setattr(pages, "README", readme)
    pages.renew(tables_from("once"))
    assert published("strategies") in readme.read_text()


def test_a_page_behind_the_readme_is_renewed_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "latency.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- table spread -->\n<!-- end of table spread -->\nafter\n")
    (tmp_path / "README.md").write_text("no table\n")
    monkeypatch.setattr(pages, "README", tmp_path / "README.md")
    pages.renew([TABLES["spread"]])
    assert published("spread") in page.read_text()


def test_a_published_study_is_drawn_again_without_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "compression"
    folder.mkdir(parents=True)
    for name in ("comparison.csv", "report.html", "stamp.json"):
        shutil.copy(pages.RESULTS / "compression" / name, folder)
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    publish.redraw("compression")
    assert {"accuracy_size.png", "accuracy_download.png", "coverage.png"} <= {path.name for path in folder.iterdir()}
    assert "made again from the published tables" in (folder / "report.html").read_text()
    signed = json.loads((folder / "stamp.json").read_text())
    assert signed["pictures"] == "python -m benchmarks.publish compression --redraw"


def test_a_table_without_an_end_names_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table spread -->\n")
    monkeypatch.setattr(pages, "README", readme)
    with pytest.raises(UserError, match=r"README.md: the table spread requires"):
        pages.renew([TABLES["spread"]])


def test_a_table_of_two_studies_is_renewed_with_either() -> None:
    assert TABLES["compression_seeds"].sources == {"compression", "compression_seeds"}


def test_a_study_that_was_not_run_to_its_end_names_the_command_that_is_missing(store: Store) -> None:
    sweep_of(store, TWO_SWEEPS.typed[0], "none")
    with pytest.raises(UserError, match=r"run it: python -m experiments.run \+suite=smoke 'strategy.layers=\[a\]'"):
        publish.runs_of(TWO_SWEEPS, store)


def test_an_unknown_study_is_refused_with_similar_names() -> None:
    with pytest.raises(UserError, match=r"layer: no such study. Did you mean layers"):
        publish.study_of("layer")


@pytest.mark.parametrize(
    "path",
    sorted(pages.RESULTS.rglob("stamp.json")),
    ids=lambda path: str(path.parent.relative_to(pages.RESULTS)),
)
def test_every_stamp_names_its_command_and_a_clean_commit(path: Path) -> None:
    name, stamp = path.relative_to(pages.RESULTS).parts[0], json.loads(path.read_text())
    own = f"python -m benchmarks.{BENCHMARKS[name].former_name or name}"
    assert stamp["command"] == " && ".join(STUDIES[name].typed) if name in STUDIES else own in stamp["command"]
    assert stamp["git_dirty"] == "false"


def test_every_result_has_a_stamp() -> None:
    folders = {path.parent for path in pages.RESULTS.rglob("*") if path.is_file() and path.parent != pages.RESULTS}
    assert folders == {path.parent for path in pages.RESULTS.rglob("stamp.json")}
