"""A summary of a run in a few sentences, which MLflow shows on the page of the run."""

from collections.abc import Mapping
from dataclasses import astuple
from math import nan

from experiments.dataset.named import apart, fields, is_named
from experiments.measure.latency import SAME_FILE
from experiments.measure.rounds import Rounds
from experiments.record.evidence import Scores
from experiments.record.metric import RecordedMetric
from experiments.record.run_record import RunRecord
from experiments.statistics.estimates import Estimate
from experiments.statistics.rounding import percent, points, smaller, three_digits, times
from experiments.system.escaping import markdown_text

SPEEDS = {
    "faster": "faster than",
    "slower": "slower than",
    "equivalent": "within 2 % of the speed of",
    "unclear": "neither significantly faster nor slower than",
}

APART = "\n\n"  # between paragraphs
ENGINES = {"TFMOT": "TensorFlow Model Optimization (Keras 2)", "own": "this package's own (Keras 3)"}


def describe(record: RunRecord, address: str, settings: str = "") -> str:
    """Return Markdown with accuracy, size and speed with their intervals, compute dtype, and how to load the file.

    `address` is that of MLflow's model, and `settings` that of the page with all settings.
    """
    sentences = [
        _warnings(record),
        _accuracy(record),
        _size(record),
        _speed(record),
        _file(record),
        _loading(record, address),
        f"[All settings]({settings}); the parameters are those that differ from the defaults." if settings else "",
    ]
    return APART.join(sentence for sentence in sentences if sentence)


def _warnings(record: RunRecord) -> str:
    return APART.join(f"**Warning**, {warning}" for warning in record.warnings)


def _accuracy(record: RunRecord) -> str:
    change, evidence = record.evidence.change, record.evidence
    if record.latency.verdict == SAME_FILE:
        meaning = "the same file as"
    elif change.low > 0:
        meaning = "higher than that of"
    elif change.high < 0:
        meaning = "lower than that of"
    else:
        meaning = "not significantly different from that of"
    if isinstance(evidence, Scores):
        metric, ratio = RecordedMetric(record.metric), record.metrics().get("output_sqnr_db")
        noise = "equal those" if ratio is None else f"have a signal-to-noise ratio of {ratio:.1f} dB to those"
        return (
            f"**{metric.title} {metric.shown(*astuple(evidence.tflite_score))}{metric.sign}** on "
            f"{evidence.examples:,} test examples: {meaning} the float TFLite model of the same baseline "
            f"({metric.shown_change(*astuple(change))}{' points' if metric.is_share else ''}). Its "
            f"outputs {noise} of its Keras model."
        )
    predictions = record.predictions
    accuracy = percent(*astuple(predictions.tflite_accuracy))
    return (
        f"**{accuracy} % accuracy** on {record.data.test:,} test examples: {meaning} the float "
        f"TFLite model of the same baseline ({points(change)} points). Its prediction equals that of its Keras "
        f"model on {100 * predictions.agreement:.2f} % of them."
    )


def _size(record: RunRecord) -> str:
    file = record.tflite
    ratio = record.reference.bytes / file.bytes
    return f"**{file.bytes:,} bytes**; the float file has {record.reference.bytes:,}: {smaller(ratio)}."


def _speed(record: RunRecord) -> str:
    latency = record.latency
    return _speed_of(latency.verdict, latency.session.void, latency.own.percentile_us(50), latency.speedup)


def with_speed(text: str, metrics: Mapping[str, float], tags: Mapping[str, str], rounds: Rounds) -> str:
    """Return a description with the speed of these rounds, instead of the speed in the recorded metrics and tags.

    The paragraph on the speed is found by the recorded value, whatever its words; a text without it is returned as it
    is, since users may edit descriptions in MLflow.
    """
    recorded = tags.get("latency_void") or _median(metrics.get("latency_p50_us", nan))
    speed = _speed_of(rounds.verdict, rounds.void, rounds.metrics()["latency_p50_us"], rounds.speedup)
    by_state = rounds.by_state()
    if len(by_state) > 1 and not rounds.void and rounds.verdict != SAME_FILE:
        speed += f" The machine had two states: {times(by_state[0])} in the faster, {times(by_state[1])} in the slower."
    if reused := int(rounds.metrics()["latency_rounds_reused"]):
        speed += (
            f" Of its {len(rounds.valid)} rounds of timing, {reused} were measured for earlier runs of the same files."
        )
    return APART.join(speed if recorded in paragraph else paragraph for paragraph in text.split(APART))


def _speed_of(verdict: str, void: str, median_us: float, speedup: Estimate) -> str:
    if verdict == "void":
        return f"Its timing is invalid: {void}."
    if verdict == SAME_FILE:
        return f"{_median(median_us)} an inference (median): the file is identical to the float file."
    return f"{_median(median_us)} an inference (median), {SPEEDS[verdict]} the float file: {times(*astuple(speedup))}."


def _median(us: float) -> str:
    return f"**{three_digits(us)} µs**"


def _file(record: RunRecord) -> str:
    verdict = record.verdict()
    sentences = [f"It computes in {markdown_text(verdict['arithmetic'])}."]
    if record.engine:
        sentences.append(f"Engine of the training: {ENGINES[record.engine]}.")
    if record.broken:
        sentences.append(f"**Does not match the strategy's expectation**: {markdown_text(verdict['broken_promise'])}.")
    if refusal := verdict.get("xnnpack_refusal"):
        sentences.append(f"XNNPACK rejects it ({markdown_text(refusal)}), so LiteRT's own kernels ran it.")
    if verdict["left_float"]:
        sentences.append(f"{markdown_text(verdict['left_float'])}.")
    return " ".join(sentences)


def _loading(record: RunRecord, address: str) -> str:
    load = f'Load it with `mlflow.pyfunc.load_model("{address}")`, without TensorFlow. Its `predict` takes '
    example = record.data.example
    if is_named(example):
        listed = [
            f"{name} (n, {', '.join(map(str, shape))}) {dtype}"
            for name, (dtype, shape) in zip(apart(example), fields(example), strict=True)
        ]
        return f"{load}a dictionary of arrays: {', '.join(listed)}."
    shape = ", ".join(str(length) for length in example.shape[1:])
    return f"{load}an array (n, {shape}) of float32."
