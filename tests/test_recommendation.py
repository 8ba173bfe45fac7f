"""The rule by which one setting is named: who is tied with the best, and which of them is the simplest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.recommendation import outcome, simulate_predictions
from experiments.comparison.choices import answer_lines, choices, headline, recommended
from experiments.comparison.columns import cell_of, frame
from experiments.comparison.compared import Comparison
from experiments.comparison.groups import group_runs, seeds_to_pool
from experiments.comparison.recommendation import (
    ORDER,
    SAME_SIZE,
    Candidate,
    fastest,
    most_accurate,
    order_of,
    recommend,
    smallest,
)
from experiments.comparison.summary import summary
from experiments.comparison.tasks import tasks
from experiments.statistics.estimates import Estimate, unpaired_difference, unpaired_p
from experiments.system.errors import UserError
from tests.rows import FAILED, predictions, row, seeds

FAST, SLOW = Estimate(3.4, 3.3, 3.5), Estimate(0.9, 0.88, 0.92)
# The article's settings, which no test tells apart in accuracy: (bytes, speedup, share of ops in integers).
ARTICLE = [
    Candidate("none", 0.9885, bytes=599_796, speedup=Estimate(1.0, 0.99, 1.01)),
    Candidate("ptq_dynamic", 0.9885, smaller=True, bytes=155_168, speedup=Estimate(3.35, 3.26, 3.45)),
    Candidate("ptq_int4", 0.9883, smaller=True, bytes=79_592, speedup=SLOW, slower=True),
    Candidate("ptq_int8", 0.9885, smaller=True, bytes=156_296, speedup=FAST, integers=1.0),
    Candidate("ptq_int16x8", 0.9885, smaller=True, bytes=157_992, speedup=SLOW, slower=True, integers=1.0),
    Candidate("finetune_ptq_int8", 0.9892, smaller=True, trains=True, bytes=156_296, speedup=FAST, integers=1.0),
    Candidate("qat", 0.9890, smaller=True, trains=True, bytes=156_896, speedup=FAST, integers=1.0),
    Candidate(
        "annotate", 0.9894, smaller=True, trains=True, bytes=224_336, speedup=Estimate(1.03, 1.03, 1.04), integers=0.25
    ),
]


@dataclass(frozen=True)
class Told:
    """Evidence that is given: p-values, and the differences that are known."""

    p: Mapping[str, float | None]
    differences: Mapping[str, Estimate]

    def p_value(self, one: str, other: str) -> float | None:
        return self.p.get(one, 1.0)

    def difference(self, one: str, other: str) -> Estimate | None:
        return self.differences.get(one)


ALL_TIED = Told({}, {})


def test_of_the_article_s_settings_int8_after_training_is_the_simplest() -> None:
    found = recommend(*most_accurate(ARTICLE, ALL_TIED))
    assert (found.chosen.key, found.best.key, found.is_won, len(found.tied)) == ("ptq_int8", "annotate", False, 8)
    assert found.decided_by == ("smaller", "training", "slower", "integers")


@pytest.mark.parametrize(
    ("order", "chosen"),
    [
        ("training,size,speed", "ptq_int4"),
        ("speed,training", "ptq_dynamic"),
        ("integers,size", "ptq_int8"),
        ("training,integers", "ptq_int8"),
    ],
)
def test_another_order_names_another_setting(order: str, chosen: str) -> None:
    assert recommend(*most_accurate(ARTICLE, ALL_TIED), order_of(order)).chosen.key == chosen


@pytest.mark.parametrize("order", ["size,sped", "size,size"])
def test_an_order_that_cannot_be_read_is_refused(order: str) -> None:
    with pytest.raises(UserError, match="--prefer"):
        order_of(order)


def test_a_row_significantly_worse_than_the_best_is_not_tied_and_cannot_be_named() -> None:
    worse = {each.key: 1e-9 for each in ARTICLE if not each.trains}
    found = recommend(*most_accurate(ARTICLE, Told(worse, {})))
    assert {each.key for each in found.tied} == {"finetune_ptq_int8", "qat", "annotate"}
    assert found.chosen.key == "finetune_ptq_int8"


def test_one_that_cannot_be_compared_is_not_tied() -> None:
    best, tied = most_accurate(ARTICLE[:2], Told({"ptq_dynamic": None}, {}))
    assert tied == [best]


def test_one_that_loses_more_than_the_margin_for_sure_is_not_tied_however_many_are_compared() -> None:
    lost = Told({}, {"ptq_int4": Estimate(-0.03, -0.05, -0.01)})
    assert "ptq_int4" not in [each.key for each in most_accurate(ARTICLE, lost)[1]]
    assert "ptq_int4" in [each.key for each in most_accurate(ARTICLE, lost, margin=0.02)[1]]


def test_a_copy_of_the_best_file_is_tied_with_it_and_no_winner_is_denied() -> None:
    best, copy = Candidate("qat", 0.99, file="f", trains=True), Candidate("again", 0.99, file="f")
    found = recommend(*most_accurate([best, copy], Told({"again": 0.0}, {})))
    assert (found.is_won, found.chosen.key) == (True, "again")


def test_a_speed_that_is_not_known_is_never_the_fastest() -> None:
    unknown = Candidate("void", 0.99, bytes=156_296)
    assert recommend(ARTICLE[3], [ARTICLE[3], unknown], ["speed"]).chosen.key == "ptq_int8"


def test_bytes_are_exact_where_size_is_the_goal() -> None:
    assert [each.key for each in smallest(ARTICLE, lambda each: each.bytes)[1]] == ["ptq_int4"]


def test_speeds_that_their_intervals_do_not_tell_apart_are_tied() -> None:
    assert {each.key for each in fastest(ARTICLE)[1]} == {"ptq_int8", "finetune_ptq_int8", "qat", "ptq_dynamic"}


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        key=st.uuids().map(str),
        accuracy=st.floats(0.5, 1),
        smaller=st.booleans(),
        trains=st.booleans(),
        bytes=st.integers(1, 10**6).map(float),
        speedup=st.sampled_from([None, FAST, SLOW, Estimate(2.0, 1.9, 2.1)]),
        slower=st.booleans(),
        integers=st.floats(0, 1),
        epochs=st.integers(0, 20).map(float),
    ),
    min_size=1,
    max_size=8,
)


@given(CANDIDATES, st.permutations(ORDER))
def test_the_one_named_is_tied_and_none_is_better_by_the_first_criterion(
    candidates: list[Candidate], order: list[str]
) -> None:
    found = recommend(candidates[0], candidates, order)
    assert found.chosen in candidates
    match order[0]:
        case "smaller":
            assert found.chosen.smaller == any(each.smaller for each in candidates)
        case "training":
            assert found.chosen.trains == all(each.trains for each in candidates)
        case "slower":
            assert found.chosen.slower == all(each.slower for each in candidates)
        case "size":
            assert found.chosen.bytes <= SAME_SIZE * min(each.bytes for each in candidates)
        case "integers":
            assert found.chosen.integers == max(each.integers for each in candidates)
        case "speed":
            assert bool(found.chosen.speedup) == any(each.speedup for each in candidates)


@given(CANDIDATES)
def test_the_order_of_the_rows_does_not_decide(candidates: list[Candidate]) -> None:
    one, other = (recommend(each[0], each).chosen for each in (candidates, candidates[::-1]))
    assert replace(one, key="", accuracy=0.0) == replace(other, key="", accuracy=0.0) or one.bytes == other.bytes


def test_rows_that_could_not_be_compared_are_reported() -> None:
    nothing = {"tflite_accuracy_low": None, "tflite_accuracy_high": None}
    rows = [row("none", **nothing), row("qat", **{**INT8, **nothing})]
    (line,) = answer_lines(comparison(rows, {}))
    assert line.endswith("not compared with 1 other, whose predictions are missing.")
    assert "significantly more" not in line
    (task,) = tasks(comparison(rows, {}))
    (smallest_file,) = (choice for choice in choices(task) if choice.priority == "Size first")
    assert smallest_file.evidence.startswith("Predictions are missing that are needed to show that a file smaller")


def test_where_no_run_is_sound_the_answer_says_so() -> None:
    assert answer_lines(comparison([FAILED], {})) == ["Nothing to ship: no run is finished and verified."]


@pytest.mark.parametrize("damaged", [{"speedup_low": 0.0}, {"tflite_bytes": -1.0}, {"tflite_accuracy": 5.0}])
def test_damaged_values_decide_nothing_and_break_nothing(damaged: dict[str, float]) -> None:
    rows = [row("none"), row("ptq_int8", **INT8, **SPEED), row("qat", **{**INT8, **SPEED, **damaged})]
    assert answer_lines(comparison(rows, {}))


def test_without_predictions_two_accuracies_are_compared_by_their_intervals() -> None:
    high, low = Estimate(0.98, 0.97, 0.99), Estimate(0.95, 0.94, 0.96)
    assert unpaired_p(high, low) < 0.05 < unpaired_p(high, Estimate(0.975, 0.965, 0.985))
    difference = unpaired_difference(high, low)
    assert (difference.low, difference.high) == pytest.approx((0.03 - 2**0.5 / 100, 0.03 + 2**0.5 / 100))
    assert unpaired_p(high, high) == 1


INT8 = {"tflite_bytes": 156_296.0, "size_ratio": 3.84, "coverage_ops": 1.0, "speed": "faster"}
SPEED = {"speedup": 3.38, "speedup_low": 3.34, "speedup_high": 3.42}


def comparison(rows: list[dict[str, object]], wrong: Mapping[str, int], images: int = 10_000) -> Comparison:
    table = frame(rows)
    return Comparison(
        table, table, lambda run_id: predictions(wrong[run_id], images=images) if run_id in wrong else None
    )


TIED = comparison(
    [
        row("none", tflite_accuracy=0.9885),
        row("ptq_int8", tflite_accuracy=0.9885, **INT8, **SPEED),
        row("qat", tflite_accuracy=0.9890, finetune_epochs=1, **INT8, **SPEED),
    ],
    {"run-none": 115, "run-ptq_int8": 115, "run-qat": 112},
)


def test_a_tie_is_described_with_the_file_to_ship_and_the_reason() -> None:
    (line,) = answer_lines(TIED)
    assert line == (
        "No winner: these 3 are tied: ptq_int8, none, qat. Ship the simplest of them: ptq_int8 (smaller than float; no "
        "further training). 98.85 [97.34, 97.93] % of the test examples classified correctly, "
        "-0.03 [-0.07, +0.01] points compared with the most accurate, qat; 156,296 bytes, 3.84x smaller than float, "
        "3.38x [3.34, 3.42] as fast. What would change this: about 35,000 test examples, or more seeds, would "
        "separate it from qat, if predictions keep differing as often."
    )
    assert recommended(TIED) == {"run-ptq_int8"}


def test_the_float_file_is_not_the_answer_where_a_smaller_one_is_tied_with_it() -> None:
    rows = [row("none", tflite_accuracy=0.9885), row("qat", tflite_accuracy=0.9885, finetune_epochs=1, **INT8, **SPEED)]
    wrong = {"run-none": 115, "run-qat": 115}
    (task,) = tasks(comparison(rows, wrong))
    assert headline(task).name == "qat"
    (task,) = tasks(replace(comparison(rows, wrong), order=order_of("training,size,speed,integers")))
    assert headline(task).name == "none"


def test_a_row_less_accurate_than_the_best_in_a_single_test_is_reported() -> None:
    """40 and 52 wrong of 10,000 nested images differ (p = 0.0005); as one of 105 pairs they do not."""
    best = row("qat", tflite_accuracy=0.996, finetune_epochs=1, **INT8, **SPEED)
    others = [row(f"s{n}", tflite_accuracy=0.9948, **INT8, **SPEED) for n in range(14)]
    wrong = {"run-qat": 40} | {f"run-s{n}": 52 for n in range(14)}
    (task,) = tasks(comparison([best, *others], wrong))
    first = headline(task)
    assert (first.name, len(first.tied)) == ("s0", 14)
    assert "less accurate than qat in a test of only these two" in first.text


def test_a_winner_is_described_with_the_evidence() -> None:
    rows = [row("none", tflite_accuracy=0.95), row("qat", tflite_accuracy=0.99, finetune_epochs=1, **INT8, **SPEED)]
    (line,) = answer_lines(comparison(rows, {"run-none": 500, "run-qat": 100}))
    assert line.startswith(
        "Ship qat: 99.00 [97.34, 97.93] % of the test examples classified correctly, significantly more than the other"
    )
    assert "No winner" not in line


def test_a_winner_by_the_margin_alone_is_not_called_significant_after_holm() -> None:
    """4 and 12 wrong of 200 nested images: p = 0.008 in a test of two, which 105 pairs do not leave significant."""
    rows = [row("qat", tflite_accuracy=0.98, finetune_epochs=1, **INT8, **SPEED)]
    rows += [row(f"s{n}", tflite_accuracy=0.94 - n / 200) for n in range(14)]
    wrong = {"run-qat": 4} | {f"run-s{n}": 12 + n for n in range(14)}
    (task,) = tasks(comparison(rows, wrong, images=200))
    first = headline(task)
    assert (first.name, first.tied) == ("qat", ())
    assert ", more than each of the 14 others: by over 0.5 points against s0" in first.evidence
    assert "; significantly against the rest (Holm, p < 0.05); 156,296 bytes" in first.evidence
    (task,) = tasks(comparison(rows[:2], wrong, images=200))
    assert ", significantly more than the other (Holm, p < 0.05)" in headline(task).evidence


def test_a_row_that_is_better_in_the_seeds_that_both_have_is_never_said_to_be_worse() -> None:
    """The float file has the best mean over its seeds; the other one has seed 0 only, in which it is the better."""
    runs = frame([
        *(row("none", seed=n, run_id=f"none-{n}", tflite_accuracy=each) for n, each in enumerate((0.97, 0.98, 0.98))),
        row("qat", run_id="qat-0", tflite_accuracy=0.975, finetune_epochs=1, **INT8, **SPEED),
    ])  # fmt: skip
    wrong = {"none-0": 300, "none-1": 200, "none-2": 200, "qat-0": 250}
    read = lambda run_id: predictions(wrong[run_id], images=10_000)  # noqa: E731
    (task,) = tasks(Comparison(runs, group_runs(runs, seeds_to_pool(runs), read).table, read, over_seeds=True))
    first = headline(task)
    assert (first.name, first.tied) == ("qat", ("none",))
    assert "significantly" not in first.text


def test_over_seeds_the_tests_over_seeds_decide_and_the_answer_says_which_file_it_names() -> None:
    runs = frame([*seeds("none", 3), *seeds("qat", 3, finetune_epochs=1, **INT8)])
    wrong = {f"none-{n}": 120 + n for n in range(3)} | {f"qat-{n}": 119 + 2 * n for n in range(3)}
    read = lambda run_id: predictions(wrong[run_id], images=10_000)  # noqa: E731
    table = group_runs(runs, cell_of(runs), read).table
    over_seeds = Comparison(runs, table, read, over_seeds=True)
    (task,) = tasks(over_seeds)
    assert (headline(task).name, headline(task).tied) == ("qat", ("none",))
    (line,) = answer_lines(over_seeds)
    assert line.endswith("These are means over 3 runs; the file is that of the lowest seed, run qat-0.")
    (line,) = answer_lines(Comparison(runs[runs["seed"] == 0], runs[runs["seed"] == 0], read))
    assert "means over" not in line


def test_nothing_is_to_be_shipped_after_an_implausible_baseline() -> None:
    suspect = {"warnings": "at chance: always the same. Type: epochs=5"}
    rows = [row("none", tflite_accuracy=0.12, **suspect), row("ptq_int8", tflite_accuracy=0.14, **INT8, **suspect)]
    (line,) = answer_lines(comparison(rows, {"run-none": 8800, "run-ptq_int8": 8600}))
    assert line.startswith("Nothing to ship yet: the baseline is implausible (at chance). Best so far: ptq_int8: ")
    assert line.count("implausible") == 1
    assert recommended(comparison(rows, {"run-none": 8800, "run-ptq_int8": 8600})) == frozenset()
    assert summary(comparison(rows, {"run-none": 8800, "run-ptq_int8": 8600}))[1]["recommended"] == ""
    (task,) = tasks(comparison(rows, {"run-none": 8800, "run-ptq_int8": 8600}))
    assert all("its baseline is implausible (at chance)" in choice.drawbacks for choice in choices(task))


def test_files_compete_only_where_the_settings_of_the_task_judge_them_alike() -> None:
    rows = [
        row(strategy, run_id=f"{strategy}-{limit}", tflite_accuracy=0.9, **{"task.threshold": limit})
        for limit in ("0.5", "0.7")
        for strategy in ("none", "qat")
    ]
    found = tasks(comparison(rows, {run["run_id"]: 1000 for run in rows}))
    assert [task.title.rpartition(", ")[2] for task in found] == ["threshold=0.5", "threshold=0.7"]
    assert [task.rows["strategy"].tolist() for task in found] == [["none", "qat"]] * 2


@pytest.mark.parametrize("setting", [{"task.loss": "mae"}, {"task.windows": "2"}])
def test_files_compete_if_only_the_loss_differs_or_a_setting_is_newer_than_a_run(
    setting: dict[str, str],
) -> None:
    rows = [row("none"), row("qat", **setting)]
    assert len(tasks(comparison(rows, {"run-none": 1000, "run-qat": 1000}))) == 1


def test_the_float_file_is_not_blamed_for_its_size_nor_mistaken_for_no_file() -> None:
    rows = [row("none", tflite_accuracy=0.99), row("ptq_int8", tflite_accuracy=0.5, **INT8)]
    (task,) = tasks(comparison(rows, {"run-none": 100, "run-ptq_int8": 5000}))
    found = next(choice for choice in choices(task) if choice.priority == "Size first")
    assert (found.name, found.drawbacks) == ("none", ())
    assert "no other is more accurate" in found.evidence


@pytest.mark.parametrize(("control", "is_said"), [([], True), (["finetune"], False)])
def test_a_lead_without_a_control_of_equal_training_is_reported_as_open(control: list[str], is_said: bool) -> None:
    rows = [row("none", tflite_accuracy=0.95), row("qat", tflite_accuracy=0.99, finetune_epochs=3, **INT8, **SPEED)]
    rows += [row(name, tflite_accuracy=0.95, finetune_epochs=3) for name in control]
    wrong = {"run-none": 500, "run-qat": 100, "run-finetune": 500}
    (line,) = answer_lines(comparison(rows, wrong))
    assert ("It was trained for 3 more epochs than the others: strategy=finetune shows" in line) == is_said


def test_too_few_test_examples_for_a_verdict_are_reported() -> None:
    rows = [
        row("ptq_int8", tflite_accuracy=0.98, **INT8, **SPEED),
        row("qat", tflite_accuracy=0.985, finetune_epochs=1),
    ]
    (task,) = tasks(comparison(rows, {"run-ptq_int8": 4, "run-qat": 3}, images=200))
    first = headline(task)
    assert (first.name, first.tied) == ("ptq_int8", ("qat",))
    assert "200 test examples are too few to show whether it loses more than 0.5 points: about" in first.text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"speed": "slower", "speedup": 0.9, "speedup_low": 0.88, "speedup_high": 0.92},
         "slower than the float file (0.90x [0.88, 0.92])"),
        ({"runs_on_micro": "CONV_2D: Hybrid models are not supported"}, "TensorFlow Lite Micro does not run it"),
        ({"partial": "true"}, "partial: some layers stay float"),
        ({"speed": "void"}, "its timing is invalid"),
        ({"size_ratio": 1.0}, "no smaller than the float file"),
    ],
)  # fmt: skip
def test_drawbacks_of_a_file_are_listed(fault: dict[str, object], said: str) -> None:
    only = comparison([row("ptq_int4", **{**INT8, **SPEED, **fault})], {"run-ptq_int4": 40})
    (task,) = tasks(only)
    assert said in headline(task).drawbacks
    assert all(said in choice.drawbacks for choice in choices(task) if choice.run_id)


@pytest.mark.parametrize(("points", "at_least", "at_most"), [(0.0, 0, 8), (3.0, 57, 60)])
def test_equal_settings_have_no_winner_and_a_plainly_better_one_is_named(
    points: float, at_least: int, at_most: int
) -> None:
    """60 simulated sweeps of five settings and 2,000 test images; benchmarks.recommendation does many more."""
    rng = np.random.default_rng(0)
    said = [outcome(simulate_predictions(rng, equal=4, points=points, images=2000)) for _ in range(60)]
    assert at_least <= said.count("named") <= at_most
    assert said.count("wrong") <= (8 if points == 0 else 0)
