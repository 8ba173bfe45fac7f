"""Learning-rate schedules: the share of the learning rate after some epochs, a function of nothing else.

So a training that resumes uses the rates of one that was not interrupted. The formulas are those of Keras'
`CosineDecay`, `PolynomialDecay`, `PiecewiseConstantDecay` and `ExponentialDecay`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass as option

from experiments.system.options import OPTION
from experiments.training.named import named

Share = Annotated[float, Field(ge=0, le=1)]


@option(frozen=True, config=OPTION, kw_only=True)
class Schedule(ABC):
    """How the learning rate changes after the warm-up; a new schedule defines `share`."""

    needs_total: ClassVar[bool] = False  # whether the rates depend on the number of epochs of the whole training

    @abstractmethod
    def share(self, epoch: float, warmup: float, total: float) -> float:
        """Return the share of the learning rate after `epoch` of `total` epochs, which include the warm-up."""


@option(frozen=True, config=OPTION, kw_only=True)
class Constant(Schedule):
    """The learning rate itself."""

    def share(self, epoch: float, warmup: float, total: float) -> float:
        """See Schedule.share."""
        return 1.0


@option(frozen=True, config=OPTION, kw_only=True)
class Cosine(Schedule):
    """Half a cosine, from the learning rate to the share `end` of it (https://arxiv.org/abs/1608.03983)."""

    needs_total: ClassVar[bool] = True

    end: Share = 0.0

    def share(self, epoch: float, warmup: float, total: float) -> float:
        """See Schedule.share."""
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * _part(epoch - warmup, total - warmup))) / 2


@option(frozen=True, config=OPTION, kw_only=True)
class Linear(Schedule):
    """A straight line, from the learning rate to the share `end` of it."""

    needs_total: ClassVar[bool] = True

    end: Share = 0.0

    def share(self, epoch: float, warmup: float, total: float) -> float:
        """See Schedule.share."""
        return 1 + (self.end - 1) * _part(epoch - warmup, total - warmup)


@option(frozen=True, config=OPTION, kw_only=True)
class Step(Schedule):
    """Times `factor` after every `every` epochs, or after each of `epochs`."""

    every: PositiveInt | None = None
    epochs: tuple[PositiveInt, ...] = ()
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1

    def __post_init__(self) -> None:
        """Refuse a schedule without steps, or with two kinds of them."""
        if (self.every is None) == (not self.epochs):
            raise ValueError(
                "step requires `every` or `epochs`, as in {step: {every: 10}} or {step: {epochs: [10,15]}}"
            )

    def share(self, epoch: float, warmup: float, total: float) -> float:
        """See Schedule.share."""
        steps = sum(epoch >= each for each in self.epochs) if self.every is None else int(epoch // self.every)
        return float(self.factor**steps)


@option(frozen=True, config=OPTION, kw_only=True)
class Exponential(Schedule):
    """Times `factor` in each epoch, continuously."""

    factor: Annotated[float, Field(gt=0, le=1)] = 0.9

    def share(self, epoch: float, warmup: float, total: float) -> float:
        """See Schedule.share."""
        return float(self.factor ** (epoch - warmup))


SCHEDULES: Mapping[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "linear": Linear,
    "step": Step,
    "exponential": Exponential,
}


def schedule_of(value: object) -> Schedule:
    """Return the schedule that a setting names.

    Raises:
        ValueError: the setting is invalid.
    """
    given = named(value, {name: tuple(each.name for each in fields(kind)) for name, kind in SCHEDULES.items()})
    try:
        return SCHEDULES[given.name](**given.arguments)
    except ValidationError as error:
        raise ValueError(_described(given.name, error)) from error


def rate(schedule: Schedule, learning_rate: float, warmup: float, epoch: float, epochs: int) -> float:
    """Return the learning rate after `epoch` of `epochs` epochs, of which the first `warmup` rise linearly from 0."""
    if epoch < warmup:
        return learning_rate * epoch / warmup
    return learning_rate * schedule.share(epoch, warmup, epochs)


def _part(epoch: float, total: float) -> float:
    return min(epoch / total, 1.0) if total > 0 else 1.0


def _described(name: str, error: ValidationError) -> str:
    problem: Any = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    rule = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {where}={problem['input']}: {rule[0].lower()}{rule[1:]}" if where else rule
