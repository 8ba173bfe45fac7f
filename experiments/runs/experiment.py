"""The typed configuration of a run, and what it requires."""

from dataclasses import dataclass, field

from experiments.dataset import Source
from experiments.measure.latency import LatencyProtocol
from experiments.model import Architecture
from experiments.record.identity import Identity, name_of
from experiments.record.run_record import Setting
from experiments.strategy import QuantizationAware, Strategy
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.system.extras import require
from experiments.task import Task
from experiments.task.auto import Auto
from experiments.training.loop import Training


@dataclass(frozen=True)
class Experiment:
    """The typed configuration of a run."""

    setting: Setting
    dataset: Source
    model: Architecture
    strategy: Strategy
    training: Training
    finetune: Training
    latency: LatencyProtocol
    cache: Cache
    threads: int  # of TensorFlow, and of the evaluation of TFLite files
    task: Task = field(default_factory=Auto)

    def __post_init__(self) -> None:
        self.training.check("training")
        if self.strategy.trains:
            self.finetune.check("finetune")
        if not self.model.trainable:
            self._check_untrainable()
        if self.strategy.needs_epochs and self.finetune.epochs == 0:
            raise UserError(
                f"finetune.epochs=0: strategy={self.setting.strategy} requires at least 1, since it learns ranges in "
                "training. Or quantize after training with strategy=ptq_int8."
            )
        if self.finetune.precision != "float32":
            raise UserError(
                f"finetune.precision={self.finetune.precision}: requires float32, like fake quantization and its "
                f"control. Only training.precision={self.finetune.precision} is possible."
            )

    def _check_untrainable(self) -> None:
        """Refuse what requires Keras layers, for a model that is a graph of operations."""
        strategy, model = f"strategy={self.setting.strategy}", f"model={self.setting.model}"
        way_out = "or give the Keras model, with model=keras_file model.path=FILE.keras"
        if self.strategy.trains:
            raise UserError(
                f"{strategy}: trains the model, and {model} has operations and no Keras layers. Quantize after "
                f"training, with strategy=ptq_int8 or another ptq_..., {way_out}."
            )
        if getattr(self.strategy, "layers", None) is not None:
            raise UserError(f"strategy.layers: {model} has no Keras layers to choose. Quantize all of it, {way_out}.")
        if self.training.epochs:
            raise UserError(f"training.epochs={self.training.epochs}: {model} cannot be trained. Type epochs=0.")

    @property
    def identity(self) -> Identity:
        """The names of model and data; their digests are computed when they are loaded."""
        files = (getattr(self.model, "path", None), getattr(self.dataset, "path", None))
        return Identity(name_of(self.setting.model, files[0]), name_of(self.setting.dataset, files[1]))

    @property
    def modules(self) -> frozenset[str]:
        """The module of the data set's class, which a user may have written."""
        return frozenset([type(self.dataset).__module__])

    def check(self) -> None:
        """Check, without TensorFlow, whether this machine can do the run.

        Raises:
            UserError: a file of data or model is missing or invalid, more threads than cores are set, or the strategy
                requires a package that is not installed.
        """
        for extra in self.strategy.extras:
            rest = self.strategy.rest if isinstance(self.strategy, QuantizationAware) else None
            require(extra, f"strategy={self.setting.strategy}{f' strategy.rest={rest}' if rest else ''}")
        for extra in self.task.extras:
            require(extra, f"task={self.task.name}")
        for extra in self.model.extras if self.setting.strategy != "none" else ():
            require(extra, f"model={self.setting.model} strategy={self.setting.strategy}")
        self.dataset.check()
        self.task.check(self.dataset)
        self.dataset.check_targets(self.task.kind, self.task.output)
        if not self.model.given and self.task.kind in (None, "classes"):
            self.dataset.check_for_new_model()
        self.model.check()
        self.latency.check()
