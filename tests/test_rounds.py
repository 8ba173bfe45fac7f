"""Rounds of timing: the coverage of their intervals under simulated states and drifts, and what a run records."""

import json
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure

from benchmarks.simulated_rounds import FIVE, TEN, Process, coverage, drift, noise, two_states
from experiments.comparison.baseline import with_baseline
from experiments.comparison.columns import frame
from experiments.comparison.display import REUSED_ROUNDS, note
from experiments.comparison.recommendation import Candidate, fastest
from experiments.measure.latency import SENTINEL, LatencyProtocol, Session, Timings, stopwatch_digest
from experiments.measure.rounds import JointRounds, Round, Rounds, ratio_of_runs
from experiments.plots import NoPictureError
from experiments.plots.rounds import TimeAxis, latency_rounds
from experiments.record.artifacts import ROUNDS, read_rounds
from experiments.record.description import with_speed
from experiments.runs import rounds as runs_rounds
from experiments.runs.rounds import RecordedRun, complete_rounds
from experiments.statistics.rounds import mean_of_one_round, mean_over_rounds, states
from experiments.system.machine import usable_cores
from experiments.system.stamp import stamp, this_machine
from tests.rows import IDLE, a_round, row

TRIALS = 1000
BUSY = replace(IDLE, other_cores=1.9)


@pytest.mark.parametrize(
    ("process", "seconds", "at_least"),
    [
        (noise(0.004), FIVE, 0.95),
        (noise(0.02), FIVE, 0.95),
        (noise(0.01), TEN, 0.95),
        (drift(0.015, 30), FIVE, 0.95),
        (drift(0.015, 30), TEN, 0.95),
        (drift(0.01, 120), FIVE, 0.92),
        (two_states(20, 0.04), FIVE, 0.88),
        (two_states(40, 0.03), FIVE, 0.90),
        (two_states(40, 0.06), TEN, 0.92),
    ],
)
def test_interval_holds_the_long_run_mean(process: Process, seconds: npt.NDArray[np.float64], at_least: float) -> None:
    assert coverage(process, seconds, TRIALS) >= at_least


def test_a_change_of_state_that_outlasts_the_span_is_beyond_the_interval() -> None:
    """The limit that the documentation names: such a machine has to be timed over a longer span, or again."""
    assert coverage(two_states(300, 0.06), FIVE, TRIALS) < 0.5
    four_days = np.concatenate([86_400 * day + FIVE for day in range(4)])
    assert coverage(two_states(300, 0.06), four_days, TRIALS) > 0.8


def test_rounds_later_narrow_the_interval_more_than_rounds_at_once() -> None:
    logs = np.random.default_rng(0).normal(1, 0.015, 10)
    at_once, spread = (mean_over_rounds(logs, seconds).error for seconds in (np.arange(10.0), 3600 * np.arange(10.0)))
    assert spread < 0.6 * at_once


def test_difference_of_three_percent_is_found_on_a_quiet_machine() -> None:
    rng = np.random.default_rng(0)
    found = [mean_over_rounds(0.03 + rng.normal(0, 0.004, 5), FIVE).ratio.low > 1 for _ in range(200)]
    assert np.mean(found) > 0.95


def test_p_value_agrees_with_the_interval() -> None:
    logs = np.array([0.02, 0.03, 0.01, 0.04, 0.02])
    for shift in np.linspace(-0.06, 0.06, 25):
        mean = mean_over_rounds(logs - shift, FIVE)
        assert (mean.p_value < 0.05) == (not mean.ratio.low <= 1 <= mean.ratio.high)


def test_one_round_has_a_wide_interval() -> None:
    ratio = mean_of_one_round(np.full(20, np.log(2))).ratio
    assert ratio.value == pytest.approx(2)
    assert ratio.low == pytest.approx(1.875, rel=0.01)
    assert ratio.high == pytest.approx(2.133, rel=0.01)


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [
        ([355, 354, 305, 306, 356, 305], [1, 1, 0, 0, 1, 0]),
        ([355, 354, 356, 355, 353, 355], [0] * 6),
        ([300, 310, 320, 330, 340, 350], [0] * 6),  # a drift
        ([300, 301, 300, 299, 300, 380], [0] * 6),  # one round is no state
        ([300, 355], [0, 0]),
    ],
)
def test_states_are_groups_of_the_references_own_time(microseconds: list[int], expected: list[int]) -> None:
    assert states(np.log(microseconds)).tolist() == expected


def test_rounds_are_summarized_in_the_columns_of_a_run() -> None:
    rounds = Rounds("own", "reference", tuple(a_round(n, 100 + n) for n in range(5)))
    found = rounds.metrics()
    assert (found["latency_rounds"], found["latency_span_seconds"], found["latency_states"]) == (5, 60, 1)
    assert (found["latency_p50_us"], found["latency_min_us"], found["latency_replicates"]) == (102, 100, 15)
    assert found["speedup"] == pytest.approx(300 / 102, rel=0.01)
    assert found["speedup_low"] < found["speedup"] < found["speedup_high"]
    assert rounds.tags() == {"speed": "faster", "latency_void": ""}


def test_disturbed_rounds_do_not_count_beside_three_others() -> None:
    quiet = tuple(a_round(number, 100) for number in (0, 2, 3))
    rounds = Rounds("own", "reference", (*quiet, a_round(1, 900, conditions=BUSY)))
    assert rounds.speedup.value == pytest.approx(3)
    assert rounds.metrics()["latency_rounds"] == 3


def test_on_a_busy_machine_all_rounds_count_and_the_interval_shows_their_scatter() -> None:
    scattered = tuple(a_round(number, 100 + 3 * (number % 2), conditions=BUSY) for number in range(5))
    busy = Rounds("own", "reference", scattered)
    quiet = Rounds("own", "reference", tuple(a_round(number, 100) for number in range(5)))
    assert (busy.verdict, busy.metrics()["latency_rounds"]) == ("faster", 5)
    assert busy.speedup.high / busy.speedup.low > quiet.speedup.high / quiet.speedup.low


@pytest.mark.parametrize(("number", "threads"), [(1, 1), (2, 1), (5, 2)])
def test_a_timing_is_invalid_with_few_rounds_on_a_busy_machine_or_with_several_threads(
    number: int, threads: int
) -> None:
    rounds = tuple(replace(a_round(each, 100, conditions=BUSY), threads=threads) for each in range(number))
    found = Rounds("own", "reference", rounds)
    assert found.verdict == "void"
    assert found.void.startswith("other processes used 1.9 of 2 cores")


def test_file_equal_to_its_reference_is_the_same_file() -> None:
    rounds = Rounds("same", "same", tuple(a_round(n, 300) for n in range(5)))
    assert (rounds.verdict, rounds.speedup.low, rounds.speedup.high) == ("same file", 1, 1)


def test_later_rounds_are_added_once_and_survive_a_file() -> None:
    first = Rounds("own", "reference", (a_round(0, 100), a_round(2, 100)))
    both = first.adding([a_round(2, 100), a_round(1, 100)])
    assert [each.id for each in both.rounds] == ["round-0", "round-1", "round-2"]
    assert Rounds.from_json(both.as_json()) == both


def test_two_runs_are_compared_in_the_rounds_that_they_share() -> None:
    """The machine doubles its time in every other round, which affects both runs alike."""
    factors = [1, 2, 1, 2, 1]
    one, other = (
        Rounds("own", "reference", tuple(a_round(n, own * factor, 300) for n, factor in enumerate(factors)))
        for own in (90.0, 100.0)
    )
    ratio = ratio_of_runs(one, other)
    assert ratio is not None
    assert ratio.value == pytest.approx(100 / 90)
    assert one.speedup.high / one.speedup.low > 2 > ratio.high / ratio.low
    assert ratio_of_runs(one, replace(other, rounds=other.rounds[:1])) is None


def test_speedup_by_state() -> None:
    rounds = [a_round(n, own, reference) for n, (own, reference) in enumerate([(97, 305), (104, 355)] * 3)]
    found = Rounds("own", "reference", tuple(rounds))
    assert found.metrics()["latency_states"] == 2
    assert found.by_state() == {0: pytest.approx(305 / 97), 1: pytest.approx(355 / 104)}


@pytest.mark.parametrize(("seconds", "span"), [(10.0, 60.0), (0.1, 0.6), (100.0, 60.0)])
def test_short_timings_have_a_short_span(seconds: float, span: float) -> None:
    assert LatencyProtocol(seconds=seconds).span_seconds == pytest.approx(span)
    assert LatencyProtocol(seconds=seconds, span=300).span_seconds == 300


def test_rounds_share_the_time_of_a_run() -> None:
    assert LatencyProtocol(seconds=10, rounds=5).of_round().seconds == pytest.approx(2)
    assert LatencyProtocol(seconds=10, rounds=5).of_round(files=9).seconds == pytest.approx(6)


def session(number: int, us: dict[str, float]) -> Session:
    """A session at a moment of its own, with two replicates of each file."""
    timings = {
        name: Timings(
            np.array([[0, 1000 * value], [1, 1000 * value]], np.int64), np.array([[50_000, 2_000]] * 2, np.int64)
        )
        for name, value in us.items()
    }
    conditions = replace(IDLE, cores=usable_cores())
    measured: dict[str, Any] = {"seconds": 2.0, "precision": 0.01, "stopwatch": stopwatch_digest()}
    return Session(timings, conditions, 1, 0.2, started=15.0 * number, id=f"round-{number}", **measured)


def test_the_command_reports_ratios_over_rounds() -> None:
    """A file that is 5 % slower in one round of five is not called slower, as each round alone would."""
    slow = [1.0, 1.0, 1.05, 1.0, 1.0]
    sessions = [session(n, {"a": 100, "b": 100 * factor, SENTINEL: 100}) for n, factor in enumerate(slow)]
    joint = JointRounds(tuple(sessions))
    assert sessions[2].ratio("a", "b").high < 1
    assert joint.ratio("a", "b").low < 1 < joint.ratio("b", "a").high
    assert joint.p_value("a", "b") > 0.05
    assert len(joint.timings["a"].medians) == 10
    assert joint.void == ""


def test_rounds_are_drawn_with_the_states_of_the_machine() -> None:
    moments = [a_round(n, own, reference) for n, (own, reference) in enumerate([(97, 305), (104, 355)] * 3)]
    table = frame([row("none", run_id="one"), row("qat", run_id="other")])
    found = {"one": Rounds("same", "same", tuple(moments)), "other": Rounds("own", "reference", tuple(moments))}
    figure = latency_rounds(table, found)
    above, below = figure.axes
    assert [np.size(line.get_xdata()) for line in above.lines] == [3, 3]
    assert len(below.lines) == 2  # the float file has no speedup; the other line is the mean
    assert "3.14x in the faster and 3.41x in the slower" in figure.get_supxlabel().replace("\n", " ")
    with pytest.raises(NoPictureError, match="3 rounds"):
        latency_rounds(table, {"other": replace(found["other"], rounds=tuple(moments[:2]))})


def test_a_day_between_rounds_leaves_room_for_the_rounds_of_both_days() -> None:
    minute = 15.0 * np.arange(5)
    axis = TimeAxis.of([*minute, *(86_400 + minute)])
    assert np.ptp(axis.places[:5]) == pytest.approx(1)  # minute
    assert np.ptp(axis.places[5:]) == pytest.approx(1)
    assert np.ptp(axis.places) < 2.5
    assert len(axis.pauses) == 1
    assert not len(TimeAxis.of(900 * np.arange(5.0)).pauses)  # a long span is no pause


def test_labels_of_many_pauses_do_not_overlap() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    TimeAxis.of(86_400.0 * day + second for day in range(40) for second in (0, 15, 30)).label(axes)
    assert 3 < len(axes.get_xticks()) < 8


def test_runs_in_the_plot_of_rounds_look_different() -> None:
    moments = tuple(a_round(n, 100) for n in range(3))
    names = ("ptq_int8", "finetune_ptq_int8", "qat", "annotate")
    table = frame([row(name, run_id=str(n), finetune_epochs=1) for n, name in enumerate(names)])
    found = {str(n): Rounds(f"file {n}", "reference", moments) for n in range(len(names))}
    lines = latency_rounds(table, found).axes[1].lines[: len(names)]
    looks = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in lines}
    assert len(looks) == len({float(np.min(line.get_xdata())) for line in lines}) == len(names)


@pytest.mark.parametrize(
    ("speed", "void"),
    [
        ("**97.0 µs** an inference (median), faster than the float file: 3.1x [2.9, 3.4].", ""),
        ("**97.0 µs** in the words of an earlier version.", ""),
        ("Its timing is invalid: 1.5 of 2 cores were busy.", "1.5 of 2 cores were busy"),
    ],
)
def test_description_of_a_run_follows_its_rounds(speed: str, void: str) -> None:
    moments = tuple(a_round(n, own, reference) for n, (own, reference) in enumerate([(97, 305), (104, 355)] * 3))
    rounds = Rounds("own", "reference", moments)
    first = f"Accurate.\n\n{speed}\n\nIt computes."
    text = with_speed(first, {"latency_p50_us": 97.04}, {"latency_void": void}, rounds)
    assert text.startswith("Accurate.\n\n**100 µs** an inference (median), faster than the float file: 3.28x [")
    assert text.endswith("3.14x in the faster, 3.41x in the slower.\n\nIt computes.")
    assert with_speed(text, rounds.metrics(), rounds.tags(), rounds) == text


def test_a_description_that_somebody_has_edited_is_kept() -> None:
    rounds = Rounds("own", "reference", (a_round(0, 97, 305),))
    assert with_speed("Our best model.", {"latency_p50_us": 97.0}, {}, rounds) == "Our best model."


def test_the_fastest_is_found_in_the_rounds_that_runs_share() -> None:
    """The float file changes its state, so the intervals of both speedups overlap; each round shows the difference."""
    moments = {"a": 90.0, "b": 100.0}
    rounds = {
        key: Rounds(key, "reference", tuple(a_round(n, own, (300, 330)[n % 2]) for n in range(5)))
        for key, own in moments.items()
    }
    alone = [Candidate(key, 0.9, speedup=each.speedup, file=key) for key, each in rounds.items()]
    together = [replace(each, rounds=partial(rounds.get, each.key)) for each in alone]
    assert [each.key for each in fastest(alone)[1]] == ["a", "b"]
    assert [each.key for each in fastest(together)[1]] == ["a"]


def test_a_run_is_compared_with_another_in_the_rounds_that_they_share() -> None:
    timed = {"latency_rounds": 5.0, "speed": "faster", "machine": "m"}
    table = frame([row("finetune", run_id="a", **timed), row("qat", run_id="b", **timed)])
    rounds = {
        key: Rounds(key, "reference", tuple(a_round(n, own, (300, 330)[n % 2]) for n in range(5)))
        for key, own in (("a", 100.0), ("b", 90.0))
    }
    found = with_baseline(table, "finetune", lambda _: None, rounds.get).set_index("run_id").loc["b"]
    assert found["speedup_against"] == pytest.approx(100 / 90)
    assert found["speedup_against_low"] > 1.05


def own_round(run_id: str, number: int) -> Round:
    return replace(a_round(number, 100), id=f"own round of {run_id}", machine=this_machine())


class Kept:
    """A store of two finished runs with one round each, and what is stored and logged."""

    def __init__(self) -> None:
        self.rounds = {key: Rounds(key, "reference", (own_round(key, 0),)) for key in "ab"}
        self.logged: dict[str, Rounds] = {}
        self.machines: dict[str, str] = {}  # of runs that were measured elsewhere

    def rows(self, runs: str = "") -> list[dict[str, Any]]:
        machines = {key: self.machines.get(key, stamp()["machine"]) for key in runs or self.rounds}
        return [row("qat", run_id=key, machine=machine, latency_rounds=1.0) for key, machine in machines.items()]

    def find_by_file(self, digest: str) -> list[dict[str, Any]]:
        return [each for each in self.rows() if self.rounds[each["run_id"]].own == digest]

    def add(self, run_id: str, own: str, reference: str = "reference") -> None:
        """Add a run that another sweep has just finished: with one round of its own."""
        self.rounds[run_id] = Rounds(own, reference, (own_round(run_id, 9),))

    def content(self, run_id: str, artifact: str) -> bytes | None:
        return json.dumps(self.rounds[run_id].as_json()).encode() if artifact == ROUNDS else None

    def attach(self, run_id: str, folder: Path) -> None:
        self.rounds[run_id] = read_rounds((folder / ROUNDS).read_bytes(), run_id)

    def update_timing(self, run_id: str, rounds: Rounds) -> None:
        self.logged[run_id] = rounds


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A store whose runs are timed without any process."""
    kept, moments = Kept(), count(1)

    def loaded(_: object, rows: list[dict[str, Any]], __: object) -> list[RecordedRun]:
        files = {each["run_id"]: SimpleNamespace(digest=kept.rounds[each["run_id"]].own) for each in rows}
        reference: Any = SimpleNamespace(digest="reference")
        return [
            RecordedRun(
                each,
                cast("Any", files[each["run_id"]]),
                reference,
                np.zeros(1, np.float32),
                kept.rounds[each["run_id"]],
            )
            for each in rows
        ]

    def timed(files: dict[str, Any], *_: object) -> Session:
        return session(next(moments), {**dict.fromkeys(files, 100), SENTINEL: 100})

    monkeypatch.setattr(runs_rounds, "load_runs", loaded)
    monkeypatch.setattr(runs_rounds, "time_together", timed)
    return kept


def test_runs_are_timed_together_until_they_share_enough_rounds(store: Any) -> None:
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    shared = {each.id for each in store.rounds["a"].rounds} & {each.id for each in store.rounds["b"].rounds}
    assert shared == {"round-1", "round-2", "round-3"}
    assert store.logged == store.rounds
    assert len(store.logged["a"].rounds) == 4  # with the one of its own

    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    assert len(store.rounds["a"].rounds) == 4  # nothing is missing
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=5, span=0))
    assert len(store.rounds["a"].rounds) == 6


def test_a_stop_keeps_the_rounds_and_the_same_command_continues(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: Any = vars(runs_rounds)["time_together"]

    def stopped(*arguments: Any) -> Session:
        if len(store.rounds["a"].rounds) == 3:
            raise KeyboardInterrupt
        return cast("Session", timed(*arguments))

    monkeypatch.setattr(runs_rounds, "time_together", stopped)
    with pytest.raises(KeyboardInterrupt):
        complete_rounds(store, store.rows(), LatencyProtocol(rounds=4, span=0))
    assert {len(each.rounds) for each in store.logged.values()} == {3}

    monkeypatch.setattr(runs_rounds, "time_together", timed)
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=4, span=0))
    assert {len(each.rounds) for each in store.logged.values()} == {5}


def test_metrics_that_a_kill_left_out_are_logged_by_the_next_command(store: Any) -> None:
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    store.logged.clear()
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    assert store.logged == store.rounds


def test_rounds_on_a_busy_machine_count_and_the_same_command_adds_rounds(
    store: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed: Any = vars(runs_rounds)["time_together"]
    monkeypatch.setattr(runs_rounds, "time_together", lambda *given: replace(timed(*given), conditions=BUSY))
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=4, span=0))
    assert "during 4 rounds. They count, so the intervals are wider." in capsys.readouterr().out
    assert store.logged["a"].verdict != "void"
    monkeypatch.setattr(runs_rounds, "time_together", timed)
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=4, span=0))
    assert len(store.logged["a"].rounds) == 9
    assert store.logged["a"].metrics()["latency_rounds"] == 5  # its own, and four on the machine that is quiet now


def test_runs_of_another_machine_are_not_timed_here(store: Any) -> None:
    rows = [{**each, "machine": "another"} for each in store.rows()]
    complete_rounds(store, rows, LatencyProtocol(rounds=3, span=0))
    assert not store.logged


def test_a_later_sweep_of_the_same_files_takes_their_rounds_over(
    store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    capsys.readouterr()
    store.add("c", own="a")
    store.add("d", own="b")
    complete_rounds(store, store.rows("cd"), LatencyProtocol(rounds=3, span=0))
    assert {each.id for each in store.rounds["c"].rounds} == {"own round of c", "round-1", "round-2", "round-3"}
    assert {each.source for each in store.rounds["c"].rounds} == {"", "a"}
    assert store.logged["d"].metrics()["latency_rounds_reused"] == 3
    assert capsys.readouterr().out == (
        "3 rounds of timing reused from earlier runs of the same files; resume=false measures new ones\n"
    )
    table = frame([row("qat", run_id="c", machine="m", **store.logged["c"].metrics())])
    assert REUSED_ROUNDS in note(table)
    assert "3 rounds were measured for earlier runs" in " ".join(
        latency_rounds(table, {"c": store.rounds["c"]}).get_supxlabel().split()
    )
    text = with_speed("**97.0 µs** per image (median), faster", {"latency_p50_us": 97.0}, {}, store.rounds["c"])
    assert text.endswith("Of its 4 rounds of timing, 3 were measured for earlier runs of the same files.")


def test_a_file_that_earlier_rounds_have_not_is_timed_together_with_the_others(store: Any) -> None:
    complete_rounds(store, store.rows("a"), LatencyProtocol(rounds=3, span=0))
    store.add("c", own="a")
    complete_rounds(store, store.rows("bc"), LatencyProtocol(rounds=3, span=0))
    shared = {each.id for each in store.rounds["b"].rounds} & {each.id for each in store.rounds["c"].rounds}
    assert len(shared) == 3
    assert {each.source for each in store.rounds["c"].rounds} == {"", "a"}


def test_only_what_earlier_rounds_lack_is_measured(store: Any) -> None:
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    store.add("c", own="a")
    store.add("d", own="b")
    complete_rounds(store, store.rows("cd"), LatencyProtocol(rounds=5, seconds=1, span=0))
    assert {each.id for each in store.rounds["d"].rounds if not each.source} == {"own round of d", "round-4", "round-5"}


def test_new_rounds_can_be_demanded(store: Any) -> None:
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    store.add("c", own="a")
    complete_rounds(store, store.rows("c"), LatencyProtocol(rounds=3, span=0), reuse=False)
    assert not any(each.source for each in store.rounds["c"].rounds)


SERVING = LatencyProtocol(seconds=1, rounds=3)


@pytest.mark.parametrize(
    ("changes", "protocol"),
    [
        ({"threads": 2}, SERVING),
        ({"delegate": "builtin"}, SERVING),
        ({"stopwatch": "another code"}, SERVING),
        ({"stopwatch": ""}, SERVING),  # a record of an earlier version
        ({"conditions": replace(IDLE, cores=usable_cores(), other_cores=usable_cores())}, SERVING),
        ({"conditions": replace(IDLE, cores=usable_cores() + 1)}, SERVING),
        ({}, replace(SERVING, seconds=30)),
        ({}, replace(SERVING, precision=0.001)),
    ],
)
def test_rounds_that_were_measured_otherwise_are_not_reused(changes: dict[str, Any], protocol: LatencyProtocol) -> None:
    measured: dict[str, Any] = {"seconds": 1.0, "precision": 0.01, "stopwatch": stopwatch_digest()}
    found = replace(a_round(1, 100), conditions=replace(IDLE, cores=usable_cores()), **measured)
    assert found.serves(SERVING)
    assert not replace(found, **changes).serves(protocol)


@pytest.mark.parametrize("kind", ["another machine", "another float file"])
def test_rounds_of_another_machine_or_float_file_are_not_reused(store: Any, kind: str) -> None:
    complete_rounds(store, store.rows("a"), LatencyProtocol(rounds=3, span=0))
    store.add("c", own="a")
    if kind == "another machine":
        store.machines["a"] = kind
    else:
        store.rounds["a"] = replace(store.rounds["a"], reference=kind)
    complete_rounds(store, store.rows("c"), LatencyProtocol(rounds=3, span=0))
    assert not any(each.source for each in store.rounds["c"].rounds)


OTHER = "m-1234abcd"  # a machine of the same kind


def test_rounds_of_another_machine_of_the_same_kind_are_neither_reused_nor_added_to(store: Any) -> None:
    complete_rounds(store, store.rows("a"), LatencyProtocol(rounds=3, span=0))
    elsewhere = tuple(replace(each, machine=OTHER) for each in store.rounds["a"].rounds)
    store.rounds["a"] = replace(store.rounds["a"], rounds=elsewhere)
    store.add("c", own="a")
    complete_rounds(store, store.rows("ac"), LatencyProtocol(rounds=3, span=0))
    assert store.rounds["a"].rounds == elsewhere
    assert not any(each.source for each in store.rounds["c"].rounds)
    assert len(store.rounds["c"].rounds) == 3


def test_rounds_of_an_earlier_version_name_only_the_kind_of_the_machine(store: Any) -> None:
    kind = stamp()["machine"]
    store.rounds["a"] = replace(store.rounds["a"], rounds=(replace(own_round("a", 0), machine=kind),))
    complete_rounds(store, store.rows("a"), LatencyProtocol(rounds=3, span=0))
    assert [each.machine for each in store.rounds["a"].rounds] == [kind, *[this_machine()] * 2]


def test_rounds_that_another_process_adds_meanwhile_are_kept(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps of the same settings at once: the second reuses the runs of the first, and both time them."""
    timed: Any = vars(runs_rounds)["time_together"]

    def while_another_adds(*given: Any) -> Session:
        number = len(store.rounds["a"].rounds)
        for key, rounds in store.rounds.items():
            others = replace(own_round("another process", number), id=f"of another process {number}")
            store.rounds[key] = rounds.adding([others])
        return cast("Session", timed(*given))

    monkeypatch.setattr(runs_rounds, "time_together", while_another_adds)
    complete_rounds(store, store.rows(), LatencyProtocol(rounds=3, span=0))
    for key in "ab":
        ids = {each.id for each in store.rounds[key].rounds}
        assert ids >= {"round-1", "round-2", "round-3", *(f"of another process {number}" for number in (1, 3, 5))}
    assert store.logged == store.rounds
