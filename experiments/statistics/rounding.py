"""Numbers as people read them: rounded, with their interval where there is one; nothing where there is no number."""

from math import isnan
from typing import Any

from experiments.statistics.estimates import Estimate


def percent(value: Any, low: Any = None, high: Any = None, sign: str = "") -> str:
    """Hundredths; `sign="+"` for differences."""
    if _missing(value):
        return ""
    interval = "" if _missing(low) else f" [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"
    return f"{100 * value:{sign}.2f}{interval}"


def signed_percent(value: Any, low: Any = None, high: Any = None) -> str:
    """Hundredths of a difference, with its sign."""
    return percent(value, low, high, sign="+")


def points(change: Estimate) -> str:
    """A change of accuracy in points."""
    return signed_percent(change.value, change.low, change.high)


def times(value: Any, low: Any = None, high: Any = None) -> str:
    """A ratio."""
    if _missing(value):
        return ""
    return f"{value:.2f}x" if _missing(low) else f"{value:.2f}x [{low:.2f}, {high:.2f}]"


def whole(value: Any) -> str:
    """A count or a size."""
    return "" if _missing(value) else f"{value:,.0f}"


def three_digits(value: Any) -> str:
    """Three digits that count, and never fewer than all before the point."""
    if _missing(value):
        return ""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def _missing(value: Any) -> bool:
    return value is None or isnan(value)
