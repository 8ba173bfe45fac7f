"""The schema of the columns: name, kind, unit, heading, which direction is better, and a description.

Readers of stores, tables, gates, the report and the page docs/reference/columns.md all use this schema. The names are
those of MLflow's metrics and tags.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from experiments.record.identity import DIGESTS
from experiments.statistics.rounding import percent, signed_percent, three_digits, times, whole

# share: 0 to 1. change: a difference of shares. count: an integer. ratio: a quotient of two measurements. speedup: a
# ratio of latencies. time: a latency. number: any other number.
Kind = Literal["text", "count", "share", "change", "ratio", "speedup", "time", "number"]
# setting, metric, verdict, tag, run: recorded in the store. derived: computed from several of these. comparison: in
# tables that compare runs with those of one strategy. group: in tables whose rows combine several runs.
Source = Literal["setting", "metric", "verdict", "tag", "run", "derived", "comparison", "group"]
Better = Literal["higher", "lower", ""]
ENDS = {"_low": "Lower end of the 95 % interval of", "_high": "Upper end of the 95 % interval of"}


@dataclass(frozen=True)
class Column:
    """A column. Printed tables show only columns with a heading."""

    name: str
    kind: Kind
    source: Source
    doc: str
    unit: str = ""
    heading: str = ""  # {} stands for the strategy that the runs are compared with
    better: Better = ""
    formatter: Callable[..., str] = str  # takes the value and, if it has an interval, both ends
    interval: bool = False  # whether the columns NAME_low and NAME_high exist
    p_value: bool = False  # whether the column NAME_p exists
    test: str = "McNemar's exact test"  # that the p-value comes from
    of: str = ""  # for an end of an interval or a p-value, its column

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.kind != "text"

    @property
    def timing(self) -> bool:
        """Whether the values are latencies or ratios of them, which are not comparable between machines."""
        return self.kind in ("time", "speedup")

    def expand(self) -> Iterator["Column"]:
        """Yield the column, the ends of its interval, and its p-value."""
        yield self
        plain = replace(self, heading="", interval=False, p_value=False, of=self.name)
        if self.interval:
            for end, doc in ENDS.items():
                yield replace(plain, name=f"{self.name}{end}", doc=f"{doc} {self.name}.")
        if self.p_value:
            doc = f"P-value that {self.name} is 0, of {self.test}."
            yield replace(plain, name=f"{self.name}_p", kind="number", unit="", better="", doc=doc)


def _text(source: Source, name: str, doc: str, heading: str = "") -> Column:
    return Column(name, "text", source, doc, heading=heading)


def _count(
    source: Source,
    name: str,
    doc: str,
    unit: str = "",
    heading: str = "",
    better: Better = "",
) -> Column:
    return Column(name, "count", source, doc, unit, heading, better, whole)


def _share(name: str, doc: str, heading: str = "", better: Better = "", interval: bool = False) -> Column:
    return Column(name, "share", "metric", doc, "share, 0 to 1", heading, better, percent, interval)


def _latency(name: str, doc: str, heading: str = "") -> Column:
    return Column(name, "time", "metric", doc, "µs", heading, "lower", three_digits)


def _seconds(name: str, doc: str) -> Column:
    return Column(name, "number", "metric", doc, "s", better="lower", formatter=whole)


def _number(name: str, doc: str, unit: str = "", better: Better = "", heading: str = "") -> Column:
    return Column(name, "number", "metric", doc, unit, heading, better, three_digits)


def _score(name: str, doc: str, interval: bool = False, p_value: bool = False) -> Column:
    test = "the paired bootstrap; for accuracy, of McNemar's exact test"
    return Column(name, "number", "metric", doc, formatter=three_digits, interval=interval, p_value=p_value, test=test)


def _ratio(
    kind: Kind, source: Source, name: str, doc: str, heading: str = "", better: Better = "higher", interval: bool = True
) -> Column:
    return Column(name, kind, source, doc, "ratio", heading, better, times, interval)


def _change(source: Source, name: str, doc: str, heading: str) -> Column:
    return Column(
        name, "change", source, doc, "share, -1 to 1", heading, "higher", signed_percent, interval=True, p_value=True
    )


# Further metrics of tasks, which are recorded of the Keras model and of the file.
FURTHER = {
    "mae": "Mean absolute error",
    "rmse": "Root mean square error",
    "auc": "Area under the receiver operating characteristic",
    "mse": "Mean squared reconstruction error of normal examples",
    "top5_accuracy": "Share of examples whose class is among the five largest outputs,",
    "balanced_accuracy": "Mean recall over all classes,",
    "micro_f1": "F1 score over all labels",
    "macro_f1": "Mean over classes or labels of the F1 score",
    "miou": "Mean over classes of intersection over union",
    "map": "COCO's mean average precision over overlaps from 0.5 to 0.95, mAP@[.5:.95],",
    "map50": "COCO's mean average precision for an overlap of at least 0.5, mAP@.5,",
}
MODELS = {"keras": "Keras model after the strategy", "tflite": "TFLite file"}

_DECLARED = (
    _text("setting", "strategy", "What is done to the baseline, and how the result is converted.", "strategy"),
    _text("setting", "model", "The option of the model.", "model"),
    _text("setting", "dataset", "The option of the data set.", "dataset"),
    _count("setting", "epochs", "Epochs of the baseline.", heading="epochs"),
    _count("setting", "finetune_epochs", "Further epochs of the strategy; 0 if it does not train."),
    _count("setting", "seed", "Seed of initial weights, shuffling, dropout and calibration samples.", heading="seed"),
    _share("keras_accuracy", "Accuracy of the Keras model after the strategy.", "Keras accuracy (%)", "higher"),
    _share(
        "tflite_accuracy", "Accuracy of the TFLite file.", "TFLite accuracy (%)", "higher", interval=True
    ),
    _change(
        "metric", "accuracy_change",
        "Accuracy of the file minus that of the float TFLite model of the same baseline, on the same examples.",
        "Δ accuracy (pp)",
    ),
    _text("verdict", "task", "The task of the model: classification, regression, ..."),
    _text("verdict", "metric", "The metric that judges the model: accuracy, mae, ...", "metric"),
    _text("verdict", "metric_better", "Which values of the metric are better: higher or lower."),
    _score("keras_score", "The metric of the Keras model after the strategy."),
    _score("tflite_score", "The metric of the TFLite file.", interval=True),
    _score(
        "score_change",
        "The metric of the file minus that of the float TFLite model of the same baseline, on the same examples.",
        interval=True,
        p_value=True,
    ),
    *(_score(f"{model}_{metric}", f"{title} of the {what}.")
      for metric, title in FURTHER.items() for model, what in MODELS.items()),
    _number("output_sqnr_db", "Signal-to-noise ratio between the outputs of the file and of its Keras model.", "dB",
            "higher", "agreement (dB)"),
    _share("agreement", "Share of test examples for which the file and its Keras model predict the same class.",
           "agreement (%)", "higher"),
    _count("metric", "tflite_bytes", "Size of the file.", "bytes", "bytes", "lower"),
    _count("metric", "tflite_gzip_bytes", "Size of the file after gzip.", "bytes", better="lower"),
    _ratio("ratio", "metric", "size_ratio", "Size of the float file divided by that of this file.", "size ratio",
           interval=False),
    _latency("latency_p50_us", "Median latency of one inference.", "latency p50 (µs)"),
    _latency("latency_p90_us", "The 90th percentile of the latency."),
    _latency("latency_p99_us", "The 99th percentile of the latency."),
    _latency("latency_min_us", "Latency of the fastest inference."),
    _latency("latency_first_us", "Latency of the first inference of a new interpreter: median over replicates."),
    _latency("latency_load_us", "Time to create an interpreter for the file: median over replicates."),
    _ratio("speedup", "metric", "speedup",
           "Latency of the float file divided by that of this file, interleaved in the same processes; mean of rounds.",
           "speedup"),
    _text("verdict", "speed",
          "Verdict on the speedup: faster, slower, equivalent (within 2 %), unclear, same file, or void, which tables "
          "show as invalid.", "speed"),
    _ratio("ratio", "metric", "sentinel",
           "Latency of the float file divided by that of its own copy; differs from 1 only by noise.", better=""),
    _text("verdict", "latency_void", "Why the timing is invalid; empty if it is valid."),
    _count("metric", "latency_replicates", "Replicates: how often the timing was repeated with new interpreters."),
    _count("metric", "latency_rounds", "Rounds: moments at which the timing was repeated in a new process."),
    _count("metric", "latency_rounds_reused",
           "Rounds that were measured for earlier runs of the same files; part of latency_rounds."),
    _number("latency_span_seconds", "Time between the first and the last round.", "s"),
    _count("metric", "latency_states",
           "States of the machine, 1 or 2: whether the float file's own time forms two separate groups of rounds."),
    _number("latency_other_cores", "Cores used by other processes during the timing, on average.", "cores"),
    _number("latency_steal_cores",
            "Cores that the hypervisor gave to other virtual machines; part of latency_other_cores.", "cores"),
    _number("load_before", "Load average before the timing."),
    _number("load_after", "Load average after the timing."),
    _number("memory_peak_kib", "Peak memory of a process that runs the file with LiteRT.", "KiB", "lower"),
    _number("memory_model_kib", "Increase of memory by loading and running the file.", "KiB", "lower"),
    _count("metric", "arena_bytes", "Arena in TensorFlow Lite Micro, without the file itself.", "bytes",
           "micro arena (bytes)", "lower"),
    _text("verdict", "runs_on_micro",
          "Whether TensorFlow Lite Micro runs the file: yes, the reason why not, or not measured."),
    _text("verdict", "arithmetic", "Number of computing ops by the types that they compute in.", "compute dtype"),
    _text("verdict", "engine",
          "Engine of quantization-aware training, pruning and clustering; TFMOT for Keras 2, own for Keras 3, empty if "
          "the strategy uses none.", "engine"),
    _text("verdict", "verified", "Whether the file computes in the types that the strategy requires: true or false."),
    _text("verdict", "broken_promise", "Differences between the file and the strategy's expectation."),
    _text("verdict", "partial",
          "Whether some layers stay float although the strategy quantizes the whole model: true or false."),
    _text("verdict", "left_float", "Layers that stay float, with the reasons."),
    _text("verdict", "xnnpack_refusal",
          "Why XNNPACK cannot run the file, which is then measured on LiteRT's own kernels."),
    _text("verdict", "warnings", "Why the baseline is implausible."),
    _share("coverage_ops", "Share of computing ops that compute in integers.", better="higher"),
    _share("coverage_weights", "Share of weights stored as integers.", better="higher"),
    _share("coverage_macs", "Share of multiply-accumulates computed in integers.", better="higher"),
    _share("xnnpack_ops", "Share of computing ops that XNNPACK runs.", better="higher"),
    _number("logit_rmse", "Root mean square difference between the logits of the file and of its Keras model.", "logit",
            "lower"),
    _number("sqnr_min_db", "Lowest signal-to-quantization-noise ratio of an op.", "dB", "higher"),
    _seconds("train_seconds", "Duration of training, baseline and strategy, including epochs from the cache."),
    _seconds("train_seconds_reused", "Training time of the epochs from the cache; part of train_seconds."),
    _count("metric", "epochs_trained", "Epochs trained by this run."),
    _count("metric", "epochs_reused", "Epochs from the cache."),
    _seconds("conversion_seconds", "Duration of the conversion to TFLite."),
    _seconds("evaluation_seconds", "Duration of measuring accuracy and fidelity."),
    _seconds("latency_seconds", "Duration of measuring latency."),
    _seconds("profile_seconds", "Duration of measuring the latency of each op."),
    _seconds("memory_seconds", "Duration of measuring memory."),
    _text("tag", "machine", "Digest of everything that affects latency: CPU, cores, operating system, LiteRT.",
          "machine"),
    _text("tag", "cpu", "CPU of the machine."),
    _text("tag", "git_commit", "Commit of the code."),
    _text("derived", "model_name", "Display name of the model: its option or its file."),
    _text("derived", "dataset_name", "Display name of the data set: its option or its file."),
    *(_text("tag", name, f"Digest of the {what}.")
      for name, what in zip(DIGESTS, ("model", "training data", "test data"), strict=True)),
    _text("tag", "tflite_sha256", "SHA-256 of the file."),
    _text("derived", "settings", "Digest of all settings except the seed and paths."),
    _text("run", "run_id", "MLflow's run id."),
    _text("run", "status", "FINISHED, FAILED, RUNNING or KILLED.", "status"),
    _text("tag", "error", "Why the run failed."),
    _text("comparison", "against", "Strategy of the run that this run is compared with."),
    _text("comparison", "against_run_id", "Id of the run that this run is compared with."),
    replace(
        _score("score_difference", "The metric of the file minus that of the other run's file, on the same examples.",
               interval=True, p_value=True),
        source="comparison",
    ),
    _change("comparison", "accuracy_difference", "Accuracy of the file minus that of the other run's file, on the "
            "same examples.", "Δ accuracy vs {} (pp)"),
    _ratio("ratio", "comparison", "size_against", "Size of the other run's file divided by that of this file.",
           "size ratio vs {}", interval=False),
    _ratio("speedup", "comparison", "speedup_against", "Speedup of this run divided by that of the other run.",
           "speedup vs {}"),
    _count("group", "runs", "Number of runs in the row.", heading="runs"),
    _count("group", "seeds", "Number of different seeds.", heading="seeds"),
    _count("group", "images", "Test examples of each run."),
)  # fmt: skip
SCHEMA = {column.name: column for declared in _DECLARED for column in declared.expand()}


def names(*sources: Source, kinds: tuple[Kind, ...] = (), interval: bool | None = None) -> tuple[str, ...]:
    """Return the columns of these sources and kinds, in order; `interval` selects those with or without one."""
    return tuple(
        column.name
        for column in SCHEMA.values()
        if (not sources or column.source in sources)
        and (not kinds or column.kind in kinds)
        and (interval is None or column.interval == interval)
    )


def heading(name: str, other: str = "") -> str:
    """Return the heading of a column in printed tables; `other` is the strategy that runs are compared with."""
    return SCHEMA[name].heading.format(other)
