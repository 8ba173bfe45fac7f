"""Strategies: what is done to the baseline, and the converter scheme that goes with it. One file per kind."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.tflite import Scheme
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class Strategy(ABC):
    """What a strategy card is; a new kind defines `prepare` and `scheme`."""

    trains: ClassVar[bool] = False  # whether finetune.* has any part in the result
    needs_epochs: ClassVar[bool] = False  # whether it makes no sense without at least one epoch

    def check(self, model: "Model") -> None:
        """Raise UserError where the strategy cannot work on this architecture; called before any training."""

    @abstractmethod
    def prepare(self, model: "Model", fit: Fit) -> Trained:
        """The model to convert, made from the baseline, which stays as it is; `fit` trains a model in place."""

    @property
    @abstractmethod
    def scheme(self) -> Scheme:
        """What the converter is asked for."""


@card(frozen=True, config=CARD, kw_only=True)
class PostTraining(Strategy):
    """A strategy that leaves the model to the converter."""

    def prepare(self, model: "Model", fit: Fit) -> Trained:
        """The baseline itself."""
        return Trained.untouched(model)
