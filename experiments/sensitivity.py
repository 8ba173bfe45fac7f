"""Find the layers that int8 harms most: `python -m experiments.sensitivity [KEY=VALUE ...]`.

For every layer, the command measures two files after training: one with only
this layer in int8, and one with only this layer in float. The table shows the
metric of the task, such as accuracy, the error of the outputs, and bytes. Then it
proposes strategy.layers: the smallest file that is at most max_drop worse than the
float file. All choices are made on the validation split; the test split is not used.

Settings: max_drop=0.002 (accuracy and other shares: 0.2 points; errors such as MAE:
0.2 % of that of the float file), images=2000 (validation examples),
folder=sensitivity (output), and these of experiments.run, for the baseline:
dataset, model, task, epochs, training, seed, threads, cache. With --json, the result is
one JSON document on standard output, and everything else on standard error.

Exit codes: 0 success; 2 invalid command or configuration; 130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # the imports below take seconds

import csv
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeFloat, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass as option
from rich import box
from rich.measure import Measurement
from rich.table import Table

from experiments.dataset import Split
from experiments.model.configuration import layer_names
from experiments.record.metric import RecordedMetric
from experiments.statistics.bootstrap import difference_over_seeds
from experiments.statistics.estimates import Estimate, paired_difference
from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.escaping import spreadsheet_text
from experiments.system.machine import compute_lock
from experiments.system.options import OPTION, describe_errors
from experiments.system.progress import CONSOLE, bar, say
from experiments.system.result import JSON, result

if TYPE_CHECKING:
    from experiments.runs.experiment import Experiment
    from experiments.task import Head
    from experiments.tflite.conversion import TFLiteModel

Chosen = tuple[str, ...]
Outputs = npt.NDArray[np.float32]
EXHAUSTIVE_UP_TO = 6  # layers: 64 files


@option(frozen=True, config=OPTION, kw_only=True)
class Options:
    """The settings of this command, in addition to those of experiments.run."""

    max_drop: NonNegativeFloat = 0.002  # of the metric; of one with a unit, a share of the float file's value
    images: PositiveInt = 2000
    folder: Path = Path("sensitivity")


@dataclass(frozen=True)
class Measured:
    """A file with exactly the chosen layers in int8, compared with the float file on the same examples."""

    chosen: Chosen
    bytes: int
    score: float  # the metric of the task
    change: Estimate  # of the score, paired
    lost: float  # how much worse the score is; negative if it is better
    rms_logit_error: float  # of the outputs, whatever they mean


@dataclass(frozen=True)
class Findings:
    """The measurements of one model."""

    units: Chosen  # the layers to choose from, in order from the input
    none: Measured  # everything in float
    rounded: Measured  # everything in float, with logits rounded to the int8 file's output levels
    everything: Measured  # everything in int8
    alone: dict[str, Measured]  # the layer in int8, all others in float
    spared: dict[str, Measured]  # the layer in float, all others in int8
    proposal: Measured
    untrainable: dict[str, str]  # layers that can only be quantized after training, and why
    examples: int  # of the validation split, which were used
    metric: RecordedMetric = field(default_factory=RecordedMetric)

    @property
    def error(self) -> str:
        """The error of the outputs in headings and sentences."""
        return "logit error" if self.metric.is_accuracy else "output error"

    def shown_error(self, file: Measured) -> str:
        """Format the error of the outputs, which have a unit of their own if they are not logits."""
        return f"{file.rms_logit_error:.4f}" if self.metric.is_accuracy else f"{file.rms_logit_error:.3g}"


OWN = tuple(Options.__dataclass_fields__)  # settings that are not for Hydra
EFFECTIVE = ("dataset", "model", "task", "epochs", "training", "seed", "threads", "cache")  # of Hydra
WITHOUT_EFFECT = {
    "strategy": "this command chooses layers, not a strategy",
    "finetune": "this command trains only the baseline",
    "latency": "this command does not measure latency",
    **dict.fromkeys(("tracking", "resume", "sweep"), "this command records no run"),
}

Measure = Callable[[Collection[str]], Measured]


def find_smallest(units: Chosen, measure: Measure, max_drop: float) -> Measured:
    """Return the smallest file whose score is at most `max_drop` worse than that of the float file.

    With few layers, the search is exhaustive. Otherwise it is greedy: starting from everything in int8, each step moves
    the layer to float that regains the most per byte (the error of the outputs breaks ties), until the bound holds.
    """
    if len(units) <= EXHAUSTIVE_UP_TO:
        subsets = chain.from_iterable(combinations(units, size) for size in range(len(units) + 1))
        good = [file for file in map(measure, subsets) if _within(file, max_drop)]
        return min(good, key=lambda file: (file.bytes, file.lost))
    best = measure(units)
    while not _within(best, max_drop) and best.chosen:
        steps = [measure([unit for unit in best.chosen if unit != spared]) for spared in best.chosen]
        best = max(steps, key=partial(_gain_per_byte, best))
    return best


def _within(file: Measured, max_drop: float) -> bool:
    """Whether a file loses at most `max_drop`; the tolerance is for floating-point rounding."""
    return file.lost <= max_drop + 1e-9 * max(1.0, abs(file.score))


def _gain_per_byte(before: Measured, after: Measured) -> tuple[float, float]:
    added = max(1, after.bytes - before.bytes)
    return (before.lost - after.lost) / added, (before.rms_logit_error - after.rms_logit_error) / added


def measure_layers(experiment: "Experiment", options: Options) -> Findings:
    """Measure every layer of the experiment's baseline, which is trained or loaded from the cache.

    Raises:
        UserError: the data set has no validation images, or the model has no layer that can be chosen.
    """
    from experiments.dataset.arrays import kept, parts_of, row_bytes
    from experiments.dataset.rows import AT_ONCE_BYTES
    from experiments.measure.accuracy import tflite_parts
    from experiments.quantization.engines import engine_of
    from experiments.runs.pipeline import build_with_data, examples_of
    from experiments.runs.trainings import trainer
    from experiments.tflite.conversion import convert
    from experiments.tflite.graph import output_levels
    from experiments.tflite.schemes import Float32, Int8

    experiment.dataset.check()
    experiment.model.check()
    if not experiment.model.trainable:
        raise UserError(
            f"model={experiment.setting.model}: requires a Keras model, whose layers can be quantized alone."
        )
    model, data, head = build_with_data(experiment, examples_of(experiment))
    if data.output:
        raise UserError(f"model={experiment.setting.model}: requires a model with one output; this one has several.")
    if not len(data.validation):
        raise UserError("dataset: requires validation examples; layers are never chosen on the test split.")
    survey = engine_of(model).survey(model)
    units = survey.units
    if not units:
        raise UserError(f"model={experiment.setting.model}: requires a layer with weights; there is none to quantize.")
    baseline = trainer(experiment, data, experiment.training, "Training the baseline", head)(model).model
    calibration = partial(data.calibration, seed=experiment.setting.seed)
    float_file = convert(baseline, Float32(), calibration)
    in_float = float_file.content
    in_int8 = convert(baseline, Int8(500), calibration, float_file).content
    chosen = data.validation.sample(options.images)
    small = len(chosen) * row_bytes(chosen.x) <= AT_ONCE_BYTES
    images = chosen.x[:] if small else chosen.x

    def predict(file: "TFLiteModel") -> Outputs:
        return kept(tflite_parts(file, images, experiment.threads), len(chosen))

    outputs_in_float = predict(float_file)
    metric = head.validation_metric
    score = partial(_score, _compared(head, chosen, outputs_in_float), outputs_in_float)
    measure = _measure(in_float, in_int8, units, layer_names(model), predict, score)
    recorded = RecordedMetric(metric.name, metric.better) if metric else RecordedMetric()
    nothing = measure([])
    allowed = recorded.margin(options.max_drop, nothing.score)
    levels = output_levels(in_int8)
    rounded = (round_to_levels(part, levels) for part in parts_of(outputs_in_float))
    with bar("Layers", total=2 * len(units)) as advance:

        def measure_each(chosen: Callable[[str], Iterable[str]]) -> dict[str, Measured]:
            found = {}
            for unit in units:
                found[unit] = measure(list(chosen(unit)))
                advance(1)
            return found

        return Findings(
            tuple(units),
            none=nothing,
            rounded=score((), len(in_float), kept(rounded, len(chosen))),
            everything=measure(list(units)),
            alone=measure_each(lambda unit: [unit]),
            spared=measure_each(lambda unit: [other for other in units if other != unit]),
            proposal=find_smallest(tuple(units), measure, allowed),
            untrainable={unit: reason for unit, reason in survey.unsupported.items() if unit in units},
            examples=len(chosen),
            metric=recorded,
        )


def _measure(
    in_float: bytes,
    in_int8: bytes,
    units: dict[str, Chosen],
    layers: Sequence[str],
    predict: Callable[["TFLiteModel"], Outputs],
    score: Callable[[Chosen, int, Outputs], Measured],
) -> Measure:
    """Return a function that measures a choice of layers and memoizes the results."""
    from experiments.tflite.conversion import TFLiteModel
    from experiments.tflite.expectation import Expectation, broken
    from experiments.tflite.graph import read_ops
    from experiments.tflite.selective import restrict_to_layers

    @cache
    def measured(chosen: Chosen) -> Measured:
        members = frozenset(name for unit in chosen for name in units[unit])
        with compute_lock():
            content = restrict_to_layers(in_int8, lambda: in_float, layers, members) if members else in_float
            difference = broken(Expectation("int8", chosen=members), read_ops(content, layers))
            if difference:
                raise UserError(f"The file does not distinguish the layers of this model: {'; '.join(difference)}.")
            return score(chosen, len(content), predict(TFLiteModel(content)))

    return lambda chosen: measured(tuple(unit for unit in units if unit in chosen))


Compared = Callable[[Outputs], tuple[float, Estimate, float]]  # returns score, change and loss against the float file


def _compared(head: "Head", examples: Split, in_float: Outputs) -> Compared:
    """Return a function that compares outputs with those of the float file by the metric of the task.

    Raises:
        UserError: the metric has no value on these examples.
    """
    from experiments.task.classification import ClassHead

    if (metric := head.validation_metric) is None:
        assert isinstance(head, ClassHead)
        right = head.predict(in_float) == examples.y

        def by_accuracy(outputs: Outputs) -> tuple[float, Estimate, float]:
            correct = head.predict(outputs) == examples.y
            change = paired_difference(correct, right)
            return float(correct.mean()), change, -change.value

        return by_accuracy
    before, sign, units = metric.replicates(in_float, examples), -1 if metric.better == "higher" else 1, len(examples)
    if not np.isfinite(before[0]):
        raise UserError(
            f"task={head.task}: its metric, {metric.title}, has no value on {units:,} validation examples, which may "
            "lack a class. Use more of them (images=), or more training examples, from which they are taken."
        )

    def by_metric(outputs: Outputs) -> tuple[float, Estimate, float]:
        after = metric.replicates(outputs, examples)
        change = difference_over_seeds(after[np.newaxis], before[np.newaxis], units)[0]
        return float(after[0]), change, sign * change.value

    return by_metric


def _score(compared: Compared, in_float: Outputs, chosen: Chosen, size: int, outputs: Outputs) -> Measured:
    """Compare the outputs of a file with those of the float file."""
    from experiments.measure.fidelity import errors

    score, change, lost = compared(outputs)
    return Measured(chosen, size, score, change, lost, errors(outputs, in_float)[0])


def round_to_levels(values: Outputs, levels: npt.NDArray[np.float64]) -> Outputs:
    """Round each value to the nearest level; unchanged if there are no levels."""
    if not levels.size:
        return values
    middles = (levels[1:] + levels[:-1]) / 2
    return levels[np.searchsorted(middles, values)].astype(np.float32)


def describe_advice(cost: Mapping[str, float], rounding: float, error: str = "logit error") -> str:
    """Return a sentence about whether the article's advice holds.

    `cost` holds the RMS error of the outputs with each layer alone, in order from the input; `rounding` is that of
    rounding the outputs.
    """
    units = list(cost)
    first, last = units[0], units[-1]
    verdict = "holds" if cost[first] > cost[last] else "does not hold"
    return (
        f"The article's advice, to quantize later layers rather than the first, {verdict} here by RMS {error}: "
        f"{cost[first]:.3g} with only {first} in int8, {cost[last]:.3g} with only {last}. Rounding the float "
        f"{error.partition(' ')[0]}s to int8 adds an error of {rounding:.3g}."
    )


def describe_proposal(findings: Findings, options: Options) -> str:
    """Return the proposal to paste into a sweep; strategy=annotate only if all of its layers can be trained."""
    file = findings.proposal
    metric, none = findings.metric, findings.none
    within = f"max_drop={options.max_drop}, which is {metric.margin_text(metric.margin(options.max_drop, none.score))}"
    if not file.chosen:
        return f"No layer can be quantized within {within}: ship the float file."
    layers = f"'strategy.layers=[{','.join(file.chosen)}]'"
    how = "exhaustive search" if len(findings.units) <= EXHAUSTIVE_UP_TO else "greedy search"
    return (
        f"Smallest file within {within} ({how}): {file.bytes:,} bytes, "
        f"{_change(metric, file)} against float. Type one of:\n"
        f"  strategy=ptq_int8 {layers}\n  {_annotating(findings, layers)}"
    )


def _change(metric: RecordedMetric, file: Measured) -> str:
    """Describe the change of a file's score, such as accuracy +0.10 [-0.18, +0.38] points."""
    change = metric.change(metric.gain(file.change))
    return f"{metric.title} {change}" if metric.is_share else change


def _annotating(findings: Findings, layers: str) -> str:
    reasons = findings.untrainable
    refused = [f"{unit} ({reasons[unit]})" for unit in findings.proposal.chosen if unit in reasons]
    if refused:
        return f"(strategy=annotate is not possible: {'; '.join(refused)})"
    return f"strategy=annotate {layers}"


def main() -> None:
    """Run the command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(f"{__doc__}\n")
        return
    arguments = [each for each in sys.argv[1:] if each != JSON]
    with reporting_user_errors(), result("sensitivity", JSON in sys.argv[1:]) as document:
        from experiments.runs.configuration import compose_request

        own, others = _split(arguments)
        options, experiment = _options(own), compose_request(others).experiment
        from experiments.system.tensorflow import use_threads

        use_threads(experiment.threads)
        findings = measure_layers(experiment, options)
        _show(findings, options)
        write(findings, options)
        document |= {
            "layers": [
                {"layer": unit, "only_this_in_int8": findings.alone[unit], "only_this_in_float": findings.spared[unit]}
                for unit in findings.units
            ],
            "metric": findings.metric.name,
            "metric_better": findings.metric.better,
            "all_in_float": findings.none,
            "all_in_int8": findings.everything,
            "proposal": findings.proposal,
            "untrainable": findings.untrainable,
        }


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split the arguments into this command's settings and those for Hydra."""
    own = {name: value for name, _, value in (argument.partition("=") for argument in arguments) if name in OWN}
    others = [argument for argument in arguments if argument.partition("=")[0] not in OWN]
    for argument in others:
        group = re.split(r"[.=@]", argument.lstrip("+~"))[0]
        if reason := WITHOUT_EFFECT.get(group):
            raise UserError(f"{argument}: has no effect; {reason}. Known: {', '.join([*EFFECTIVE, *OWN])}.")
    return own, others


def _options(given: dict[str, str]) -> Options:
    try:
        return Options(**given)  # type: ignore[arg-type]  # pydantic reads text
    except ValidationError as error:
        raise UserError(describe_errors("", error)) from error


def _show(findings: Findings, options: Options) -> None:
    whole = _table(findings, HALVES)
    fits = Measurement.get(CONSOLE, CONSOLE.options.update(width=WIDEST), whole).maximum <= CONSOLE.width
    for table in [whole] if fits else [_table(findings, [half]) for half in HALVES]:
        CONSOLE.print(table)
    metric, error = findings.metric, findings.error
    none, everything = findings.none, findings.everything
    say(
        f"float: {none.bytes:,} bytes, {metric.title} {metric.shown(none.score)}{' %' if metric.is_share else ''} on "
        f"{findings.examples:,} validation examples, {metric.better} is better. Changes are relative to it, with "
        "paired 95 % intervals. The most sensitive layer comes first."
    )
    say(
        f"all layers in int8: {everything.bytes:,} bytes, {_change(metric, everything)}, {error} "
        f"{findings.shown_error(everything)}"
    )
    cost = {unit: findings.alone[unit].rms_logit_error for unit in findings.units}
    say(describe_advice(cost, findings.rounded.rms_logit_error, error))
    say(describe_proposal(findings, options))


HALVES = ("int8", "float")  # of the table: in what only the layer of the row is
WIDEST = 1000  # characters that a table could have


def _table(findings: Findings, halves: Sequence[str]) -> Table:
    """Return the table of the layers, or half of it, the most sensitive layer first."""
    metric = findings.metric
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", no_wrap=True, overflow="fold")
    for half in halves:
        table.add_column(f"only this in {half}:\nΔ {metric.title}{metric.unit_of_change}", justify="right")
        table.add_column(f"{findings.error}\nRMS", justify="right")
        table.add_column("bytes\nsaved" if half == "int8" else "bytes\nadded", justify="right")
    for unit in sorted(findings.units, key=lambda unit: -findings.alone[unit].rms_logit_error):
        cells = [each for half in halves for each in _cells(findings, half, unit)]
        table.add_row(unit, *cells)
    return table


def _cells(findings: Findings, half: str, unit: str) -> tuple[str, str, str]:
    if half == "int8":
        file = findings.alone[unit]
        difference = findings.none.bytes - file.bytes
    else:
        file = findings.spared[unit]
        difference = file.bytes - findings.everything.bytes
    change = findings.metric.shown_change(file.change.value, file.change.low, file.change.high)
    return change.replace(" [", "\n["), findings.shown_error(file), f"{difference:,}"


def write(findings: Findings, options: Options) -> None:
    """Write the table sensitivity.csv and the plot sensitivity.png into the folder.

    Raises:
        UserError: the folder is not writable.
    """
    from experiments.plots.sensitivity import save_sensitivity

    everything, folder = findings.everything, options.folder
    proposed_within = f"proposed within max_drop={options.max_drop}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "sensitivity.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            name = findings.metric.name
            writer.writerow(["layer", "what", "bytes", name, f"{name}_change", "low", "high", "rms_logit_error"])
            for kind, files in (("alone in int8", findings.alone), ("alone in float", findings.spared)):
                writer.writerows([spreadsheet_text(unit), kind, *_values(measured)] for unit, measured in files.items())
            writer.writerow(["everything", "in int8", *_values(findings.everything)])
            writer.writerow(["everything", "in float", *_values(findings.none)])
            writer.writerow([findings.error.partition(" ")[0] + "s", "rounded to int8", *_values(findings.rounded)])
            writer.writerow(
                [spreadsheet_text(",".join(findings.proposal.chosen)), proposed_within, *_values(findings.proposal)]
            )
        save_sensitivity(
            folder / "sensitivity.png",
            {unit: findings.alone[unit].rms_logit_error for unit in findings.units},
            {unit: everything.rms_logit_error - findings.spared[unit].rms_logit_error for unit in findings.units},
            findings.rounded.rms_logit_error,
            findings.error,
        )
    except OSError as error:
        raise UserError(f"folder={folder}: cannot be written ({error}).") from error
    say(f"wrote {folder / 'sensitivity.csv'} and {folder / 'sensitivity.png'}")


def _values(file: Measured) -> list[object]:
    change = file.change
    return [file.bytes, file.score, change.value, change.low, change.high, file.rms_logit_error]


if __name__ == "__main__":
    main()
