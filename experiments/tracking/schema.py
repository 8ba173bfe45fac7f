"""The columns of a table of runs: what each is, in which unit, what people read above it, and when it is better.

Whoever needs to know which columns are shares, counts, times or texts asks here: what reads a store, tables, gates, the
report, and the page docs/reference/columns.md. The names are those of MLflow's metrics and tags.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from experiments.record.identity import DIGESTS
from experiments.statistics.rounding import percent, signed_percent, three_digits, times, whole

# share: 0 to 1. change: of a share. count: a whole number. ratio: of two measurements. speedup: a ratio of times of
# inference. time: of an inference. number: anything else that can be computed with.
Kind = Literal["text", "count", "share", "change", "ratio", "speedup", "time", "number"]
# setting, metric, verdict, tag, run: what a store holds of a run, and where. derived: made from several of these.
# comparison: of a table whose runs are compared with those of one strategy. group: of one whose rows are several runs.
Source = Literal["setting", "metric", "verdict", "tag", "run", "derived", "comparison", "group"]
Better = Literal["higher", "lower", ""]
ENDS = {"_low": "Lower end of the 95 % interval of", "_high": "Upper end of the 95 % interval of"}


@dataclass(frozen=True)
class Column:
    """A column. Only those with a heading stand in tables for people, each by its formatter."""

    name: str
    kind: Kind
    source: Source
    doc: str
    unit: str = ""
    heading: str = ""  # with a place {} for the strategy that the runs are compared with
    better: Better = ""
    formatter: Callable[..., str] = str  # of the value and, where it has an interval, of its ends
    interval: bool = False  # whether NAME_low and NAME_high are columns, too
    p_value: bool = False  # whether NAME_p is
    of: str = ""  # the column whose interval or p-value this belongs to

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return self.kind != "text"

    @property
    def timing(self) -> bool:
        """Whether it holds times of inference, or ratios of them: these mean nothing between machines."""
        return self.kind in ("time", "speedup")

    def with_its_own(self) -> Iterator["Column"]:
        """The column, the ends of its interval, and its p-value."""
        yield self
        plain = replace(self, heading="", interval=False, p_value=False, of=self.name)
        if self.interval:
            for end, doc in ENDS.items():
                yield replace(plain, name=f"{self.name}{end}", doc=f"{doc} {self.name}.")
        if self.p_value:
            doc = f"McNemar's exact test of {self.name}: how likely so large a difference is by chance."
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


def _number(name: str, doc: str, unit: str = "", better: Better = "") -> Column:
    return Column(name, "number", "metric", doc, unit, better=better, formatter=three_digits)


def _ratio(
    kind: Kind, source: Source, name: str, doc: str, heading: str = "", better: Better = "higher", interval: bool = True
) -> Column:
    return Column(name, kind, source, doc, "ratio", heading, better, times, interval)


def _change(source: Source, name: str, doc: str, heading: str) -> Column:
    return Column(
        name, "change", source, doc, "share, -1 to 1", heading, "higher", signed_percent, interval=True, p_value=True
    )


_DECLARED = (
    _text("setting", "strategy", "What is done to the baseline, and how it is converted.", "strategy"),
    _text("setting", "model", "The option of the model.", "model"),
    _text("setting", "dataset", "The option of the data set.", "dataset"),
    _count("setting", "epochs", "Epochs of the baseline.", heading="epochs"),
    _count("setting", "finetune_epochs", "Further epochs by the strategy; 0 where it trains nothing."),
    _count("setting", "seed", "Seed of the initial weights, the order of the examples and the split.", heading="seed"),
    _share("keras_accuracy", "Accuracy of the Keras model after the strategy.", "Keras accuracy (%)", "higher"),
    _share(
        "tflite_accuracy", "Accuracy of the file.", "TFLite accuracy (%)", "higher", interval=True
    ),
    _change(
        "metric", "accuracy_change",
        "Accuracy of the file minus that of the float TFLite model of the same baseline, on the same examples.",
        "Δ accuracy (pp)",
    ),
    _share("agreement", "Test examples for which the file and its Keras model give the same class.", "agreement (%)",
           "higher"),
    _count("metric", "tflite_bytes", "Size of the file.", "bytes", "bytes", "lower"),
    _count("metric", "tflite_gzip_bytes", "Size of the file after gzip.", "bytes", better="lower"),
    _ratio("ratio", "metric", "size_ratio", "Size of the float file over that of this one.", "size ratio",
           interval=False),
    _latency("latency_p50_us", "Median time of one inference.", "latency p50 (µs)"),
    _latency("latency_p90_us", "The 90th percentile of the time of one inference."),
    _latency("latency_p99_us", "The 99th percentile of the time of one inference."),
    _latency("latency_min_us", "Shortest inference."),
    _latency("latency_first_us", "First inference of a fresh interpreter."),
    _latency("latency_load_us", "Making an interpreter of the file."),
    _ratio("speedup", "metric", "speedup",
           "Latency of the float file over that of this one, timed in turns in the same process.", "speedup"),
    _text("verdict", "speed",
          "What the speedup means: faster, slower, equivalent (within 2 %), unclear, same file; void is shown as "
          "invalid.", "speed"),
    _ratio("ratio", "metric", "sentinel", "Latency of the float file over that of a copy of itself: 1 but for noise.",
           better=""),
    _text("verdict", "latency_void", "Why the timing is invalid; empty where it counts."),
    _count("metric", "latency_replicates", "Fresh interpreters that were timed."),
    _number("latency_other_cores", "Cores that other processes kept busy meanwhile.", "cores"),
    _number("latency_steal_cores", "Cores that the hypervisor gave to others meanwhile.", "cores"),
    _number("load_before", "Load average when timing began."),
    _number("load_after", "Load average when timing ended."),
    _number("memory_peak_kib", "Peak memory of a process that runs the file with LiteRT.", "KiB", "lower"),
    _number("memory_model_kib", "Of that, what the file took.", "KiB", "lower"),
    _count("metric", "arena_bytes", "Arena that LiteRT for microcontrollers needs.", "bytes", "micro arena (bytes)",
           "lower"),
    _text("verdict", "runs_on_micro", "Whether LiteRT for microcontrollers runs the file: yes, or why not."),
    _text("verdict", "arithmetic", "How many computing ops compute in which types.", "compute dtype"),
    _text("verdict", "verified", "Whether the file computes in the types that the strategy says: true or false."),
    _text("verdict", "broken_promise", "Where the file differs from what the strategy says."),
    _text("verdict", "partial", "Whether layers stay float that the strategy would quantize: true or false."),
    _text("verdict", "left_float", "Which layers stay float, and why."),
    _text("verdict", "xnnpack_refusal", "Why XNNPACK cannot run the file; LiteRT's own kernels did."),
    _text("verdict", "warnings", "Why the baseline cannot be right."),
    _share("coverage_ops", "Computing ops that compute in integers.", better="higher"),
    _share("coverage_weights", "Weights stored in integers.", better="higher"),
    _share("coverage_macs", "Multiply-accumulates computed in integers.", better="higher"),
    _share("xnnpack_ops", "Computing ops that XNNPACK takes.", better="higher"),
    _number("logit_rmse", "Root mean square difference of the logits of the file and its Keras model.", "logit",
            "lower"),
    _number("sqnr_min_db", "Least signal-to-quantization-noise ratio of any op.", "dB", "higher"),
    _seconds("train_seconds", "Training of baseline and strategy, whenever it was done."),
    _seconds("train_seconds_reused", "Of that, epochs taken from the cache."),
    _count("metric", "epochs_trained", "Epochs trained by this run."),
    _count("metric", "epochs_reused", "Epochs taken from the cache."),
    _seconds("conversion_seconds", "Conversion to TFLite."),
    _seconds("evaluation_seconds", "Accuracy and fidelity."),
    _seconds("latency_seconds", "Timing."),
    _seconds("profile_seconds", "Timing of single ops."),
    _seconds("memory_seconds", "Measuring memory."),
    _text("tag", "machine", "Digest of all that decides latencies: CPU, cores, system, LiteRT.", "machine"),
    _text("tag", "cpu", "The CPU."),
    _text("tag", "git_commit", "Commit of the code."),
    _text("derived", "model_name", "What the model is called: its option, or its file."),
    _text("derived", "dataset_name", "What the data set is called: its option, or its file."),
    *(_text("tag", name, f"Digest of the {what}.")
      for name, what in zip(DIGESTS, ("model", "training data", "test data"), strict=True)),
    _text("tag", "tflite_sha256", "SHA-256 of the file."),
    _text("derived", "settings", "Digest of all settings but the seed and places."),
    _text("run", "run_id", "MLflow's id of the run."),
    _text("run", "status", "FINISHED, FAILED, RUNNING or KILLED.", "status"),
    _text("tag", "error", "Why the run failed."),
    _text("comparison", "against", "The strategy whose run this one is compared with."),
    _text("comparison", "against_run_id", "The run that this one is compared with."),
    _change("comparison", "accuracy_difference", "Accuracy of the file minus that of the other run's, on the same "
            "examples.", "Δ accuracy vs {} (pp)"),
    _ratio("ratio", "comparison", "size_against", "Size of the other run's file over that of this one.",
           "size ratio vs {}", interval=False),
    _ratio("speedup", "comparison", "speedup_against", "Speedup of this run over that of the other.", "speedup vs {}"),
    _count("group", "runs", "Runs that the row stands for.", heading="runs"),
    _count("group", "seeds", "Different seeds among them.", heading="seeds"),
    _count("group", "images", "Test examples of each."),
)  # fmt: skip
SCHEMA = {column.name: column for declared in _DECLARED for column in declared.with_its_own()}


def names(*sources: Source, kinds: tuple[Kind, ...] = (), interval: bool | None = None) -> tuple[str, ...]:
    """The columns of these sources and kinds, in their order; `interval` leaves those with, or without, one."""
    return tuple(
        column.name
        for column in SCHEMA.values()
        if (not sources or column.source in sources)
        and (not kinds or column.kind in kinds)
        and (interval is None or column.interval == interval)
    )


def heading(name: str, other: str = "") -> str:
    """What stands above a column in a table for people; `other` is the strategy that runs are compared with."""
    return SCHEMA[name].heading.format(other)
