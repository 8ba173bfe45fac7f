"""A summary of a run in a few sentences, which MLflow shows on the page of the run."""

from dataclasses import astuple

from experiments.measure.latency import SAME_FILE
from experiments.record.run_record import RunRecord
from experiments.statistics.rounding import percent, points, three_digits, times
from experiments.system.escaping import markdown_text

SPEEDS = {
    "faster": "faster than",
    "slower": "slower than",
    "equivalent": "within 2 % of the speed of",
    "unclear": "neither significantly faster nor slower than",
}

ENGINES = {"TFMOT": "TensorFlow Model Optimization (Keras 2)", "own": "this package's own (Keras 3)"}


def describe(record: RunRecord, address: str) -> str:
    """Return Markdown with accuracy, size and speed with their intervals, compute dtype, and how to load the file."""
    sentences = [
        _warnings(record),
        _accuracy(record),
        _size(record),
        _speed(record),
        _file(record),
        _loading(record, address),
    ]
    return "\n\n".join(sentence for sentence in sentences if sentence)


def _warnings(record: RunRecord) -> str:
    return "\n\n".join(f"**Warning**, {warning}" for warning in record.warnings)


def _accuracy(record: RunRecord) -> str:
    change = record.answers.change
    if record.latency.verdict == SAME_FILE:
        meaning = "the same file as"
    elif change.low > 0:
        meaning = "higher than that of"
    elif change.high < 0:
        meaning = "lower than that of"
    else:
        meaning = "not significantly different from that of"
    accuracy = percent(*astuple(record.answers.tflite_accuracy))
    return (
        f"**{accuracy} % accuracy** on {record.data.test:,} test images: {meaning} the float "
        f"TFLite model of the same baseline ({points(change)} points). Its prediction equals that of its Keras "
        f"model on {100 * record.answers.agreement:.2f} % of the images."
    )


def _size(record: RunRecord) -> str:
    file = record.tflite
    smaller = times(record.reference_bytes / file.bytes)
    return f"**{file.bytes:,} bytes**; the float file has {record.reference_bytes:,}: {smaller} smaller."


def _speed(record: RunRecord) -> str:
    latency = record.latency
    if latency.verdict == "void":
        return f"Its timing is invalid: {latency.session.void}."
    median = three_digits(latency.own.percentile_us(50))
    if latency.verdict == SAME_FILE:
        return f"**{median} µs** per image (median): the file is identical to the float file."
    return (
        f"**{median} µs** per image (median), {SPEEDS[latency.verdict]} the float file: "
        f"{times(*astuple(latency.speedup))}."
    )


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
    shape = ", ".join(str(length) for length in record.data.example.shape[1:])
    return (
        f'Load it with `mlflow.pyfunc.load_model("{address}")`, without TensorFlow. Its `predict` takes images (n, '
        f"{shape}) float32."
    )
