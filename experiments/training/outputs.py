"""Training of models with several outputs: a loss for each output that has targets; their sum is the loss."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from experiments.dataset import Dataset, Split
from experiments.dataset.rows import NamedRows, as_rows
from experiments.model.ends import exit_names, with_output
from experiments.system.errors import UserError
from experiments.task import Head
from experiments.task.auto import task_of
from experiments.task.metrics import Metric

if TYPE_CHECKING:
    from tf_keras import Model


@dataclass(frozen=True)
class JointHead(Head):
    """The outputs of a model with several, of which one is judged; they are trained together."""

    task: ClassVar[str] = "joint"
    judged: Head
    heads: Mapping[str, Head | None]  # in the order of the outputs; None for one without targets
    output: str  # the judged one

    @property
    def by_place(self) -> bool:  # type: ignore[override]
        """See Head.by_place."""
        return any(head.by_place for head in self.heads.values() if head)

    @property
    def metric(self) -> Metric | None:
        """See Head.metric."""
        return self.judged.metric

    def loss(self, keras: Any) -> list[Any]:
        """Return the loss of each output."""
        return [head and head.loss(keras) for head in self.heads.values()]

    def training_metrics(self, keras: Any) -> list[list[Any]]:
        """Return the metrics of each output."""
        return [head.training_metrics(keras) if head else [] for head in self.heads.values()]

    def training_data(self, data: Dataset) -> Dataset:
        """Return the data with the targets of all outputs; 0 for an output without any, which has no loss."""
        given = {
            name: head.training_data(data if name == self.output else data.further[name])
            for name, head in self.heads.items()
            if head
        }

        def joined(own: Split, parts: Mapping[str, Split]) -> Split:
            none = Split(own.x, np.zeros(len(own), np.float32))
            targets = {name: as_rows(parts.get(name, none).y) for name in self.heads}
            return Split(own.x, cast(Any, NamedRows(parts=targets)))

        return replace(
            data,
            train=joined(data.train, {name: each.train for name, each in given.items()}),
            validation=joined(data.validation, {name: each.validation for name, each in given.items()}),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """See Head.identity."""
        heads = {name: head and head.identity for name, head in self.heads.items()}
        return {"head": "JointHead", "judged": self.output, "heads": heads}


def joint_head(model: "Model", data: Dataset, head: Head) -> Head:
    """Return the head to train with: that of the judged output, joined with those of all others that have targets.

    Raises:
        UserError: an output does not fit its targets.
    """
    if not data.output:
        return head
    heads = {name: _head(model, name, data.further.get(name)) for name in exit_names(model)}
    return JointHead(head.outputs, head, {**heads, data.output: head}, data.output)


def heads_of(head: Head) -> Mapping[str, Head | None]:
    """Return the heads by the names of the outputs; that of the only output has the name ''."""
    return head.heads if isinstance(head, JointHead) else {"": head}


def _head(model: "Model", name: str, data: Dataset | None) -> Head | None:
    if data is None:
        return None
    try:
        return task_of(data.kind).head(with_output(model, name), data)
    except UserError as error:
        raise UserError(f"y_train/{name}: {error}") from error


def renamed(history: Mapping[str, Any], model: "Model", output: str) -> dict[str, float]:
    """Return the last value of each curve; those of the judged output have the names that a single output has."""
    values = {name: float(curve[-1]) for name, curve in history.items()}
    if not output:
        return values
    own = list(model.output_names)[exit_names(model).index(output)]
    found = {}
    for name, value in values.items():
        part, rest = ("val_", name.removeprefix("val_")) if name.startswith("val_") else ("", name)
        of_judged = rest.startswith(f"{own}_") and rest != f"{own}_loss"
        found[f"{part}{rest.removeprefix(f'{own}_')}" if of_judged else name] = value
    return found
