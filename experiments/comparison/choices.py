"""Which file to ship: for each task, and for each priority, with evidence and drawbacks.

`experiments.comparison.recommendation` has the rule; this module converts its decisions to text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Literal

import pandas as pd

from experiments.comparison.columns import (
    VOID,
    ends,
    has_verdict,
    is_group,
    of_one_float_file,
    same_file,
    several_machines,
)
from experiments.comparison.compared import Comparison
from experiments.comparison.recommendation import (
    MEANING,
    Candidate,
    Recommendation,
    fastest,
    most_accurate,
    recommend,
    smallest,
)
from experiments.comparison.tasks import LIKE_FLOAT, Task, tasks, tasks_of
from experiments.record.metric import RecordedMetric
from experiments.record.run_record import NOT_MEASURED, short_warning
from experiments.statistics.estimates import Estimate, pairs_among
from experiments.statistics.power import Needed
from experiments.statistics.rounding import three_digits, times, whole

WORTH_A_CARD = 0.9  # of the download of the smallest file
UNDECIDED = "Undecided"  # instead of a name, if there are too few test examples to name a file
MEASURE_ANEW = "To add rounds of timing, type the command of the sweep again while nothing else runs."
MOST_NEEDED = 10_000_000  # test examples; if more are needed, the loss is about equal to the margin
MOST_NAMES = 12  # of tied settings in a sentence
MOST_ROWS = 100  # of a table with an answer below it
MARKED = ("tflite_score", "tflite_bytes", "speedup", "arena_bytes")  # columns whose best values are marked
HEADLINE = "What to ship"
CONTROLS = ("finetune", "finetune_ptq_int8")  # float training for as many epochs as the other strategies


@dataclass(frozen=True)
class Choice:
    """The row to ship for one priority, its evidence and drawbacks, and the rows tied with it.

    `same` are rows with an identical file, `tied` those that do not differ significantly from the best, and `undecided`
    those for which the test set is too small to show whether they lose more than the margin. If for this reason only
    the float file remains, no row is named: `run_id` is empty, and `advice` says what to do.
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
    why: str = ""  # why this one among the tied rows
    caution: str = ""  # why nothing should be shipped yet

    @property
    def may_be_shipped(self) -> bool:
        """Whether it names a row that may be shipped."""
        return bool(self.run_id) and not self.caution

    @property
    def verdict(self) -> str:
        """A sentence on the tied rows; empty if there are none."""
        if not self.tied or not self.run_id:
            return ""
        tied = [self.name, *self.tied]
        simplest = (
            f"{'The simplest of them is' if self.caution else 'Ship the simplest of them:'} {self.name} ({self.why})"
        )
        return f"No winner: these {len(tied)} are tied: {join_names(tied)}. {simplest}"

    @property
    def text(self) -> str:
        """The choice as text."""
        chosen = f"Best so far: {self.name}" if self.caution else f"Ship {self.name}"
        evidence = self.evidence if self.verdict or not self.run_id else f"{chosen}: {self.evidence}"
        drawbacks = f"Drawbacks: {'; '.join(self.drawbacks)}" if self.drawbacks else ""
        same = f"The same file, byte for byte: {join_names(self.same)}" if self.same else ""
        undecided = f"Undecided: {join_names(self.undecided)}" if self.undecided else ""
        sentences = (self.caution, self.verdict, evidence, same, drawbacks, undecided)
        return " ".join([*(f"{each}." for each in sentences if each), *([self.advice] if self.advice else [])])


def join_names(listed: Sequence[str]) -> str:
    """Return names as a list in a sentence, separated by semicolons if a name has a comma."""
    more = len(listed) - MOST_NAMES
    comma = "; " if any("," in name for name in listed) else ", "
    return comma.join(listed[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def recommended(comparison: Comparison) -> frozenset[str]:
    """Return the ids of the runs to ship, one per task; none of a task whose baseline is implausible."""
    return frozenset(choice.run_id for choice in map(headline, tasks(comparison)) if choice.may_be_shipped)


def answer_lines(comparison: Comparison) -> list[str]:
    """Return a line per task on what to ship; none for large tables, for which only the report says it."""
    if len(comparison.table) > MOST_ROWS:
        return []
    found = tasks(comparison)
    if not found:
        return ["Nothing to ship: no run is finished and verified."]
    titles = [f"{task.title}: " if len(found) > 1 else "" for task in found]
    return [f"{title}{headline(task).text}" for title, task in zip(titles, found, strict=True)]


def best_of(comparison: Comparison) -> dict[str, set[str]]:
    """Return the run ids of the rows that are best in a column, or tied with the best of their task, by column.

    Accuracies and speedups are tied if they do not differ significantly; bytes only if they are equal.
    """
    best: dict[str, set[str]] = {name: set() for name in MARKED}
    for task in tasks_of(comparison.table, comparison):
        timed = task.rows[(task.rows["speed"] != VOID) & task.rows["speedup"].notna()]
        able = task.rows[task.rows["arena_bytes"].notna()]
        found = {
            "tflite_score": most_accurate(task.candidates(task.rows), task, task.margin)[1],
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
    """Return the default choice: the most accurate row, or the simplest of those tied with it."""
    chosen = _most_accurate(task)
    row = task.row(chosen.run_id)
    same = {chosen.name, *chosen.same}
    others = [run_id for run_id in task.rows["run_id"] if task.name_of(run_id) not in same]
    known = sum(task.p_value(each, chosen.run_id) is not None for each in others)
    won = "" if chosen.tied or not known else _won(task, row, known)
    if lost := len(others) - known:
        unknown = (
            f"not compared with {lost} {'others' if lost > 1 else 'other'}, whose {task.metric.evidence} are missing"
        )
        chosen = replace(chosen, drawbacks=(*chosen.drawbacks, unknown))
    size = _size(row)
    timed = row["speed"] != VOID and pd.notna(row["speedup"])
    speed = f", {times(*ends(row, 'speedup'))} as fast" if timed else ""
    found = replace(
        chosen,
        priority=HEADLINE,
        evidence=f"{chosen.evidence}{won}; {size}{speed}",
        caution=_caution(row),  # in place of the drawback
        drawbacks=tuple(each for each in chosen.drawbacks if each not in suspect(row)),
    )
    advice = [*filter(None, [found.advice]), *_without_control(task, row, won), *_of_seeds(row)]
    return replace(found, advice=" ".join(advice))


def _won(task: Task, row: pd.Series, known: int) -> str:
    """Describe, in a part of a sentence, that a row is better than all others with which it is compared."""
    others = f"each of the {known} others" if known > 1 else "the other"
    more = "more" if task.metric.is_accuracy else "better"
    by_test = most_accurate(task.candidates(task.rows), task, inf)[1]  # tied in the test, whatever the margin
    beyond = [each.key for each in by_test if each.key != row["run_id"] and not same_file(task.row(each.key), row)]
    if not beyond:
        return f", significantly {more} than {others} (Holm, p < 0.05)"
    margin = task.metric.margin_text(task.margin)
    named = join_names([task.name_of(each) for each in beyond])
    rest = "; significantly against the rest (Holm, p < 0.05)" if known > len(beyond) else ""
    return f", {more} than {others}: by over {margin} against {named} (95 % interval of each pair){rest}"


def _of_seeds(row: pd.Series) -> list[str]:
    """Return a sentence on the file of a row over seeds; none for a single run."""
    if not is_group(row):
        return []
    return [
        f"These are means over {row['runs']} runs; the file is that of the lowest seed, run {str(row['run_id'])[:8]}."
    ]


def _caution(row: pd.Series) -> str:
    """Return why a file should not be shipped yet: its baseline is implausible; empty if it is plausible."""
    found = "; ".join(dict.fromkeys(map(short_warning, _warnings(row))))
    return f"Nothing to ship yet: the baseline is implausible ({found})" if found else ""


def _without_control(task: Task, row: pd.Series, won: str) -> list[str]:
    """Return a sentence on a lead that longer training alone may explain; none if a control is present."""
    longest = row["epochs"] + row["finetune_epochs"]
    if not (won and row["finetune_epochs"] > 0) or task.rows["strategy"].isin(CONTROLS).any():
        return []
    if (task.rows["epochs"] + task.rows["finetune_epochs"] >= longest).sum() > 1:
        return []
    more = f"{row['finetune_epochs']:g} more epoch{'' if row['finetune_epochs'] == 1 else 's'}"
    return [f"It was trained for {more} than the others: strategy=finetune shows how much of the lead is due to that."]


def choices(task: Task) -> list[Choice]:
    """Return the choices for the priorities accuracy, size, speed, and memory of a microcontroller."""
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
    """Whether a row loses at most the margin at the worse end of its interval, only at the better end, or more.

    A row that cannot be compared is unsure.
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
    evidence = task.metric.sentence(*ends(row, "tflite_score"))
    if found.chosen is not found.best and not found.chosen.same_file(found.best):
        evidence += f", {_cost(task, row, best)}, {task.name_of_row(best)}"
    choice = _choice(task, f"{task.metric.title[0].upper()}{task.metric.title[1:]} first", found, evidence)
    difference = task.difference(row["run_id"], best["run_id"])
    if choice.tied and row["run_id"] != best["run_id"] and difference and difference.high < 0:
        less = "less accurate" if task.metric.is_accuracy else "worse"
        alone = f"{less} than {task.name_of_row(best)} in a test of only these two"
        choice = replace(
            choice, drawbacks=(*choice.drawbacks, f"{alone}, but not after Holm's correction for all pairs")
        )
    unsure = [_advice(task, [row], best)] if _standing(task, row, best) == "unsure" else []
    return replace(choice, advice=" ".join([*unsure, *_describe_separation(task, row, best)]))


def _describe_separation(task: Task, row: pd.Series, best: pd.Series) -> list[str]:
    """Return a sentence on what would separate a row from the most accurate one, or none."""
    found = task.needed_to_separate(row["run_id"], best["run_id"])
    if found is None or found.examples is None:
        return []
    seeds = f", or {found.seeds or 'more'} seeds,"
    return [
        f"What would change this: about {two_digits(found.examples)} test examples{seeds} would separate it from "
        f"{task.name_of_row(best)}, if {_as_before(task)}."
    ]


@dataclass(frozen=True)
class Separation:
    """What would separate a row from the most accurate row of its task, with which it is tied."""

    name: str
    difference: Estimate | None
    needed: Needed | None  # None if predictions are missing
    same_file: bool


@dataclass(frozen=True)
class Tie:
    """The most accurate row of a task, and what would separate each row that is tied with it."""

    best: str
    metric: RecordedMetric
    examples: int | None  # of the test set, where predictions are known
    seeds: int
    pairs: int  # that Holm's correction counts
    separations: tuple[Separation, ...]
    uncompared: tuple[str, ...] = ()  # other rows, whose predictions are missing

    @property
    def is_known(self) -> bool:
        """Whether anything is known about the tie; false if the predictions of all tied rows are missing."""
        return not self.separations or any(each.needed for each in self.separations)


def explain_tie(task: Task) -> Tie:
    """Return what would change the answer for a task."""
    first, tied = most_accurate(task.candidates(task.rows), task, task.margin)
    best = task.row(first.key)
    found = (
        Separation(
            task.name_of(each.key),
            task.difference(each.key, first.key),
            task.needed_to_separate(each.key, first.key),
            same_file(task.row(each.key), best),
        )
        for each in tied
        if each.key != first.key
    )
    known = task.read_evidence(str(best["run_id"]))
    others = task.rows[(task.rows["run_id"] != first.key) & ~task.rows["run_id"].isin([each.key for each in tied])]
    return Tie(
        task.name_of_row(best),
        task.metric,
        known.examples if known is not None else None,
        task.seeds_of(first.key),
        pairs_among(len(task.rows)),
        tuple(sorted(found, key=lambda each: each.needed.examples or inf if each.needed else inf)),
        tuple(task.name_of(each) for each in others["run_id"] if task.p_value(each, first.key) is None),
    )


def _smallest(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice:
    found = recommend(*smallest(task.candidates(near), lambda each: each.bytes), task.order)
    row = task.row(found.chosen.key)
    size = row["tflite_bytes"]
    evidence = f"{_size(row)}; {_cost(task, row, best)}"
    rivals = unsure[unsure["tflite_bytes"] <= size]
    choice = _choice(task, "Size first", found, evidence, rivals)
    return _if_more_than_float(task, choice, rivals, best, "smaller", _is_smaller)


def _smallest_download(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    """Return a choice only if its download is clearly smaller than that of the smallest file: if it is compressed."""
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
    """Rank by speedup or, if the float files differ, by latency, without ties."""
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
    untimed = tuple(task.name_of_row(each) for _, each in void.iterrows() if _is_smaller(each) or each["speedup"] > 1)
    if not untimed or choice.run_id != row["run_id"] or _is_faster(row):
        return choice
    evidence = "No file with a valid timing is faster than float, and the timings of others are invalid"
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
    evidence = f"{arena} bytes of arena in addition to the file's {size}; {_cost(task, row, best)}"
    rivals = perhaps[[_needs(each) <= _needs(row) for _, each in perhaps.iterrows()]]
    choice = _choice(task, "For a microcontroller", found, evidence, rivals)
    return _if_more_than_float(task, choice, rivals, best, "smaller", _is_smaller)


def _needs(row: pd.Series) -> float:
    """Return the bytes on a microcontroller: the file and its arena."""
    return float(row["arena_bytes"] + row["tflite_bytes"])


def _choice(
    task: Task, priority: str, found: Recommendation, evidence: str, undecided: pd.DataFrame | None = None
) -> Choice:
    """Convert a recommendation to text; `undecided` are rows that are as good if they lose no more than the margin."""
    row = task.row(found.chosen.key)
    tied = [each.key for each in found.tied if each is not found.chosen and not each.same_file(found.chosen)]
    rivals = [] if undecided is None else [each for _, each in undecided.iterrows()]
    return Choice(
        priority,
        task.name_of_row(row),
        row["run_id"],
        evidence,
        _same(task, row),
        tuple(map(task.name_of, tied)),
        tuple(task.name_of_row(each) for each in rivals if not same_file(each, row)),
        drawbacks=drawbacks(row),
        why=deciding_criteria(found),
    )


def deciding_criteria(found: Recommendation) -> str:
    """Return the criteria that chose among the tied rows."""
    return "; ".join(dict.fromkeys(MEANING[each] for each in found.decided_by)) or "the first of them"


def drawbacks(row: pd.Series) -> tuple[str, ...]:
    """Return the drawbacks of a file."""
    refusal = row["runs_on_micro"]
    refused = isinstance(refusal, str) and refusal not in ("yes", NOT_MEASURED, "differs")
    found = {
        f"slower than the float file ({times(*ends(row, 'speedup'))})": row["speed"] == "slower",
        "its timing is invalid": row["speed"] == VOID,
        "no smaller than the float file": pd.notna(row["size_ratio"])
        and not _is_smaller(row)
        and row["strategy"] != "none",  # which is the float file itself
        "TensorFlow Lite Micro does not run it": refused,
        "partial: some layers stay float": has_verdict(row["partial"], "true"),
    }
    return (*(text for text, holds in found.items() if holds), *suspect(row))


def suspect(row: pd.Series) -> list[str]:
    """Return why the baseline of a row is implausible; empty if it is plausible."""
    return [f"its baseline is implausible ({each})" for each in dict.fromkeys(map(short_warning, _warnings(row)))]


def _warnings(row: pd.Series) -> list[str]:
    return row["warnings"].splitlines() if isinstance(row["warnings"], str) else []


def _if_more_than_float(
    task: Task, choice: Choice, rivals: pd.DataFrame, best: pd.Series, gain: str, gains: Callable[[pd.Series], bool]
) -> Choice:
    """Return the choice, or no row with advice if it is no better than float and better rows are undecided."""
    rows = [row for _, row in rivals.iterrows() if task.name_of_row(row) in choice.undecided]
    if not rows:
        return choice
    advice = _advice(task, rows, best)
    if gains(task.row(choice.run_id)) or not any(map(gains, rows)):
        return replace(choice, advice=advice)
    known = any(task.difference(row["run_id"], best["run_id"]) for row in rows)
    why = "The test set is too small" if known else "Predictions are missing that are needed"
    evidence = (
        f"{why} to show that a file {gain} than float loses at most {task.metric.margin_text(task.margin)}; that is no "
        "reason to ship the float file"
    )
    undecided = tuple(task.name_of_row(row) for row in rows if gains(row))
    return Choice(choice.priority, UNDECIDED, "", evidence, undecided=undecided, advice=advice)


def _size(row: pd.Series) -> str:
    """Return the bytes of a file, and its size ratio to the float file."""
    ratio = f"{times(row['size_ratio'])} smaller than float" if _is_smaller(row) else "not smaller than float"
    return f"{whole(row['tflite_bytes'])} bytes, {ratio}"


def _is_smaller(row: pd.Series) -> bool:
    return bool(pd.notna(row["size_ratio"]) and row["size_ratio"] > LIKE_FLOAT)


def _is_faster(row: pd.Series) -> bool:
    return bool(row["speed"] == "faster")


def _advice(task: Task, unsure: Sequence[pd.Series], best: pd.Series) -> str:
    """Return how many test examples would decide the undecided rows."""
    needed = [each for row in unsure if (each := task.examples_needed(row["run_id"], best["run_id"])) is not None]
    predictions = task.read_evidence(best["run_id"])
    if not needed or predictions is None:
        return f"Their {task.metric.evidence} are missing. Repeat the runs to compare them."
    points_lost = task.metric.margin_text(task.margin)
    there = f"{predictions.examples:,} test examples are too few to show whether it loses more than {points_lost}"
    within = [each for each in needed if each <= MOST_NEEDED]
    if not within:
        return (
            f"{there}, and so are many more, since the loss is about equal to it. Set another: compare --margin POINTS."
        )
    least, most = (two_digits(each) for each in (min(within), max(within)))
    needed_in_all = f"about {least}" if least == most else f"about {least} for one of them, {most} for each"
    return f"{there}: {needed_in_all} would be enough if {_as_before(task)}. Or use more seeds."


def _as_before(task: Task) -> str:
    """Return the condition of an estimate of how many examples are needed."""
    return "predictions keep differing as often" if task.metric.is_accuracy else "scores keep differing as much"


def two_digits(count: int) -> str:
    """Format an estimated count with two significant digits, rounded up: 3,400."""
    step = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // step) * step:,}"


def _same(task: Task, chosen: pd.Series) -> tuple[str, ...]:
    """Return other rows with the same file as the chosen one."""
    if pd.isna(chosen["tflite_sha256"]):
        return ()
    copies = task.rows.loc[task.rows["tflite_sha256"].eq(chosen["tflite_sha256"]).fillna(value=False), "run_id"]
    return tuple(task.name_of(run_id) for run_id in copies if run_id != chosen["run_id"])


def _cost(task: Task, row: pd.Series, best: pd.Series) -> str:
    """Describe the loss of accuracy of a row."""
    if row["run_id"] == best["run_id"] or same_file(row, best):
        return f"no other is {task.metric.first}"  # a strategy is called none
    difference = task.difference(row["run_id"], best["run_id"])
    if difference is None:
        return f"not compared with the {task.metric.foremost}, since {task.metric.evidence} are missing"
    return f"{task.metric.change(difference)} compared with the {task.metric.foremost}"
