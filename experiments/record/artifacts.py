"""The artifacts of a run: written when it finishes, and read when runs are compared."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from experiments.measure.changes import Changed
from experiments.measure.fidelity import Gap, OpNoise
from experiments.measure.latency import Session
from experiments.measure.op_profile import OpTime
from experiments.measure.rounds import JointRounds, Rounds
from experiments.record.evidence import Evidence, Predictions, Scores
from experiments.record.run_record import RunRecord
from experiments.statistics.bootstrap import RESAMPLES
from experiments.system.errors import UserError, first_line
from experiments.system.escaping import from_spreadsheet_text, spreadsheet_text
from experiments.system.files import ARCHIVE_DAMAGE
from experiments.system.progress import warn_once
from experiments.tflite.graph import Op

RECORD = "record.json"
SAMPLES = "latency_samples.csv.gz"
SAMPLE_COLUMNS = "file,replicate,nanoseconds"
LAYERS = "layers.csv"  # every op of the TFLite file
ROUNDS = "latency_rounds.json"  # the timing: medians of each replicate, by round
FLOAT = "reference.tflite"  # the float file that the run's file is timed against; missing if it is the run's own
CHANGED = "changed.npz"  # test images whose prediction differs from that of the float model
CLASSES = "classes.csv"  # the label of each class number
PREDICTIONS = "predictions.csv"  # the models' predictions for each test image
SCORES = "scores.npz"  # instead, for other metrics than accuracy: the values on resamples of the examples
MODEL = "model.tflite"
CONFIGURATION = "config.yaml"
# Artifacts that later commands read; without any of them a run is incomplete.
NEEDED = (MODEL, RECORD, CONFIGURATION, LAYERS, SAMPLES, CHANGED)
EVIDENCE = (PREDICTIONS, SCORES)  # one of them is needed as well
PREDICTED = "truth,keras,tflite,float_reference"

OP_FIELDS = tuple(field.name for field in fields(Op) if field.name not in ("inputs", "outputs"))
LAYER_COLUMNS = (*OP_FIELDS, "arithmetic", "xnnpack")
SHOWN = ("layer", "op", "arithmetic", "weights", "weights_bytes", "macs", "xnnpack")  # columns in a report
MOST_BYTES = 2**28  # unpacked size; real files are a thousand times smaller
LARGEST = 1e300  # larger losses are invalid
T = TypeVar("T")


def write_artifacts(folder: Path, record: RunRecord, configuration: str) -> None:
    """Write the artifacts of a run: model, record, ops, raw timings, predictions and configuration."""
    (folder / MODEL).write_bytes(record.tflite.content)
    (folder / RECORD).write_text(json.dumps(record.as_json(), indent=2))
    (folder / CONFIGURATION).write_text(configuration, encoding="utf-8")
    if record.data.labels:
        (folder / CLASSES).write_text(class_table(record.data.labels), encoding="utf-8")
    (folder / LAYERS).write_text(layer_table(record.ops, record.delegated), encoding="utf-8")
    (folder / "fidelity.csv").write_text(_table_of(Gap, record.gaps), encoding="utf-8")
    (folder / "signal_to_noise.csv").write_text(_table_of(OpNoise, record.op_noise), encoding="utf-8")
    (folder / "profile.csv").write_text(_table_of(OpTime, record.profile.ops), encoding="utf-8")
    save_samples(folder / SAMPLES, record.latency.session)
    save_rounds(folder / ROUNDS, record.rounds)
    if record.reference.digest != record.tflite.digest:
        (folder / FLOAT).write_bytes(record.reference.content)
    np.savez_compressed(folder / CHANGED, places=record.changed.places, images=record.changed.images)
    match record.evidence:
        case Predictions(truth, keras, tflite, reference):
            columns = np.stack([truth, keras, tflite, reference], axis=1)
            np.savetxt(folder / PREDICTIONS, columns, "%d", delimiter=",", header=PREDICTED, comments="")
        case Scores(count, keras, tflite, reference):
            np.savez(folder / SCORES, examples=count, keras=keras, tflite=tflite, reference=reference)


def _unreadable(run_id: str, artifact: str, reason: str) -> UserError:
    return UserError(f"Run {run_id}: its {artifact} cannot be read ({reason}).")


def save_samples(path: Path, session: Session | JointRounds) -> None:
    """Write every timed inference of a session as compressed CSV: file, replicate, nanoseconds."""
    with gzip.open(path, "wt", newline="") as file:
        file.write(f"{SAMPLE_COLUMNS}\n")
        for name, timings in session.timings.items():
            csv.writer(file, lineterminator="\n").writerows(
                [spreadsheet_text(name), *sample] for sample in timings.samples.tolist()
            )


def read_samples(content: bytes, run_id: str) -> dict[str, npt.NDArray[np.int64]]:
    """Return the nanoseconds (n,) of every timed inference by file, as written by `save_samples`.

    Raises:
        UserError: the file is truncated or has another format.
    """
    try:
        header, _, lines = _unpacked(content).decode().partition("\n")
        files = groupby(lines.splitlines(), key=lambda line: line.partition(",")[0])
        if header != SAMPLE_COLUMNS:
            raise _unreadable(run_id, SAMPLES, f"it does not start with {SAMPLE_COLUMNS}")
        timed = {name: np.array([line.rpartition(",")[2] for line in own], np.int64) for name, own in files}
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise _unreadable(run_id, SAMPLES, first_line(error)) from error
    if any((nanoseconds <= 0).any() for nanoseconds in timed.values()):
        raise _unreadable(run_id, SAMPLES, "a time is not above 0")
    return timed


def save_rounds(path: Path, rounds: Rounds) -> None:
    """Write the rounds of a run's timing as JSON."""
    path.write_text(json.dumps(rounds.as_json()))


def read_rounds(content: bytes, run_id: str) -> Rounds:
    """Return the rounds written by `save_rounds`.

    Raises:
        UserError: the file is truncated or has another format.
    """
    try:
        rounds = Rounds.from_json(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _unreadable(run_id, ROUNDS, first_line(error)) from error
    if not rounds.rounds:
        raise _unreadable(run_id, ROUNDS, "it has no round")
    return rounds


def with_timing(content: bytes, rounds: Rounds) -> str | None:
    """Return the content of a run's RECORD with the timing of these rounds; None if it cannot be read."""
    try:
        record = json.loads(content)
        return json.dumps({**record, "metrics": {**record["metrics"], **rounds.metrics()}, **rounds.tags()}, indent=2)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _unpacked(content: bytes) -> bytes:
    """Unpack a gzip file, after checking that it is complete and not too large."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    unpacked = unpacking.decompress(content, MOST_BYTES)
    if not unpacking.eof:
        raise ValueError("it is truncated or too large")
    return unpacked


def read_curves(content: bytes, run_id: str) -> Mapping[str, tuple[float, ...]]:
    """Return training curves by the names of `RunRecord.curves`, as written by `write_artifacts`.

    Raises:
        UserError: the file is truncated or has another format.
    """
    try:
        record = json.loads(content)
        stages = {"baseline": record["baseline"], "finetune": record["own_training"]}
        read = {
            f"{stage}/{name}": tuple(_finite(value) for value in values)
            for stage, training in stages.items()
            for name, values in training["history"].items()
        }
        kept = {stage: _finite(training.get("kept", 0)) for stage, training in stages.items()}
        earlier = {stage: epoch for stage, epoch in kept.items() if 0 < epoch < len(read.get(f"{stage}/loss", ()))}
        return {**read, **{f"{stage}/kept_epoch": (epoch,) for stage, epoch in earlier.items()}}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _unreadable(run_id, RECORD, first_line(error)) from error


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise ValueError(f"{value!r:.40} is not a finite number")
    return float(value)


def read_changed(content: bytes, run_id: str) -> Changed:
    """Return the images written by `write_artifacts`.

    Raises:
        UserError: the file is truncated or has another format.
    """
    places, images = _arrays(content, ("places", "images"), run_id, CHANGED)
    changed = Changed(places, images)
    are_indices = places.ndim == 1 and places.dtype.kind in "iu" and not (places < 0).any()
    if not are_indices or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise _unreadable(run_id, CHANGED, "unexpected arrays")
    if len(images) and 0 in images.shape:
        raise _unreadable(run_id, CHANGED, "its images are empty")
    return changed


def read_predictions(content: bytes, run_id: str) -> Predictions:
    """Return the predictions written by `write_artifacts`.

    Raises:
        UserError: the file is truncated or has another format.
    """
    header, _, lines = content.partition(b"\n")
    if header != PREDICTED.encode() or not lines:
        raise _unreadable(run_id, PREDICTIONS, f"it does not start with {PREDICTED}")
    try:
        truth, keras, tflite, reference = np.loadtxt(
            io.BytesIO(content), np.int64, delimiter=",", skiprows=1, ndmin=2
        ).T
    except (ValueError, OverflowError) as error:
        raise _unreadable(run_id, PREDICTIONS, first_line(error)) from error
    if not truth.size or min(each.min() for each in (truth, keras, tflite, reference)) < 0:
        raise _unreadable(run_id, PREDICTIONS, "it is empty, or has a negative class")
    return Predictions(truth, keras, tflite, reference)


def read_scores(content: bytes, run_id: str) -> Scores:
    """Return the scores written by `write_artifacts`.

    Raises:
        UserError: the file is truncated or has another format.
    """
    count, *scores = _arrays(content, ("examples", "keras", "tflite", "reference"), run_id, SCORES)
    try:
        examples = int(count)
        keras, tflite, reference = (each.astype(np.float64) for each in scores)
    except (TypeError, ValueError, OverflowError) as error:
        raise _unreadable(run_id, SCORES, first_line(error)) from error
    if examples < 1 or any(each.shape != (1 + RESAMPLES,) for each in (keras, tflite, reference)):
        raise _unreadable(run_id, SCORES, "unexpected arrays")
    if not all(np.isfinite(each).all() for each in (keras, tflite, reference)):
        raise _unreadable(run_id, SCORES, "a value is not finite")
    return Scores(examples, keras, tflite, reference)


def _arrays(content: bytes, names: Sequence[str], run_id: str, artifact: str) -> list[npt.NDArray[Any]]:
    """Return arrays of an npz archive.

    Raises:
        UserError: the archive is truncated, too large, or lacks one of them.
    """
    try:
        with ZipFile(io.BytesIO(content)) as packed:
            if sum(part.file_size for part in packed.infolist()) > MOST_BYTES:
                raise ValueError("it is too large")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [np.asarray(arrays[name]) for name in names]
    except ARCHIVE_DAMAGE as error:
        raise _unreadable(run_id, artifact, first_line(error)) from error


def read_evidence(store: "Contents", run_id: str) -> Evidence | None:
    """Return the predictions or scores of a run; None if the artifact is missing.

    Raises:
        UserError: the artifact is truncated or has another format.
    """
    if (content := store.content(run_id, PREDICTIONS)) is not None:
        return read_predictions(content, run_id)
    content = store.content(run_id, SCORES)
    return None if content is None else read_scores(content, run_id)


def read_layers(content: bytes, run_id: str) -> list[dict[str, str]]:
    """Return the ops written by `write_artifacts`: for each row, the cells by column.

    Raises:
        UserError: the file is truncated or has another format.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    except (ValueError, csv.Error) as error:
        raise _unreadable(run_id, LAYERS, first_line(error)) from error
    if not rows or any(not {*SHOWN} <= row.keys() or None in row or None in row.values() for row in rows):
        raise _unreadable(run_id, LAYERS, "unexpected columns")
    for row in rows:
        if not all(re.fullmatch(r"[0-9]{0,18}", row[name]) for name in ("weights", "weights_bytes", "macs")):
            raise _unreadable(run_id, LAYERS, "a number is invalid")
    return rows


def read_or_none(read: Callable[[], T | None]) -> T | None:
    """Return the result of `read`, or None, with one warning, if it raises UserError."""
    try:
        return read()
    except UserError as error:
        warn_once(f"{error} Results that require it are omitted.")
        return None


class Contents(Protocol):
    """Reads artifacts of runs."""

    def content(self, run_id: str, artifact: str) -> bytes | None:
        """Return the content of a run's artifact; None if it is missing."""


def read_artifact(store: Contents, run_id: str, artifact: str, read: Callable[[bytes, str], T]) -> T | None:
    """Read an artifact of a run; None if it is missing, or, with one warning, if it is damaged or unreachable."""

    def found() -> T | None:
        content = store.content(run_id, artifact)
        return None if content is None else read(content, run_id)

    return read_or_none(found)


def read_digest(content: bytes) -> str | None:
    """Return the SHA-256 of a run's TFLite file from its record; None if the record cannot be read."""
    try:
        return str(json.loads(content)["tflite_sha256"])
    except (ValueError, TypeError, KeyError):
        return None


def layer_table(ops: Sequence[Op], delegated: Collection[int]) -> str:
    """Return the ops of a file as CSV; `delegated` holds the positions of those that XNNPACK runs."""
    rows = [[*(getattr(op, name) for name in OP_FIELDS), op.arithmetic, op.index in delegated] for op in ops]
    return _as_csv(LAYER_COLUMNS, rows)


def class_table(labels: Mapping[int, str]) -> str:
    """Return class numbers and their labels as CSV."""
    return _as_csv(["class", "label"], sorted(labels.items()))


def read_classes(content: bytes, run_id: str) -> Mapping[int, str]:
    """Return the labels written by `class_table`, by class number.

    Raises:
        UserError: the file has another format.
    """
    try:
        rows = csv.DictReader(io.StringIO(content.decode()))
        return {int(row["class"]): from_spreadsheet_text(row["label"]) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise _unreadable(run_id, CLASSES, first_line(error)) from error


def _as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([[_cell(value) for value in row] for row in (header, *rows)])
    return table.getvalue()


def _cell(value: object) -> object:
    """Escape text, since layer names come from model files."""
    return spreadsheet_text(value) if isinstance(value, str) else value


def _table_of(kind: type, values: Sequence[Any]) -> str:
    """Return dataclasses of one type as CSV."""
    return _as_csv([field.name for field in fields(kind)], [list(asdict(value).values()) for value in values])
