"""Which setting to ship: the one rule that the report, the terminal, the gates, the tables and the pictures go by.

A goal (accuracy, size, speed) names the best setting and all that are tied with it: those that no test tells from it.
Of the tied ones the simplest is shipped, by an order of criteria. Each criterion keeps the settings that are best by
it, and the next one decides among these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol, get_args

import numpy as np

from experiments.measure.latency import verdict_of
from experiments.statistics.estimates import SIGNIFICANT, Estimate, holm, pairs_among, ratio_of_speedups
from experiments.system.errors import UserError, suggestion

Criterion = Literal["smaller", "training", "slower", "size", "speed", "integers"]
# By default: what gains something over float, then what costs nothing to make, then what is no step back in speed, then
# what is smallest. `smaller` comes first, or the float file would be the answer wherever all that gains something was
# trained; `slower` before `size`, since int4 weights make the smallest file of all and a slow one on most CPUs.
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
LAST = ("epochs", "bytes")  # whatever the order, so that it does not matter in which order settings were run
SAME_SIZE = 1.01  # times larger: up to there a difference of bytes is no reason to prefer a file
MARGIN = 0.005  # half a point of accuracy: what may be given up for size or speed, where nothing else is asked for


class Evidence(Protocol):
    """What is known of the accuracies of two candidates, by their keys; None where nothing is."""

    def p_value(self, one: str, other: str) -> float | None:
        """That both are equally accurate."""

    def difference(self, one: str, other: str) -> Estimate | None:
        """Accuracy of the one less that of the other."""


@dataclass(frozen=True)
class Candidate:
    """A setting as far as the rule looks at it."""

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

    def same_file(self, other: "Candidate") -> bool:
        """Whether both are one file, byte for byte."""
        return bool(self.file) and self.file == other.file


@dataclass(frozen=True)
class Recommendation:
    """What to ship for a goal: the simplest of `tied`, which holds the best by the goal and all not told from it."""

    chosen: Candidate
    best: Candidate
    tied: tuple[Candidate, ...]
    decided_by: tuple[str, ...] = ()  # the criteria that left one of the tied: keys of MEANING

    @property
    def is_won(self) -> bool:
        """Whether one file is better than all others."""
        return all(each.key == self.chosen.key or each.same_file(self.chosen) for each in self.tied)


def order_of(text: str) -> tuple[Criterion, ...]:
    """Read an order of criteria: size,speed.

    Raises:
        UserError: a criterion is unknown, or given twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ORDER:
            raise UserError(
                f"--prefer {text}: {name} is no criterion; there are {', '.join(ORDER)}. {suggestion(name, ORDER)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"--prefer {text}: requires each criterion once, such as --prefer {','.join(ORDER)}.")
    return tuple(each for name in names for each in ORDER if each == name)


def recommend(best: Candidate, tied: Sequence[Candidate], order: Sequence[str] = ORDER) -> Recommendation:
    """The simplest of the tied settings, of which the best is one."""
    left, decided_by = list(tied), []
    for criterion in (*order, *LAST):
        kept = _KEEP[criterion](left)
        if len(kept) < len(left):
            decided_by.append(criterion)
        left = kept
    return Recommendation(left[0], best, tuple(tied), tuple(decided_by))


def most_accurate(
    candidates: Sequence[Candidate], evidence: Evidence, margin: float = MARGIN
) -> tuple[Candidate, list[Candidate]]:
    """The most accurate, and all that are tied with it.

    Tied is what no test tells from the best: p of 0.05 or more, by Holm for all pairs of candidates, since the best was
    chosen by the same data; unless its whole 95 % interval lies beyond the margin, as it can among many candidates with
    few test examples. A copy of the best file is tied with it and no rival. What cannot be compared is not tied.
    """
    best = max(candidates, key=lambda each: each.accuracy)
    rivals = [each for each in candidates if each is not best and not each.same_file(best)]
    known = [(each, p) for each in rivals if (p := evidence.p_value(each.key, best.key)) is not None]
    adjusted = holm(np.array([p for _, p in known]), pairs_among(len(known) + 1))
    equal = {each.key for (each, _), p in zip(known, adjusted, strict=True) if p >= SIGNIFICANT}
    lost = {key for key in equal if (found := evidence.difference(key, best.key)) and found.high < -margin}
    return best, [each for each in candidates if each is best or each.same_file(best) or each.key in equal - lost]


def smallest(candidates: Sequence[Candidate], size: Callable[[Candidate], float]) -> tuple[Candidate, list[Candidate]]:
    """The one with the fewest bytes, and all of the same number: bytes are exact, and need no test."""
    best = min(candidates, key=size)
    return best, [each for each in candidates if size(each) == size(best)]


def fastest(candidates: Sequence[Candidate], best: Candidate | None = None) -> tuple[Candidate, list[Candidate]]:
    """The one with the highest speedup, or a given one, and all that are not shown to be slower than it."""
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
    return verdict_of(ratio_of_speedups(candidate.speedup, best.speedup)) != "slower"


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
