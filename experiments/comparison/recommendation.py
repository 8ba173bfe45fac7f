"""The rule for which setting to ship, shared by the report, the terminal, the gates, the tables and the plots.

For a goal (accuracy, size, speed), find the best setting and all settings tied with it, which do not differ
significantly. Of these, ship the simplest, by an ordered list of criteria: each keeps the settings that are best by it,
and the next one decides among them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Protocol, get_args

import numpy as np

from experiments.measure.latency import verdict_of
from experiments.measure.rounds import Rounds, ratio_together
from experiments.statistics.estimates import SIGNIFICANT, Estimate, holm, pairs_among, ratio_of_speedups
from experiments.system.errors import OPTION, UserError, suggestion

Criterion = Literal["smaller", "training", "slower", "size", "speed", "integers"]
# The default order. `smaller` comes first, since otherwise the float file would be chosen whenever all smaller files
# require training; `slower` comes before `size`, since files with int4 weights are the smallest, but slow on most CPUs.
ORDER: tuple[Criterion, ...] = get_args(Criterion)
MEANING: Mapping[str, str] = {
    "smaller": "smaller than float",
    "training": "no further training",
    "slower": "not slower than float",
    "size": "fewest bytes",
    "speed": "fastest",
    "integers": "fewest ops outside integers",
    "epochs": "fewest epochs",
    "bytes": "fewest bytes",
}
LAST = ("epochs", "bytes")  # always the last criteria, so that the order of the runs does not matter
SAME_SIZE = 1.01  # ratio of sizes; smaller differences do not matter
MARGIN = 0.005  # half a point of accuracy, which may be lost for size or speed by default


class PairwiseTests(Protocol):
    """Tests of the accuracies of two candidates, by their keys; None if they cannot be compared."""

    def p_value(self, one: str, other: str) -> float | None:
        """Return the p-value that both are equally accurate."""

    def difference(self, one: str, other: str) -> Estimate | None:
        """Return the accuracy of one minus that of the other."""


@dataclass(frozen=True)
class Candidate:
    """The properties of a setting that the rule uses."""

    key: str  # run id
    accuracy: float
    smaller: bool = False  # than the float file
    trains: bool = False  # beyond the baseline
    bytes: float = inf
    speedup: Estimate | None = None  # over the float file; None: invalid, unknown, or not comparable with the others
    slower: bool = False  # than the float file, by its own test
    integers: float = 0.0  # share of the computing ops
    epochs: float = 0.0  # trained in all
    file: str = ""  # digest; empty if unknown
    rounds: Callable[[], Rounds | None] = field(default=lambda: None, compare=False, repr=False)  # of its timing

    def same_file(self, other: "Candidate") -> bool:
        """Whether both files are identical, byte for byte."""
        return bool(self.file) and self.file == other.file


@dataclass(frozen=True)
class Recommendation:
    """What to ship for a goal: the simplest of `tied`, which are the best and those not significantly different."""

    chosen: Candidate
    best: Candidate
    tied: tuple[Candidate, ...]
    decided_by: tuple[str, ...] = ()  # the criteria that excluded some of the tied: keys of MEANING

    @property
    def is_won(self) -> bool:
        """Whether one file is significantly better than all others."""
        return all(each.key == self.chosen.key or each.same_file(self.chosen) for each in self.tied)


def order_of(text: str) -> tuple[Criterion, ...]:
    """Parse an order of criteria: size,speed.

    Raises:
        UserError: a criterion is unknown, or given twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ORDER:
            raise UserError(f"--prefer {text}: {name} is not a criterion. {suggestion(name, ORDER)}")
    if len(set(names)) < len(names):
        raise UserError(f"--prefer {text}: requires each criterion once, such as --prefer {','.join(ORDER)}.")
    return tuple(each for name in names for each in ORDER if each == name)


def margin_of_points(points: float, prefix: str = OPTION) -> float:
    """Return the accuracy that may be lost for size or speed, as a share of the test examples.

    Raises:
        UserError: the points are not between 0 and 100; `prefix` is that of names in the message.
    """
    if not 0 < points < 100:
        raise UserError(f"{prefix}margin {points:g}: requires points between 0 and 100, such as {prefix}margin 0.5.")
    return float(points) / 100


def recommend(best: Candidate, tied: Sequence[Candidate], order: Sequence[str] = ORDER) -> Recommendation:
    """Return the simplest of the tied settings, which include the best."""
    left, decided_by = list(tied), []
    for criterion in (*order, *LAST):
        kept = _KEEP[criterion](left)
        if len(kept) < len(left):
            decided_by.append(criterion)
        left = kept
    return Recommendation(left[0], best, tuple(tied), tuple(decided_by))


def most_accurate(
    candidates: Sequence[Candidate], tests: PairwiseTests, margin: float = MARGIN
) -> tuple[Candidate, list[Candidate]]:
    """Return the most accurate candidate, and all that are tied with it.

    Candidates are tied if they do not differ significantly from the best: p of at least 0.05 after Holm's correction
    for all pairs, since the best was selected on the same data. They are not tied if their whole 95 % interval is
    beyond the margin, which can happen with many candidates and few test examples, or if they cannot be compared. An
    identical file is tied, but does not count as a comparison. So is one that is better than the best in the seeds that
    both have, which can happen where the best has more seeds.
    """
    best = max(candidates, key=lambda each: each.accuracy)
    rivals = [each for each in candidates if each is not best and not each.same_file(best)]
    known = [(each, p) for each in rivals if (p := tests.p_value(each.key, best.key)) is not None]
    adjusted = holm(np.array([p for _, p in known]), pairs_among(len(known) + 1))
    equal = {each.key for (each, _), p in zip(known, adjusted, strict=True) if p >= SIGNIFICANT}
    differences = {each.key: tests.difference(each.key, best.key) for each, _ in known}
    equal |= {key for key, found in differences.items() if found and found.value > 0}
    lost = {key for key in equal if (found := differences[key]) and found.high < -margin}
    return best, [each for each in candidates if each is best or each.same_file(best) or each.key in equal - lost]


def smallest(candidates: Sequence[Candidate], size: Callable[[Candidate], float]) -> tuple[Candidate, list[Candidate]]:
    """Return the candidate with the fewest bytes, and all of equal size; sizes are exact, so there is no test."""
    best = min(candidates, key=size)
    return best, [each for each in candidates if size(each) == size(best)]


def fastest(candidates: Sequence[Candidate], best: Candidate | None = None) -> tuple[Candidate, list[Candidate]]:
    """Return the candidate with the highest speedup, or `best`, and all that are not significantly slower."""
    best = best or max(candidates, key=_speedup)
    return best, [each for each in candidates if each is best or _as_fast(each, best)]


def _as_fast(candidate: Candidate, best: Candidate) -> bool:
    if candidate.same_file(best):
        return True
    if candidate.speedup is None or best.speedup is None:
        return False
    if candidate.speedup.value == best.speedup.value:
        return True
    if not all(0 < each.low <= each.high < inf for each in (candidate.speedup, best.speedup)):
        return False
    ratio = ratio_together(candidate.rounds(), best.rounds()) or ratio_of_speedups(candidate.speedup, best.speedup)
    return verdict_of(ratio) != "slower"


def _speedup(candidate: Candidate) -> float:
    return candidate.speedup.value if candidate.speedup else -inf


def _least(value: Callable[[Candidate], float], factor: float = 1.0) -> Callable[[list[Candidate]], list[Candidate]]:
    def kept(left: list[Candidate]) -> list[Candidate]:
        least = min(map(value, left))
        return [each for each in left if value(each) <= max(least, factor * least)]

    return kept


def _fastest_of(left: list[Candidate]) -> list[Candidate]:
    return fastest(left)[1] if any(each.speedup for each in left) else left


_KEEP: Mapping[str, Callable[[list[Candidate]], list[Candidate]]] = {
    "smaller": _least(lambda each: not each.smaller),
    "training": _least(lambda each: each.trains),
    "slower": _least(lambda each: each.slower),
    "size": _least(lambda each: each.bytes, SAME_SIZE),
    "speed": _fastest_of,
    "integers": _least(lambda each: -each.integers),
    "epochs": _least(lambda each: each.epochs),
    "bytes": _least(lambda each: each.bytes),
}
