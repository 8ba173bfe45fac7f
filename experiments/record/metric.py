"""The metric by which a run is judged: its name and format, and which values are better."""

from dataclasses import dataclass
from typing import Any

from experiments.statistics.estimates import Estimate
from experiments.statistics.rounding import percent, significant
from experiments.task.metrics import SHARES, TITLES, Better

ACCURACY = "accuracy"


@dataclass(frozen=True)
class RecordedMetric:
    """A metric by its name in the column `metric`."""

    name: str = ACCURACY
    better: Better = "higher"

    @property
    def is_accuracy(self) -> bool:
        """Whether each prediction is correct or wrong."""
        return self.name == ACCURACY

    @property
    def is_share(self) -> bool:
        """Whether values are shares, which are shown in percent and differ by points."""
        return self.name in SHARES

    @property
    def title(self) -> str:
        """The name in sentences and headings."""
        return TITLES.get(self.name, self.name)

    @property
    def evidence(self) -> str:
        """What is known of the test examples, in sentences."""
        return "predictions" if self.is_accuracy else "scores"

    @property
    def unit(self) -> str:
        """The unit of values in headings."""
        return " (%)" if self.is_share else ""

    @property
    def sign(self) -> str:
        """The unit of values in sentences."""
        return " %" if self.is_share else ""

    @property
    def unit_of_change(self) -> str:
        """The unit of differences in headings."""
        return " (pp)" if self.is_share else ""

    @property
    def first(self) -> str:
        """The comparative for a better value, in sentences."""
        return "more accurate" if self.is_accuracy else "better"

    @property
    def foremost(self) -> str:
        """The superlative for the best value, in sentences."""
        return "most accurate" if self.is_accuracy else "best"

    def gain(self, value: Estimate) -> Estimate:
        """Return a value or a difference as a gain: the higher, the better; it is its own inverse."""
        return value if self.better == "higher" else Estimate(-value.value, -value.high, -value.low)

    def shown(self, value: Any, low: Any = None, high: Any = None) -> str:
        """Format a value with its interval, without unit."""
        return percent(value, low, high) if self.is_share else significant(value, low, high)

    def shown_change(self, value: Any, low: Any = None, high: Any = None) -> str:
        """Format a difference with its interval, without unit."""
        return percent(value, low, high, "+") if self.is_share else significant(value, low, high, "+")

    def sentence(self, value: Any, low: Any, high: Any) -> str:
        """Describe the value of a file."""
        if self.is_accuracy:
            return f"{percent(value, low, high)} % of the test examples classified correctly"
        return f"{self.title} {self.shown(value, low, high)}{self.sign} on the test examples"

    def change(self, gain: Estimate) -> str:
        """Describe a difference, given as a gain."""
        value = self.gain(gain)
        text = self.shown_change(value.value, value.low, value.high)
        return f"{text} points" if self.is_share else f"{text} in {self.title}"

    def allowed(self, share: float) -> str:
        """Describe the loss that is allowed, without knowing the best value."""
        return f"{100 * share:g} points" if self.is_share else f"{100 * share:g} % of the best {self.title}"

    def margin(self, share: float, best: float) -> float:
        """Return the loss that is allowed: a share of the examples or, of a metric with a unit, of the best value."""
        return share if self.is_share else share * abs(best)

    def margin_text(self, margin: float) -> str:
        """Describe a loss."""
        return f"{100 * margin:g} points" if self.is_share else f"{margin:.3g} in {self.title}"


SEVERAL = RecordedMetric("score")  # stands for metrics that differ


def metric_of_row(row: Any) -> RecordedMetric:
    """Return the metric of a row."""
    name, better = row.get("metric"), row.get("metric_better")
    return (
        RecordedMetric(name, "lower" if better == "lower" else "higher") if isinstance(name, str) else RecordedMetric()
    )
