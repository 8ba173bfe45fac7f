"""Numbers rounded for display, with their interval if they have one; a missing number becomes an empty string."""

from math import isnan
from typing import Any

from experiments.statistics.estimates import Estimate


def percent(value: Any, low: Any = None, high: Any = None, sign: str = "") -> str:
    """Format a share in percent; `sign="+"` for differences."""
    if missing(value):
        return ""
    interval = "" if missing(low) else f" [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"
    return f"{100 * value:{sign}.2f}{interval}"


def signed_percent(value: Any, low: Any = None, high: Any = None) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    return percent(value, low, high, sign="+")


def points(change: Estimate) -> str:
    """Format a change of accuracy in percentage points."""
    return signed_percent(change.value, change.low, change.high)


def times(value: Any, low: Any = None, high: Any = None) -> str:
    """Format a ratio."""
    if missing(value):
        return ""
    return f"{value:.2f}x" if missing(low) else f"{value:.2f}x [{low:.2f}, {high:.2f}]"


def smaller(ratio: float) -> str:
    """Describe a size by its ratio, float file to file."""
    return f"{times(ratio)} smaller" if ratio >= 1 else f"{times(1 / ratio)} larger"


def whole(value: Any) -> str:
    """Format a count or a size."""
    return "" if missing(value) else f"{value:,.0f}"


def three_digits(value: Any) -> str:
    """Format with three significant digits, but never round the integer part."""
    if missing(value):
        return ""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def significant(value: Any, low: Any = None, high: Any = None, sign: str = "") -> str:
    """Format a number of any size, and its interval, with four significant digits."""
    if missing(value):
        return ""
    interval = "" if missing(low) else f" [{low:{sign}.4g}, {high:{sign}.4g}]"
    return f"{value:{sign}.4g}{interval}"


def missing(value: Any) -> bool:
    """Whether there is no value."""
    return value is None or isnan(value)
