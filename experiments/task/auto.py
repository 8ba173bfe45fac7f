"""The task that the targets show."""

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Examples
from experiments.dataset.targets import Kind
from experiments.system.options import OPTION
from experiments.system.progress import say_once
from experiments.task import Head, Task
from experiments.task.binary import Binary
from experiments.task.classification import Classification
from experiments.task.detection import Detection
from experiments.task.multilabel import Multilabel
from experiments.task.own import OwnTask
from experiments.task.reconstruction import Reconstruction
from experiments.task.regression import Regression
from experiments.task.segmentation import Segmentation

if TYPE_CHECKING:
    from tf_keras import Model

TASKS: tuple[type[Task], ...] = (
    Classification,
    Binary,
    Multilabel,
    Regression,
    Reconstruction,
    Segmentation,
    Detection,
)


def kind_of_task(name: object) -> Kind | None:
    """Return the kind of targets of a run's recorded task; None for a run of an earlier version."""
    if not isinstance(name, str):
        return None
    kinds: dict[str, Kind | None] = {task.name: task.kind for task in TASKS}
    return kinds.get(name, OwnTask.kind)


def task_of(kind: Kind) -> Task:
    """Return the task that targets of a kind show."""
    kinds: dict[Kind, Task] = {
        "classes": Classification(),
        "numbers": Regression(),
        "rows": Multilabel(),
        "maps": Segmentation(),
        "boxes": Detection(),
    }
    return kinds[kind]


@option(frozen=True, config=OPTION, kw_only=True)
class Auto(Task):
    """The task that the targets show; it never chooses between classification and binary, or a user's own."""

    name: ClassVar[str] = "auto"
    kind: ClassVar[Kind | None] = None

    def resolve(self, examples: Examples) -> Task:
        """Return the task for these examples, and print it unless it is classification."""
        task = task_of(examples.kind)
        if examples.kind != "classes":
            say_once(f"  task: {task.name} ({examples.why})")
        return task

    def head(self, model: "Model", data: Dataset) -> Head:
        """See Task.head."""
        raise NotImplementedError("a head requires a task that was chosen")
