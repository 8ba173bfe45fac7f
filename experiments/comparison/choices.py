"""What to ship from a table: the headline of each task, and the file for each priority, with evidence and drawbacks.

The rule is that of `experiments.comparison.recommendation`; here rows become its candidates, and what it decides is
said in words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.columns import (
    TASK,
    VOID,
    cell_of,
    ends,
    further_epochs,
    key_of,
    of_one_float_file,
    same_file,
    says,
    several_machines,
    sound,
)
from experiments.comparison.compared import Comparison
from experiments.comparison.groups import ReadPredictions, grouped, seeds_to_pool
from experiments.comparison.names import names, task_titles
from experiments.comparison.recommendation import (
    MARGIN,
    MEANING,
    ORDER,
    Candidate,
    Recommendation,
    fastest,
    most_accurate,
    recommend,
    smallest,
)
from experiments.record.run_record import NOT_MEASURED, short_warning
from experiments.statistics.estimates import (
    Estimate,
    difference_over_seeds,
    difference_p,
    examples_needed,
    examples_to_tell,
    unpaired_difference,
    unpaired_p,
)
from experiments.statistics.rounding import percent, points, three_digits, times, whole

WORTH_A_CARD = 0.9  # of the download of the smallest file
LIKE_FLOAT = 1.01  # times smaller than the float file: up to there nothing is gained in size
UNDECIDED = "Undecided"  # instead of a name, where no file can be named for want of test examples
MEASURE_ANEW = "The command of the sweep with resume=false, while nothing else runs, measures anew."
MOST_NEEDED = 10_000_000  # test examples; where more are, the difference is the margin itself
MOST_NAMES = 12  # of tied settings in a sentence
MOST_ROWS = 100  # of a table below which the answer stands
MARKED = ("tflite_accuracy", "tflite_bytes", "speedup", "arena_bytes")  # columns in which the best are marked
HEADLINE = "What to ship"


@dataclass(frozen=True)
class Choice:
    """The row to ship for one priority, its evidence and drawbacks, and which others are tied with it.

    `same` are rows with the very same file, `tied` others that the evidence does not tell from the best. Of `undecided`
    it cannot be told whether they lose more than the margin. Where only the float file is left for want of test
    examples, no row is named: `run_id` is empty, and `advice` says what would do.
    """

    priority: str
    name: str
    run_id: str
    evidence: str
    same: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    advice: str = ""
    drawbacks: tuple[str, ...] = ()
    why: str = ""  # of those that are tied, this one

    @property
    def verdict(self) -> str:
        """Whether there is a winner, in a sentence; empty where nothing is tied."""
        if not self.tied or not self.run_id:
            return ""
        tied = [self.name, *self.tied]
        simplest = f"Ship the simplest of them: {self.name} ({self.why})"
        return f"No winner: these {len(tied)} are tied: {named(tied)}. {simplest}"

    @property
    def text(self) -> str:
        """The choice in sentences."""
        evidence = self.evidence if self.verdict or not self.run_id else f"Ship {self.name}: {self.evidence}"
        drawbacks = f"Drawbacks: {'; '.join(self.drawbacks)}" if self.drawbacks else ""
        same = f"The same file, byte for byte: {named(self.same)}" if self.same else ""
        undecided = f"Undecided: {named(self.undecided)}" if self.undecided else ""
        said = (self.verdict, evidence, same, drawbacks, undecided)
        return " ".join([*(f"{each}." for each in said if each), *([self.advice] if self.advice else [])])


def named(listed: Sequence[str]) -> str:
    """Names in a sentence; those that have commas in them are parted by semicolons."""
    more = len(listed) - MOST_NAMES
    comma = "; " if any("," in name for name in listed) else ", "
    return comma.join(listed[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Task:
    """The rows of one model on one set of test examples; only they compete."""

    title: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    answers: ReadPredictions
    margin: float = MARGIN  # share of the test examples that is given up for size or speed, at most
    order: Sequence[str] = ORDER  # of the criteria by which one of those that are tied is chosen

    def difference(self, one: str, other: str) -> Estimate | None:
        """Accuracy of one row less that of another, by their run ids, over the seeds and images that both have.

        Where the answers of one are lost, it is known by the intervals of both; None where there are none either.
        """
        return self._compared(one, other)[0]

    def p_value(self, one: str, other: str) -> float | None:
        """That both are equally accurate, by the same evidence as the difference; None without any."""
        return self._compared(one, other)[1]

    def _compared(self, one: str, other: str) -> tuple[Estimate | None, float | None]:
        if (one, other) not in self._known:
            found: tuple[Estimate | None, float | None] = (None, None)
            if right := self._right(one, other):
                found = difference_over_seeds(*right), difference_p(*right)
            elif both := self._intervals(one, other):
                found = unpaired_difference(*both), unpaired_p(*both)
            self._known[one, other] = found
        return self._known[one, other]

    @cached_property
    def _known(self) -> dict[tuple[str, str], tuple[Estimate | None, float | None]]:
        return {}

    def examples_needed(self, one: str, other: str) -> int | None:
        """How many test examples would tell whether a row loses more than the margin; None without any answers."""
        right = self._right(one, other)
        if right is None:
            return None
        after, before = right
        return examples_needed(float((after & ~before).mean()), float((before & ~after).mean()), self.margin)

    def examples_to_tell(self, one: str, other: str) -> int | None:
        """How many test examples would tell two rows apart; None where they err equally often, or without answers."""
        right = self._right(one, other)
        if right is None:
            return None
        after, before = right
        return examples_to_tell(float((after & ~before).mean()), float((before & ~after).mean()))

    def candidates(self, rows: pd.DataFrame) -> list[Candidate]:
        """Rows of the task as the rule looks at them."""
        timed = rows[(rows["speed"] != VOID) & rows["speedup"].notna()]
        ranked = set(timed["run_id"]) if len(timed) and of_one_float_file(timed) else set()
        further = further_epochs(rows).fillna(0).astype(float)
        # By columns: row by row it takes seconds where there are thousands.
        columns = (
            rows["run_id"],
            rows["tflite_accuracy"].astype(float),
            rows["size_ratio"].astype(float) > LIKE_FLOAT,
            further > 0,
            rows["tflite_bytes"].astype(float),
            map(Estimate, *(rows[f"speedup{end}"].astype(float) for end in ("", "_low", "_high"))),
            rows["speed"].eq("slower").fillna(value=False),
            rows["coverage_ops"].astype(float).fillna(0.0),
            rows["epochs"].fillna(0).astype(float) + further,
            rows["tflite_sha256"].astype(object).where(rows["tflite_sha256"].notna(), ""),
        )
        found = (Candidate(*facts) for facts in zip(*columns, strict=True))
        return [each if each.key in ranked else replace(each, speedup=None) for each in found]

    def row(self, run_id: str) -> pd.Series:
        """The row of a run id."""
        return self.rows.iloc[self._places[run_id]]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {run_id: place for place, run_id in enumerate(self.rows["run_id"])}

    @cached_property
    def _accuracies(self) -> dict[str, Estimate]:
        """The accuracies of the rows that have an interval, by run id."""
        intervals = (self.rows[f"tflite_accuracy{end}"].astype(float) for end in ("", "_low", "_high"))
        found = zip(self.rows["run_id"], map(Estimate, *intervals), strict=True)
        return {run_id: each for run_id, each in found if 0 <= each.low <= each.value <= each.high <= 1}

    def _intervals(self, one: str, other: str) -> tuple[Estimate, Estimate] | None:
        """The accuracies of two rows; None where one has no interval."""
        known = self._accuracies
        return (known[one], known[other]) if one in known and other in known else None

    def _right(self, one: str, other: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
        """Which images both have right: two arrays (seeds, images)."""
        runs, others = self._by_seed[one], self._by_seed[other]
        seeds = sorted(runs.keys() & others.keys())
        pairs = [(self.answers(runs[seed]), self.answers(others[seed])) for seed in seeds]
        known = [(after, before) for after, before in pairs if after is not None and before is not None]
        same = [
            (a, b) for a, b in known if np.array_equal(a.truth, known[0][0].truth) and np.array_equal(a.truth, b.truth)
        ]
        if not same:
            return None
        right, other_right = (np.stack([each[i].tflite == each[i].truth for each in same]) for i in (0, 1))
        return right, other_right

    @cached_property
    def _by_seed(self) -> dict[str, dict[int, str]]:
        """The runs that each row stands for: their ids by seed, by the row's run id."""
        groups = self.rows["runs"].gt(1).fillna(value=False) if "runs" in self.rows else self.rows["run_id"].isna()
        alone = self.rows[~groups & self.rows["seed"].notna()]
        found = {run_id: {int(seed): run_id} for run_id, seed in zip(alone["run_id"], alone["seed"], strict=True)}
        cells = cell_of(self.runs)
        for _, row in self.rows[groups].iterrows():
            found[row["run_id"]] = self._seeds.get(key_of(row[cells]), {})
        return {run_id: found.get(run_id, {}) for run_id in self.rows["run_id"]}

    @cached_property
    def _seeds(self) -> dict[tuple[Any, ...], dict[int, str]]:
        """The newest finished run of each seed, by the setting."""
        runs = self.runs[(self.runs["status"] == "FINISHED") & self.runs["seed"].notna()]
        return {
            key_of(key): dict(zip(map(int, group["seed"]), group["run_id"], strict=True))
            for key, group in runs.groupby(cell_of(runs), dropna=False)
        }

    def named(self, row: pd.Series) -> str:
        """A row by its strategy, and by the settings in which rows of this task differ."""
        return self.called(row["run_id"])

    def called(self, run_id: str) -> str:
        """What the row of a run id is named."""
        return self._names[run_id]

    @cached_property
    def _names(self) -> dict[str, str]:
        return dict(zip(self.rows["run_id"], names(self.rows), strict=True))


def tasks(comparison: Comparison) -> list[Task]:
    """One for each model and test set, with the rows that may be shipped: finished, and verified.

    Rows are runs, or what they are over seeds: of groups that differ in more, none can be shipped.
    """
    if comparison.over_seeds or not comparison.pooled:
        return _tasks(comparison.table, comparison)
    runs = comparison.runs
    groups = seeds_to_pool(runs)
    return _tasks(grouped(runs, groups, comparison.answers).table if groups else runs, comparison)


def _tasks(table: pd.DataFrame, comparison: Comparison) -> list[Task]:
    good = table[sound(table) & table["tflite_accuracy"].notna() & table["tflite_bytes"].notna()]
    titles = task_titles(good)
    return [
        Task(titles[rows.index[0]], rows, comparison.runs, comparison.answers, comparison.margin, comparison.order)
        for _, rows in good.groupby(TASK, sort=False)
    ]


def recommended(comparison: Comparison) -> frozenset[str]:
    """The run to ship of each task, by id."""
    return frozenset(headline(task).run_id for task in tasks(comparison))


def answer_lines(comparison: Comparison) -> list[str]:
    """What to ship, a line for each task; of too many rows it takes long to say, and the report says it."""
    if len(comparison.table) > MOST_ROWS:
        return []
    found = tasks(comparison)
    titles = [f"{task.title}: " if len(found) > 1 else "" for task in found]
    return [f"{title}{headline(task).text}" for title, task in zip(titles, found, strict=True)]


def best_of(comparison: Comparison) -> dict[str, set[str]]:
    """Which rows of the table are best in a column, or tied with the best of their task: run ids by column.

    Of accuracies and speedups those that no test tells from the best; of bytes those that have the fewest.
    """
    best: dict[str, set[str]] = {name: set() for name in MARKED}
    for task in _tasks(comparison.table, comparison):
        timed = task.rows[(task.rows["speed"] != VOID) & task.rows["speedup"].notna()]
        able = task.rows[task.rows["arena_bytes"].notna()]
        found = {
            "tflite_accuracy": most_accurate(task.candidates(task.rows), task, task.margin)[1],
            "tflite_bytes": smallest(task.candidates(task.rows), lambda each: each.bytes)[1],
            "speedup": fastest(task.candidates(timed))[1] if len(timed) and of_one_float_file(timed) else [],
            "arena_bytes": smallest(task.candidates(able), partial(_value_of, task, "arena_bytes"))[1]
            if len(able)
            else [],
        }
        for column, candidates in found.items():
            best[column].update(each.key for each in candidates)
    return best


def _value_of(task: Task, column: str, candidate: Candidate) -> float:
    return float(task.row(candidate.key)[column])


def headline(task: Task) -> Choice:
    """What to ship where nothing else is asked for: the most accurate, or the simplest of those tied with it."""
    chosen = _most_accurate(task)
    row = task.row(chosen.run_id)
    same = {chosen.name, *chosen.same}
    others = [run_id for run_id in task.rows["run_id"] if task.called(run_id) not in same]
    known = sum(task.p_value(each, chosen.run_id) is not None for each in others)
    than = f"each of the {known} others" if known > 1 else "the other"
    won = "" if chosen.tied or not known else f", shown to be more than {than} (Holm, p < 0.05)"
    size = _size(row)
    timed = row["speed"] != VOID and pd.notna(row["speedup"])
    speed = f", {times(*ends(row, 'speedup'))} as fast" if timed else ""
    return replace(chosen, priority=HEADLINE, evidence=f"{chosen.evidence}{won}; {size}{speed}")


def choices(task: Task) -> list[Choice]:
    """What to ship if accuracy, size, speed, or a microcontroller's memory comes first."""
    best = task.row(_best(task).key)
    standing = pd.Series([_standing(task, row, best) for _, row in task.rows.iterrows()], index=task.rows.index)
    near, unsure = task.rows[standing == "near"], task.rows[standing == "unsure"]
    found = [
        _most_accurate(task),
        _smallest(task, near, unsure, best),
        _smallest_download(task, near, unsure, best),
        _fastest(task, near, unsure, best),
        _on_micro(task, near, unsure, best),
    ]
    return [choice for choice in found if choice]


def _best(task: Task) -> Candidate:
    return max(task.candidates(task.rows), key=lambda each: each.accuracy)


def _standing(task: Task, row: pd.Series, best: pd.Series) -> Literal["near", "unsure", "far"]:
    """Whether a row gives up at most the margin at the bad end of the interval, at its good end only, or more.

    One without any evidence cannot be compared, so nobody can be sure of it.
    """
    if row["run_id"] == best["run_id"] or same_file(row, best):
        return "near"
    difference = task.difference(row["run_id"], best["run_id"])
    if difference is None:
        return "unsure"
    if difference.high < -task.margin:
        return "far"
    return "near" if difference.low >= -task.margin else "unsure"


def _most_accurate(task: Task) -> Choice:
    found = recommend(*most_accurate(task.candidates(task.rows), task, task.margin), task.order)
    row, best = task.row(found.chosen.key), task.row(found.best.key)
    evidence = f"{percent(*ends(row, 'tflite_accuracy'))} % of the test images right"
    if found.chosen is not found.best and not found.chosen.same_file(found.best):
        evidence += f", {_cost(task, row, best)}, {task.named(best)}"
    choice = _choice(task, "Accuracy first", found, evidence)
    difference = task.difference(row["run_id"], best["run_id"])
    if choice.tied and row["run_id"] != best["run_id"] and difference and difference.high < 0:
        alone = f"less accurate than {task.named(best)} if these two alone are compared"
        choice = replace(choice, drawbacks=(*choice.drawbacks, f"{alone}, which among so many is no evidence (Holm)"))
    unsure = [_advice(task, [row], best)] if _standing(task, row, best) == "unsure" else []
    return replace(choice, advice=" ".join([*unsure, *_telling(task, row, best)]))


def _telling(task: Task, row: pd.Series, best: pd.Series) -> list[str]:
    """What would change the answer: how many test examples would tell a row from the most accurate, in a sentence."""
    needed = task.examples_to_tell(row["run_id"], best["run_id"])
    if needed is None or needed > MOST_NEEDED:
        return []
    return [
        f"What would change this: about {two_digits(needed)} test examples, or more seeds, would tell it from "
        f"{task.named(best)}, if answers go on to differ as often."
    ]


def _smallest(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice:
    found = recommend(*smallest(task.candidates(near), lambda each: each.bytes), task.order)
    row = task.row(found.chosen.key)
    size = row["tflite_bytes"]
    evidence = f"{_size(row)}; {_cost(task, row, best)}"
    rivals = unsure[unsure["tflite_bytes"] <= size]
    choice = _choice(task, "Size first", found, evidence, rivals)
    return _if_more_than_float(task, choice, rivals, best, "smaller", _is_smaller)


def _smallest_download(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    """Only where it is not nearly that of the smallest file already, as it is unless something is compressed."""
    known = near[near["tflite_gzip_bytes"].notna()]
    if known.empty:
        return None
    found = recommend(*smallest(task.candidates(known), partial(_value_of, task, "tflite_gzip_bytes")), task.order)
    size = _value_of(task, "tflite_gzip_bytes", found.chosen)
    if size >= WORTH_A_CARD * known.sort_values("tflite_bytes", kind="stable").iloc[0]["tflite_gzip_bytes"]:
        return None
    row = task.row(found.chosen.key)
    evidence = f"{whole(size)} bytes after gzip, of {whole(row['tflite_bytes'])}; {_cost(task, row, best)}"
    rivals = unsure[unsure["tflite_gzip_bytes"] <= size]
    choice = _choice(task, "Download first", found, evidence, rivals)
    return _if_more_than_float(task, choice, rivals, best, "smaller", lambda _: True)


def _fastest(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    """By the ratio to the float file; where rows have float files that differ, by time, and none is called tied."""
    valid, perhaps = (rows[(rows["speed"] != VOID) & rows["speedup"].notna()] for rows in (near, unsure))
    if valid.empty or several_machines(valid):
        return None
    candidates = task.candidates(valid)
    if of_one_float_file(valid):
        first, tied = fastest(candidates)
    else:
        first, tied = smallest(candidates, partial(_value_of, task, "latency_p50_us"))
    found = recommend(first, tied, task.order)
    row = task.row(found.chosen.key)
    latency = three_digits(row["latency_p50_us"])
    evidence = (
        f"{times(*ends(row, 'speedup'))} as fast as float, {latency} µs an inference here; {_cost(task, row, best)}"
    )
    both = pd.concat([valid, perhaps])
    comparable = not several_machines(both) and of_one_float_file(both)
    leader = task.row(first.key)
    rivals = perhaps[[comparable and _is_as_fast(task, each, leader) for _, each in perhaps.iterrows()]]
    choice = _choice(task, "Speed first", found, evidence, rivals)
    choice = _if_more_than_float(task, choice, rivals, best, "faster", _is_faster)
    void = pd.concat([near, unsure]).loc[lambda rows: rows["speed"] == VOID]
    untimed = tuple(task.named(each) for _, each in void.iterrows() if _is_smaller(each) or each["speedup"] > 1)
    if not untimed or choice.run_id != row["run_id"] or _is_faster(row):
        return choice
    evidence = "No file with a timing that counts is faster than float, and the timings of others are invalid"
    undecided = tuple(dict.fromkeys((*choice.undecided, *untimed)))
    return Choice("Speed first", UNDECIDED, "", evidence, undecided=undecided, advice=MEASURE_ANEW)


def _is_as_fast(task: Task, row: pd.Series, best: pd.Series) -> bool:
    pair = task.candidates(task.rows[task.rows["run_id"].isin([row["run_id"], best["run_id"]])])
    return row["run_id"] in [each.key for each in fastest(pair)[1]]


def _on_micro(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    able, perhaps = (rows[(rows["runs_on_micro"] == "yes") & rows["arena_bytes"].notna()] for rows in (near, unsure))
    if able.empty:
        return None
    found = recommend(*smallest(task.candidates(able), lambda each: _needs(task.row(each.key))), task.order)
    row = task.row(found.chosen.key)
    arena, size = whole(row["arena_bytes"]), whole(row["tflite_bytes"])
    evidence = f"{arena} bytes of arena beside the file's {size}; {_cost(task, row, best)}"
    rivals = perhaps[[_needs(each) <= _needs(row) for _, each in perhaps.iterrows()]]
    choice = _choice(task, "For a microcontroller", found, evidence, rivals)
    return _if_more_than_float(task, choice, rivals, best, "smaller", _is_smaller)


def _needs(row: pd.Series) -> float:
    """Bytes on a microcontroller: the file and its arena."""
    return float(row["arena_bytes"] + row["tflite_bytes"])


def _choice(
    task: Task, priority: str, found: Recommendation, evidence: str, undecided: pd.DataFrame | None = None
) -> Choice:
    """A recommendation in words; `undecided` are rows as good, if they lose no more than the margin."""
    row = task.row(found.chosen.key)
    tied = [each.key for each in found.tied if each is not found.chosen and not each.same_file(found.chosen)]
    rivals = [] if undecided is None else [each for _, each in undecided.iterrows()]
    return Choice(
        priority,
        task.named(row),
        row["run_id"],
        evidence,
        _same(task, row),
        tuple(map(task.called, tied)),
        tuple(task.named(each) for each in rivals if not same_file(each, row)),
        drawbacks=drawbacks(row),
        why=why(found),
    )


def why(found: Recommendation) -> str:
    """By which criteria one of several that are tied was chosen."""
    return "; ".join(dict.fromkeys(MEANING[each] for each in found.decided_by)) or "the first of them"


def drawbacks(row: pd.Series) -> tuple[str, ...]:
    """What speaks against shipping a file, whatever it is best in."""
    refusal = row["runs_on_micro"]
    refused = isinstance(refusal, str) and refusal not in ("yes", NOT_MEASURED, "differs")
    found = {
        f"slower than the float file ({times(*ends(row, 'speedup'))})": row["speed"] == "slower",
        "its timing is invalid": row["speed"] == VOID,
        "no smaller than the float file": pd.notna(row["size_ratio"]) and not _is_smaller(row),
        "TensorFlow Lite Micro refuses it": refused,
        "partial: layers stay float that its strategy would quantize": says(row["partial"], "true"),
    }
    warnings = row["warnings"].splitlines() if isinstance(row["warnings"], str) else []
    suspect = [f"its baseline is suspect ({short_warning(line)})" for line in warnings]
    return (*(text for text, holds in found.items() if holds), *dict.fromkeys(suspect))


def _if_more_than_float(
    task: Task, choice: Choice, rivals: pd.DataFrame, best: pd.Series, gain: str, gains: Callable[[pd.Series], bool]
) -> Choice:
    """The choice, unless it gains nothing over float, and rows that do are undecided: then none, and what would do."""
    rows = [row for _, row in rivals.iterrows() if task.named(row) in choice.undecided]
    if not rows:
        return choice
    advice = _advice(task, rows, best)
    if gains(task.row(choice.run_id)) or not any(map(gains, rows)):
        return replace(choice, advice=advice)
    evidence = (
        f"No file that is {gain} than float is shown to lose at most {100 * task.margin:g} points, for want of test "
        "examples, which is no reason to ship the float file"
    )
    undecided = tuple(task.named(row) for row in rows if gains(row))
    return Choice(choice.priority, UNDECIDED, "", evidence, undecided=undecided, advice=advice)


def _size(row: pd.Series) -> str:
    """The bytes of a file, and of how many times as many the float file is."""
    ratio = f"{times(row['size_ratio'])} smaller than float" if _is_smaller(row) else "as many as float"
    return f"{whole(row['tflite_bytes'])} bytes, {ratio}"


def _is_smaller(row: pd.Series) -> bool:
    return bool(pd.notna(row["size_ratio"]) and row["size_ratio"] > LIKE_FLOAT)


def _is_faster(row: pd.Series) -> bool:
    return bool(row["speed"] == "faster")


def _advice(task: Task, unsure: Sequence[pd.Series], best: pd.Series) -> str:
    """How many test examples would tell the undecided rows from the margin."""
    needed = [each for row in unsure if (each := task.examples_needed(row["run_id"], best["run_id"])) is not None]
    said = task.answers(best["run_id"])
    if not needed or said is None:
        return "Their answers are lost: run them again to compare them."
    points_lost = f"{100 * task.margin:g} points"
    there = f"Whether it loses more than {points_lost} cannot be told from {len(said.truth):,} test examples"
    within = [each for each in needed if each <= MOST_NEEDED]
    if not within:
        return f"{there}, nor from many more, for it seems to lose just that: give compare --margin POINTS."
    least, most = (two_digits(each) for each in (min(within), max(within)))
    needed_in_all = f"about {least}" if least == most else f"about {least} for one of them, {most} for each"
    return f"{there}: it takes {needed_in_all}, if answers go on to differ as often, or more seeds."


def two_digits(count: int) -> str:
    """A count that is not known exactly, in two digits rounded up: 3,400."""
    step = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // step) * step:,}"


def _same(task: Task, chosen: pd.Series) -> tuple[str, ...]:
    """Other rows with the very file of the chosen one."""
    if pd.isna(chosen["tflite_sha256"]):
        return ()
    copies = task.rows.loc[task.rows["tflite_sha256"].eq(chosen["tflite_sha256"]).fillna(value=False), "run_id"]
    return tuple(task.called(run_id) for run_id in copies if run_id != chosen["run_id"])


def _cost(task: Task, row: pd.Series, best: pd.Series) -> str:
    """What a row gives up in accuracy."""
    if row["run_id"] == best["run_id"] or same_file(row, best):
        return "no other is more accurate"
    difference = task.difference(row["run_id"], best["run_id"])
    if difference is None:
        return "not compared with the most accurate, for its answers are lost"
    return f"{points(difference)} points against the most accurate"
