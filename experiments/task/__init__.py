"""The task of a model: what its targets and outputs mean, the loss that fits, and the metric that judges it."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Examples, Source
from experiments.dataset.targets import Kind
from experiments.system.options import OPTION
from experiments.task.metrics import Metric, Outputs

if TYPE_CHECKING:
    from tf_keras import Model


@dataclass(frozen=True)
class Head(ABC):
    """The outputs of a model for a task: their number for an example, the loss, and the metrics."""

    outputs: int
    task: ClassVar[str]
    by_place: ClassVar[bool] = False  # whether targets belong to places in the example, as the classes of pixels do
    judging: ClassVar[tuple[str, ...]] = ()  # fields that affect how outputs are judged, but no training

    @property
    @abstractmethod
    def metric(self) -> Metric | None:
        """The metric that judges the model; None for accuracy, which is judged by correct and wrong predictions."""

    @property
    def validation_metric(self) -> Metric | None:
        """The metric on validation examples, which come from the training examples."""
        return self.metric

    @property
    def further(self) -> tuple[Metric, ...]:
        """Further metrics to record."""
        return ()

    @abstractmethod
    def loss(self, keras: Any) -> Any:
        """Return the loss; `keras` is the Keras package of the model."""

    def training_metrics(self, keras: Any) -> list[Any]:
        """Return the metrics to follow during training."""
        return []

    def constant(self, data: Dataset) -> Outputs | None:
        """Return the best outputs for the test examples that do not depend on them; None if there are none such."""
        return None

    def training_data(self, data: Dataset) -> Dataset:
        """Return the data with what the loss compares the outputs with as targets."""
        return data

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the code that decides the training."""
        left_out = vars(type(self)).get("judging", ())  # not inherited: a subclass may train with what it inherits
        return {"head": type(self).__name__, **{k: v for k, v in asdict(self).items() if k not in left_out}}


@option(frozen=True, config=OPTION, kw_only=True)
class Task(ABC):
    """The base class of all task options. A new task defines `kind` and `head`."""

    name: ClassVar[str]
    kind: ClassVar[Kind | None]  # of the targets that it requires; None: any
    extras: ClassVar[tuple[str, ...]] = ()  # optional dependencies of this package that its metric requires
    judging: ClassVar[tuple[str, ...]] = ()  # settings that affect how outputs are judged, but no training

    output: str | None = None  # the output of the model that is judged; None: the only one that has targets

    def check(self, source: Source) -> None:
        """Raise UserError if the task cannot have data of this source; called before TensorFlow is imported."""

    def resolve(self, examples: Examples) -> "Task":
        """Return the task for these examples: this one, unless it is `auto`."""
        return self

    def counted(self, examples: Examples) -> Examples:
        """Return the examples without the classes that do not count."""
        return examples

    @abstractmethod
    def head(self, model: "Model", data: Dataset) -> Head:
        """Return the head of a model.

        Raises:
            UserError: its outputs do not fit the task or the data.
        """
