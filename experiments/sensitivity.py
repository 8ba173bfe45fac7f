"""Find the layers that lose accuracy in int8: `python -m experiments.sensitivity [KEY=VALUE ...]`.

For every layer, the command measures two files after training: one with only
this layer in int8, and one with only this layer in float. The table shows
accuracy, logit error and bytes. Then it proposes strategy.layers: the smallest
file whose accuracy is at most max_drop below that of the float file. All choices
are made on the validation split; the test split is not used.

Settings: max_drop=0.002 (share of accuracy), images=2000 (validation images),
folder=sensitivity (output), and these of experiments.run, for the baseline:
dataset, model, epochs, training, seed, threads, cache. With --json, the result is
one JSON document on standard output, and everything else on standard error.

Exit codes: 0 success; 2 invalid command or configuration; 130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # what follows takes seconds

import csv
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeFloat, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass as option
from rich import box
from rich.table import Table

from experiments.model.configuration import layer_names
from experiments.statistics.estimates import Estimate, paired_difference
from experiments.statistics.rounding import points
from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.escaping import spreadsheet_text
from experiments.system.machine import compute_lock
from experiments.system.options import OPTION, describe_errors
from experiments.system.progress import CONSOLE, bar, say
from experiments.system.result import JSON, result

if TYPE_CHECKING:
    from experiments.runs.pipeline import Experiment
    from experiments.task.classification import ClassHead
    from experiments.tflite.conversion import TFLiteModel

Chosen = tuple[str, ...]
Logits = npt.NDArray[np.float32]
EXHAUSTIVE_UP_TO = 6  # layers: 64 files


@option(frozen=True, config=OPTION, kw_only=True)
class Options:
    """The settings of this command, in addition to those of experiments.run."""

    max_drop: NonNegativeFloat = 0.002  # of accuracy, as a share
    images: PositiveInt = 2000
    folder: Path = Path("sensitivity")


@dataclass(frozen=True)
class Measured:
    """A file with exactly the chosen layers in int8, compared with the float file on the same images."""

    chosen: Chosen
    bytes: int
    accuracy: float
    change: Estimate  # of accuracy, paired
    rms_logit_error: float


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


OWN = tuple(Options.__dataclass_fields__)  # settings that are not for Hydra
EFFECTIVE = ("dataset", "model", "epochs", "training", "seed", "threads", "cache")  # Hydra's that have an effect
WITHOUT_EFFECT = {
    "strategy": "this command chooses layers, not a strategy",
    "finetune": "this command trains only the baseline",
    "latency": "this command does not measure latency",
    **dict.fromkeys(("tracking", "resume", "sweep"), "this command records no run"),
}

Measure = Callable[[Collection[str]], Measured]


def find_smallest(units: Chosen, measure: Measure, max_drop: float) -> Measured:
    """Return the smallest file whose accuracy is at most `max_drop` below the float file's.

    With few layers, the search is exhaustive. Otherwise it is greedy: starting from everything in int8, each step moves
    the layer to float that regains the most accuracy per byte (logit error breaks ties), until the bound holds.
    """
    if len(units) <= EXHAUSTIVE_UP_TO:
        subsets = chain.from_iterable(combinations(units, size) for size in range(len(units) + 1))
        good = [file for file in map(measure, subsets) if _within(file, max_drop)]
        return min(good, key=lambda file: (file.bytes, -file.accuracy))
    best = measure(units)
    while not _within(best, max_drop) and best.chosen:
        steps = [measure([unit for unit in best.chosen if unit != spared]) for spared in best.chosen]
        best = max(steps, key=partial(_gain_per_byte, best))
    return best


def _within(file: Measured, max_drop: float) -> bool:
    """Whether a file loses at most `max_drop`; the tolerance is for floating-point rounding."""
    return -file.change.value <= max_drop + 1e-9


def _gain_per_byte(before: Measured, after: Measured) -> tuple[float, float]:
    added = max(1, after.bytes - before.bytes)
    return (after.accuracy - before.accuracy) / added, (before.rms_logit_error - after.rms_logit_error) / added


def measure_layers(experiment: "Experiment", options: Options) -> Findings:
    """Measure every layer of the experiment's baseline, which is trained or loaded from the cache.

    Raises:
        UserError: the data set has no validation images, or the model has no layer that can be chosen.
    """
    from experiments.measure.accuracy import tflite_logits
    from experiments.quantization.engines import engine_of
    from experiments.runs.pipeline import fitted
    from experiments.task.classification import ClassHead
    from experiments.tflite.conversion import Float32, Int8, TFLiteModel, convert
    from experiments.tflite.graph import output_levels

    experiment.dataset.check()
    experiment.model.check()
    if not experiment.model.trainable:
        raise UserError(
            f"model={experiment.setting.model}: requires a Keras model, whose layers can be quantized alone."
        )
    model, data, head = fitted(experiment, experiment.dataset.examples(experiment.task.kind, experiment.task.output))
    if data.output:
        raise UserError(f"model={experiment.setting.model}: requires a model with one output; this one has several.")
    if not isinstance(head, ClassHead):
        raise UserError(f"task={head.task}: requires classification, since layers are chosen by accuracy.")
    if not len(data.validation):
        raise UserError("dataset: requires validation images; layers are never chosen on the test split.")
    survey = engine_of(model).survey(model)
    units = survey.units
    if not units:
        raise UserError(f"model={experiment.setting.model}: requires a layer with weights; there is none to quantize.")
    baseline = experiment.fit(data, experiment.training, "Training the baseline", head)(model).model
    calibration = partial(data.calibration, seed=experiment.setting.seed)
    in_float = convert(baseline, Float32(), calibration).content
    in_int8 = convert(baseline, Int8(500), calibration).content
    chosen = data.validation.sample(options.images)
    x, y = chosen.x[:], chosen.y
    predict = partial(tflite_logits, images=x, threads=experiment.threads)
    in_float_logits = predict(TFLiteModel(in_float))
    score = partial(_score, head, in_float_logits, y)
    measure = _measure(in_float, in_int8, units, layer_names(model), predict, score)
    with bar("Layers", total=2 * len(units)) as advance:

        def measure_each(chosen: Callable[[str], Iterable[str]]) -> dict[str, Measured]:
            found = {}
            for unit in units:
                found[unit] = measure(list(chosen(unit)))
                advance(1)
            return found

        return Findings(
            tuple(units),
            none=measure([]),
            rounded=score((), len(in_float), round_to_levels(in_float_logits, output_levels(in_int8))),
            everything=measure(list(units)),
            alone=measure_each(lambda unit: [unit]),
            spared=measure_each(lambda unit: [other for other in units if other != unit]),
            proposal=find_smallest(tuple(units), measure, options.max_drop),
            untrainable={unit: reason for unit, reason in survey.unsupported.items() if unit in units},
        )


def _measure(
    in_float: bytes,
    in_int8: bytes,
    units: dict[str, Chosen],
    layers: Sequence[str],
    predict: Callable[["TFLiteModel"], Logits],
    score: Callable[[Chosen, int, Logits], Measured],
) -> Measure:
    """Return a function that measures a choice of layers and memoizes the results."""
    from experiments.tflite.conversion import TFLiteModel
    from experiments.tflite.expectation import Expectation, broken
    from experiments.tflite.graph import read_ops
    from experiments.tflite.selective import only

    @cache
    def measured(chosen: Chosen) -> Measured:
        members = frozenset(name for unit in chosen for name in units[unit])
        with compute_lock():
            content = only(in_int8, lambda: in_float, layers, members) if members else in_float
            difference = broken(Expectation("int8", chosen=members), read_ops(content, layers))
            if difference:
                raise UserError(f"The file does not distinguish the layers of this model: {'; '.join(difference)}.")
            return score(chosen, len(content), predict(TFLiteModel(content)))

    return lambda chosen: measured(tuple(unit for unit in units if unit in chosen))


def _score(
    head: "ClassHead", in_float: Logits, y: npt.NDArray[np.int64], chosen: Chosen, size: int, logits: Logits
) -> Measured:
    """Compare logits with those of the float file."""
    correct, correct_in_float = head.answers(logits) == y, head.answers(in_float) == y
    error = logits.astype(np.float64) - in_float
    change = paired_difference(correct, correct_in_float)
    return Measured(chosen, size, float(correct.mean()), change, float(np.sqrt(np.mean(error**2))))


def round_to_levels(values: Logits, levels: npt.NDArray[np.float64]) -> Logits:
    """Round each value to the nearest level; unchanged if there are no levels."""
    if not levels.size:
        return values
    middles = (levels[1:] + levels[:-1]) / 2
    return levels[np.searchsorted(middles, values)].astype(np.float32)


def describe_advice(cost: Mapping[str, float], rounding: float) -> str:
    """Return a sentence about whether the article's advice holds.

    `cost` holds the RMS logit error of each layer alone, in order from the input; `rounding` is that of rounding the
    logits.
    """
    units = list(cost)
    first, last = units[0], units[-1]
    verdict = "holds" if cost[first] > cost[last] else "does not hold"
    return (
        f"The article's advice, to quantize later layers rather than the first, {verdict} here by RMS logit error: "
        f"{cost[first]:.3g} with only {first} in int8, {cost[last]:.3g} with only {last}. Rounding the float logits to "
        f"int8 adds an error of {rounding:.3g}."
    )


def describe_proposal(findings: Findings, options: Options) -> str:
    """Return the proposal to paste into a sweep; strategy=annotate only if all of its layers can be trained."""
    file = findings.proposal
    if not file.chosen:
        return f"No layer can be quantized within max_drop={options.max_drop}: ship the float file."
    layers = f"'strategy.layers=[{','.join(file.chosen)}]'"
    how = "exhaustive search" if len(findings.units) <= EXHAUSTIVE_UP_TO else "greedy search"
    return (
        f"Smallest file within max_drop={options.max_drop} ({how}): {file.bytes:,} bytes, "
        f"accuracy {points(file.change)} points against float. Type one of:\n"
        f"  strategy=ptq_int8 {layers}\n  {_annotating(findings, layers)}"
    )


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
    with reporting_user_errors(), result("sensitivity", JSON in sys.argv[1:]) as found:
        from experiments.runs.configuration import compose_request

        own, others = _split(arguments)
        options, experiment = _options(own), compose_request(others).experiment
        from experiments.system.tensorflow import use_threads

        use_threads(experiment.threads)
        findings = measure_layers(experiment, options)
        _show(findings, options)
        write(findings, options)
        found |= {
            "layers": [
                {"layer": unit, "only_this_in_int8": findings.alone[unit], "only_this_in_float": findings.spared[unit]}
                for unit in findings.units
            ],
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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("layer", "only this in int8:\nΔ accuracy (pp)", "logit error\nRMS", "bytes\nsaved"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for heading in ("only this in float:\nΔ accuracy (pp)", "logit error\nRMS", "bytes\nadded"):
        table.add_column(heading, justify="right")
    ranked = sorted(findings.units, key=lambda unit: -findings.alone[unit].rms_logit_error)
    for unit in ranked:
        alone, spared = findings.alone[unit], findings.spared[unit]
        table.add_row(
            unit, points(alone.change), f"{alone.rms_logit_error:.4f}", f"{findings.none.bytes - alone.bytes:,}",
            points(spared.change), f"{spared.rms_logit_error:.4f}", f"{spared.bytes - findings.everything.bytes:,}",
        )  # fmt: skip
    CONSOLE.print(table)
    everything = findings.everything
    say(
        f"float: {findings.none.bytes:,} bytes, accuracy {100 * findings.none.accuracy:.2f} % on at most "
        f"{options.images} validation images. Changes are relative to it, with paired 95 % intervals. "
        "The most sensitive layer comes first."
    )
    say(
        f"all layers in int8: {everything.bytes:,} bytes, {points(everything.change)} points, logit error "
        f"{everything.rms_logit_error:.4f}"
    )
    cost = {unit: findings.alone[unit].rms_logit_error for unit in findings.units}
    say(describe_advice(cost, findings.rounded.rms_logit_error))
    say(describe_proposal(findings, options))


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
            writer.writerow(COLUMNS)
            for kind, files in (("alone in int8", findings.alone), ("alone in float", findings.spared)):
                writer.writerows([spreadsheet_text(unit), kind, *_values(measured)] for unit, measured in files.items())
            writer.writerow(["everything", "in int8", *_values(findings.everything)])
            writer.writerow(["everything", "in float", *_values(findings.none)])
            writer.writerow(["logits", "rounded to int8", *_values(findings.rounded)])
            writer.writerow(
                [spreadsheet_text(",".join(findings.proposal.chosen)), proposed_within, *_values(findings.proposal)]
            )
        save_sensitivity(
            folder / "sensitivity.png",
            {unit: findings.alone[unit].rms_logit_error for unit in findings.units},
            {unit: everything.rms_logit_error - findings.spared[unit].rms_logit_error for unit in findings.units},
            findings.rounded.rms_logit_error,
        )
    except OSError as error:
        raise UserError(f"folder={folder}: cannot be written ({error}).") from error
    say(f"wrote {folder / 'sensitivity.csv'} and {folder / 'sensitivity.png'}")


COLUMNS = ("layer", "what", "bytes", "accuracy", "accuracy_change", "low", "high", "rms_logit_error")


def _values(file: Measured) -> list[object]:
    change = file.change
    return [file.bytes, file.accuracy, change.value, change.low, change.high, file.rms_logit_error]


if __name__ == "__main__":
    main()
