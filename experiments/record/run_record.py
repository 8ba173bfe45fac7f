"""The result of a run as plain data, and the names of its metrics and tags."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset.values import Scaling
from experiments.measure.changes import Changed
from experiments.measure.fidelity import Gap, OpNoise
from experiments.measure.latency import Latency
from experiments.measure.memory import Arena, Memory
from experiments.measure.op_profile import Profile
from experiments.measure.rounds import Round, Rounds
from experiments.record.evidence import Evidence, Predictions
from experiments.record.identity import Identity
from experiments.system.stamp import this_machine
from experiments.task.metrics import Better
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.expectation import Expectation, broken, wrong_interface
from experiments.tflite.graph import Coverage, Op, arithmetic, coverage, interface
from experiments.training.loop import History

# The models between which accuracy can be lost.
BASELINE, AFTER = "Keras baseline", "Keras after the strategy"
REFERENCE, FINAL = "float TFLite of the baseline", "final TFLite"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Setting:
    """The setting of a run: names of the options, and the numbers by which tables are grouped."""

    strategy: str
    model: str
    dataset: str
    epochs: int  # of the baseline
    finetune_epochs: int  # of the strategy; 0 if it does not train
    seed: int


@dataclass(frozen=True)
class Stage:
    """A training: of the baseline, or of the strategy."""

    key: str  # of the trajectory in the cache
    history: History
    epochs_trained: int  # in this run
    epochs_reused: int  # from the cache
    seconds: float  # training time of all epochs, including reused ones
    seconds_reused: float  # training time of the reused epochs
    kept: int = 0  # the epoch whose weights the model has


@dataclass(frozen=True)
class Data:
    """A run's training and test data: sizes, digests, and an example image for MLflow's model."""

    training: int  # images
    validation: int
    test: int
    classes: int
    example: npt.NDArray[np.float32]  # (1, ...): the first test image
    training_fingerprint: str  # SHA-256 of the training and validation images and labels
    test_fingerprint: str
    fingerprint: str  # of all
    outputs: int = 0  # of the model; 0 if equal to the number of classes
    labels: Mapping[int, str] = field(default_factory=dict)  # the label of each class number in the source
    scaling: Scaling = field(default_factory=Scaling)  # of the stored values
    output_shape: tuple[int, ...] = ()  # of one example; empty if it is (outputs,)
    target_shape: tuple[int, ...] = ()  # of one example
    target_dtype: str = "int64"
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # of the source, before the scaling
    scalings: Mapping[str, Scaling] = field(default_factory=dict)  # of several inputs
    exits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of several outputs, by name
    output: str = ""  # the judged one of them

    @property
    def width(self) -> int:
        """Number of outputs of the file."""
        return self.outputs or self.classes

    @property
    def renamed(self) -> dict[str, int]:
        """The class number of each label; empty if all labels equal their class numbers."""
        named = {label: number for number, label in self.labels.items()}
        return named if any(label != str(number) for label, number in named.items()) else {}


@dataclass(frozen=True)
class RunRecord:
    """All results of one run."""

    setting: Setting
    identity: Identity
    baseline: Stage
    own_training: Stage
    tflite: TFLiteModel
    reference: TFLiteModel  # the float file of the same baseline
    evidence: Evidence
    changed: Changed  # images on which the file and its float reference differ
    latency: Latency
    ops: tuple[Op, ...]
    gaps: tuple[Gap, ...]  # between each pair of the four models
    op_noise: tuple[OpNoise, ...]
    delegated: frozenset[int]  # positions of the ops that XNNPACK runs
    profile: Profile
    memory: Memory
    arena: Arena | None  # None if tflite-micro is not installed
    expectation: Expectation
    seconds: Mapping[str, float]  # duration of conversion, evaluation and latency measurement in this run
    data: Data
    stamp: Mapping[str, str]
    xnnpack_refusal: str = ""  # why XNNPACK rejects the file, which is then measured on LiteRT's own kernels
    engine: str = ""  # of quantization-aware training or compression: TFMOT, or own; empty without either
    warnings: tuple[str, ...] = ()  # why the baseline is implausible, each as `remark: explanation`
    task: str = "classification"
    metric: str = "accuracy"  # the metric of keras_score and tflite_score
    metric_better: Better = "higher"
    further: Mapping[str, float] = field(default_factory=dict)  # other metrics of the task, by column

    @property
    def predictions(self) -> Predictions:
        """The predicted classes, of a run that has them."""
        assert isinstance(self.evidence, Predictions)
        return self.evidence

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the run by metric name; names include units."""
        return {
            **self._accuracy(),
            "keras_score": self.evidence.keras_score,
            **self.evidence.tflite_score.columns("tflite_score"),
            **self.evidence.change.columns("score_change"),
            "score_change_p": self.evidence.change_p,
            **self.further,
            **self._signal_to_noise(),
            "tflite_bytes": float(self.tflite.bytes),
            "tflite_gzip_bytes": float(self.tflite.gzip_bytes),
            "size_ratio": self.reference.bytes / self.tflite.bytes,
            **self._latency(),
            "memory_peak_kib": self.memory.peak_kib,
            "memory_model_kib": self.memory.model_kib,
            **({"arena_bytes": float(self.arena.bytes)} if self.arena and self.arena.bytes is not None else {}),
            "coverage_ops": self.coverage.ops,
            "coverage_weights": self.coverage.weights,
            "coverage_macs": self.coverage.macs,
            "xnnpack_ops": self.xnnpack_ops,
            "logit_rmse": self._gap(AFTER, FINAL).rms_logit_error,
            **self._least_sqnr(),
            "train_seconds": self.baseline.seconds + self.own_training.seconds,
            "train_seconds_reused": self.baseline.seconds_reused + self.own_training.seconds_reused,
            **{f"{part}_seconds": seconds for part, seconds in self.seconds.items()},
            "epochs_trained": float(self.baseline.epochs_trained + self.own_training.epochs_trained),
            "epochs_reused": float(self.baseline.epochs_reused + self.own_training.epochs_reused),
        }

    @property
    def rounds(self) -> Rounds:
        """The first round of the run's timing, to which later ones are added."""
        first = Round.of(self.latency.session, "model", "reference", this_machine())
        return Rounds(self.tflite.digest, self.reference.digest, (first,))

    def _accuracy(self) -> dict[str, float]:
        """Return accuracy and agreement; empty for a task without correct and wrong predictions."""
        if not isinstance(self.evidence, Predictions):
            return {}
        return {
            "keras_accuracy": self.evidence.keras_accuracy.value,
            **self.evidence.tflite_accuracy.columns("tflite_accuracy"),
            **self.evidence.change.columns("accuracy_change"),
            "accuracy_change_p": self.evidence.change_p,
            "agreement": self.evidence.agreement,
        }

    def _signal_to_noise(self) -> dict[str, float]:
        """Return the signal-to-noise ratio of the outputs; empty for outputs without noise."""
        ratio = self._gap(AFTER, FINAL).sqnr_db
        return {"output_sqnr_db": ratio} if isfinite(ratio) else {}

    def _latency(self) -> dict[str, float]:
        own, session = self.latency.own, self.latency.session
        return {
            "latency_p50_us": own.percentile_us(50),
            "latency_p90_us": own.percentile_us(90),
            "latency_p99_us": own.percentile_us(99),
            "latency_min_us": own.min_us,
            "latency_first_us": own.first_us,
            "latency_load_us": own.load_us,
            "latency_replicates": float(len(own.medians)),
            "latency_rounds": 1.0,
            "latency_rounds_reused": 0.0,
            "latency_span_seconds": 0.0,
            "latency_states": 1.0,
            **self.latency.speedup.columns("speedup"),
            **session.sentinel.columns("sentinel"),
            "latency_other_cores": session.conditions.other_cores,
            "latency_steal_cores": session.conditions.steal_cores,
            "load_before": session.conditions.load_before,
            "load_after": session.conditions.load_after,
        }

    @property
    def coverage(self) -> Coverage:
        """Share of the file that runs in integers."""
        return coverage(self.ops)

    @property
    def broken(self) -> tuple[str, ...]:
        """Differences between the file and its strategy's expectation."""
        return (
            *broken(self.expectation, self.ops),
            *wrong_interface(self.expectation, *interface(self.tflite.content)),
        )

    @property
    def xnnpack_ops(self) -> float:
        """Share of the computing ops that XNNPACK runs."""
        computing = [op.index in self.delegated for op in self.ops if op.computes]
        return sum(computing) / len(computing) if computing else 0.0

    def _least_sqnr(self) -> dict[str, float]:
        """Return the lowest signal-to-noise ratio; empty for a file without noise."""
        finite = [op.sqnr_db for op in self.op_noise if isfinite(op.sqnr_db)]
        return {"sqnr_min_db": min(finite)} if finite else {}

    def _gap(self, first: str, second: str) -> Gap:
        return next(gap for gap in self.gaps if (gap.first, gap.second) == (first, second))

    def verdict(self) -> dict[str, str]:
        """Return the findings as tags: what the speedup means, and whether the file matches its expectation."""
        return {
            "task": self.task,
            "metric": self.metric,
            "metric_better": self.metric_better,
            "speed": self.latency.verdict,
            "latency_void": self.latency.session.void,
            "xnnpack_refusal": self.xnnpack_refusal,
            "runs_on_micro": NOT_MEASURED if self.arena is None else self.arena.reason or "yes",
            "engine": self.engine,
            "arithmetic": arithmetic(self.ops),
            "verified": "false" if self.broken else "true",
            "broken_promise": "; ".join(self.broken),
            "partial": "true" if self.expectation.partial else "false",
            "left_float": describe_float_layers(self.expectation.left_float),
            "warnings": "\n".join(self.warnings),
        }

    def curves(self) -> dict[str, tuple[float, ...]]:
        """Return training curves, one value per epoch, by names such as baseline/loss and finetune/val_accuracy.

        `kept_epoch` has one value, the epoch whose weights were kept, if it is not the last.
        """
        stages = {"baseline": self.baseline, "finetune": self.own_training}
        curves = {
            f"{stage}/{name}": values for stage, training in stages.items() for name, values in training.history.items()
        }
        earlier = {stage: each.kept for stage, each in stages.items() if 0 < each.kept < len(each.history["loss"])}
        return {**curves, **{f"{stage}/kept_epoch": (float(kept),) for stage, kept in earlier.items()}}

    def as_json(self) -> dict[str, Any]:
        """Return the record for a JSON file, without arrays and bytes, which have their own files."""
        scalings = {name: _described(each) for name, each in self.data.scalings.items()}
        return {
            "setting": asdict(self.setting),
            **self.identity.tags(),
            "metrics": self.metrics(),
            **self.verdict(),
            "baseline": asdict(self.baseline),
            "own_training": asdict(self.own_training),
            "tflite_sha256": self.tflite.digest,
            "data_fingerprint": self.data.fingerprint,
            "labels": {str(number): label for number, label in self.data.labels.items()},
            "scaling": {"divisor": self.data.scaling.divisor, "symmetric": self.data.scaling.symmetric},
            "preprocessing": dict(self.data.preprocessing),
            **({"output": self.data.output} if self.data.output else {}),
            **({"scalings": scalings} if scalings else {}),
            "gaps": [asdict(gap) for gap in self.gaps],
            "conditions": asdict(self.latency.session.conditions),
            "layers": [asdict(op) for op in self.ops],
            "stamp": dict(self.stamp),
        }


def _described(scaling: Scaling) -> dict[str, Any]:
    return {"divisor": scaling.divisor, "symmetric": scaling.symmetric, "dtype": scaling.dtype.name}


def short_warning(warning: str) -> str:
    """Return the short form of a warning, for tables."""
    return warning.partition(": ")[0]


def is_setting(name: str) -> bool:
    """Whether a parameter or column is a setting in which runs may differ: strategy.layers, threads."""
    return "." in name or name == "threads"


def describe_float_layers(left_float: Mapping[str, str], most: int | None = None) -> str:
    """Describe the layers that stay float, and why, in one line; lists at most `most` names per reason."""
    layers: dict[str, list[str]] = {}
    for layer, reason in left_float.items():
        layers.setdefault(reason, []).append(layer)
    return "; ".join(
        f"{_listed(names, most)} {'stays' if len(names) == 1 else 'stay'} float ({reason})"
        for reason, names in layers.items()
    )


def _listed(names: Sequence[str], most: int | None) -> str:
    if most is None or len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} others"
