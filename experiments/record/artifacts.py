"""The files of a run: written when it is finished, and read again by whoever compares runs."""

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
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from experiments.measure.changes import Changed
from experiments.measure.fidelity import Gap, OpNoise
from experiments.measure.latency import Session
from experiments.measure.op_profile import OpTime
from experiments.record.run_record import Predictions, RunRecord
from experiments.system.errors import UserError, first_line
from experiments.system.escaping import spreadsheet_text
from experiments.system.progress import warn_once
from experiments.tflite.graph import Op

RECORD = "record.json"
SAMPLES = "latency_samples.csv.gz"
TIMED = "file,replicate,nanoseconds"  # its columns
LAYERS = "layers.csv"  # artifact of a run: every op of its file
CHANGED = "changed.npz"  # artifact of a run: test images whose answer is not that of the float model
CLASSES = "classes.csv"  # artifact of a run: which label of the data each class number stands for
PREDICTIONS = "predictions.csv"  # artifact of a run: what the models say of each test image
MODEL = "model.tflite"  # artifact of a run: its file
CONFIGURATION = "config.yaml"  # artifact of a run: what it was asked for
# What later commands read of a finished run: without one of them it is not finished.
NEEDED = (MODEL, RECORD, CONFIGURATION, LAYERS, SAMPLES, CHANGED, PREDICTIONS)
PREDICTED = "truth,keras,tflite,float_reference"  # its columns

OF_OPS = tuple(field.name for field in fields(Op) if field.name not in ("inputs", "outputs"))
LAYER_COLUMNS = (*OF_OPS, "arithmetic", "xnnpack")
SHOWN = ("layer", "op", "arithmetic", "weights", "weights_bytes", "macs", "xnnpack")  # of them, in a report
MOST_BYTES = 2**28  # of a file that is unpacked; those of a run are a thousandth of it
LARGEST = 1e300  # of a loss
BROKEN_ARCHIVE = (BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error)
T = TypeVar("T")


def write_artifacts(folder: Path, record: RunRecord, configuration: str) -> None:
    """The files of a run: the model, the record, what is in the file, raw timings, predictions, configuration."""
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
    np.savez_compressed(folder / CHANGED, places=record.changed.places, images=record.changed.images)
    answers = record.answers
    columns = np.stack([answers.truth, answers.keras, answers.tflite, answers.reference], axis=1)
    np.savetxt(folder / PREDICTIONS, columns, "%d", delimiter=",", header=PREDICTED, comments="")


def save_samples(path: Path, session: Session) -> None:
    """Every timed inference of a session, as compressed CSV: file, replicate, nanoseconds."""
    with gzip.open(path, "wt", newline="") as file:
        file.write(f"{TIMED}\n")
        for name, timings in session.timings.items():
            csv.writer(file, lineterminator="\n").writerows(
                [spreadsheet_text(name), *sample] for sample in timings.samples.tolist()
            )


def read_samples(content: bytes, run_id: str) -> dict[str, npt.NDArray[np.int64]]:
    """Nanoseconds of every timed inference (n,), by file, as `save_samples` wrote them.

    Raises:
        UserError: the file is cut, or another one.
    """
    try:
        header, _, lines = _unpacked(content).decode().partition("\n")
        files = groupby(lines.splitlines(), key=lambda line: line.partition(",")[0])
        if header != TIMED:
            raise UserError(f"Run {run_id}: its {SAMPLES} cannot be read (it does not begin with {TIMED}).")
        timed = {name: np.array([line.rpartition(",")[2] for line in own], np.int64) for name, own in files}
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise UserError(f"Run {run_id}: its {SAMPLES} cannot be read ({first_line(error)}).") from error
    if any((nanoseconds <= 0).any() for nanoseconds in timed.values()):
        raise UserError(f"Run {run_id}: its {SAMPLES} cannot be read (a time is not above 0).")
    return timed


def _unpacked(content: bytes) -> bytes:
    """The content of a gzip file that is whole and of a size that a run writes."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    unpacked = unpacking.decompress(content, MOST_BYTES)
    if not unpacking.eof:
        raise ValueError("it is cut, or larger than a run writes it")
    return unpacked


def read_curves(content: bytes, run_id: str) -> Mapping[str, tuple[float, ...]]:
    """Training curves by the names of `RunRecord.curves`, as `write_artifacts` wrote them.

    Raises:
        UserError: the file is cut, or another one.
    """
    try:
        record = json.loads(content)
        stages = {"baseline": record["baseline"]["history"], "finetune": record["own_training"]["history"]}
        return {
            f"{stage}/{name}": tuple(_finite(value) for value in values)
            for stage, curves in stages.items()
            for name, values in curves.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"Run {run_id}: its {RECORD} cannot be read ({first_line(error)}).") from error


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise ValueError(f"{value!r:.40} is no number of a training")
    return float(value)


def read_changed(content: bytes, run_id: str) -> Changed:
    """The images that `write_artifacts` wrote.

    Raises:
        UserError: the file is cut, or another one.
    """
    try:
        with ZipFile(io.BytesIO(content)) as packed:
            if sum(part.file_size for part in packed.infolist()) > MOST_BYTES:
                raise ValueError("it is larger than a run writes it")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            changed = Changed(np.asarray(arrays["places"]), np.asarray(arrays["images"]))
    except (*BROKEN_ARCHIVE, KeyError, EOFError, MemoryError) as error:
        raise UserError(f"Run {run_id}: its {CHANGED} cannot be read ({first_line(error)}).") from error
    places, images = changed.places, changed.images
    is_whole = places.ndim == 1 and places.dtype.kind in "iu" and not (places < 0).any()
    if not is_whole or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"Run {run_id}: its {CHANGED} cannot be read (it holds other arrays than a run writes).")
    if len(images) and 0 in images.shape:
        raise UserError(f"Run {run_id}: its {CHANGED} cannot be read (its images are empty).")
    return changed


def read_predictions(content: bytes, run_id: str) -> Predictions:
    """The answers that `write_artifacts` wrote.

    Raises:
        UserError: the file is cut, or another one.
    """
    header, _, lines = content.partition(b"\n")
    if header != PREDICTED.encode() or not lines:
        raise UserError(f"Run {run_id}: its {PREDICTIONS} cannot be read (it does not begin with {PREDICTED}).")
    try:
        truth, keras, tflite, reference = np.loadtxt(
            io.BytesIO(content), np.int64, delimiter=",", skiprows=1, ndmin=2
        ).T
    except (ValueError, OverflowError) as error:
        raise UserError(f"Run {run_id}: its {PREDICTIONS} cannot be read ({first_line(error)}).") from error
    if not truth.size or min(each.min() for each in (truth, keras, tflite, reference)) < 0:
        raise UserError(f"Run {run_id}: its {PREDICTIONS} cannot be read (it is empty, or a class is below 0).")
    return Predictions(truth, keras, tflite, reference)


def read_layers(content: bytes, run_id: str) -> list[dict[str, str]]:
    """The ops of a file, as `write_artifacts` wrote them: the cells of each line by their columns.

    Raises:
        UserError: the file is cut, or another one.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    except (ValueError, csv.Error) as error:
        raise UserError(f"Run {run_id}: its {LAYERS} cannot be read ({first_line(error)}).") from error
    if not rows or any(not {*SHOWN} <= row.keys() or None in row or None in row.values() for row in rows):
        raise UserError(f"Run {run_id}: its {LAYERS} cannot be read (it has other columns than a run writes).")
    for row in rows:
        if not all(re.fullmatch(r"[0-9]{0,18}", row[name]) for name in ("weights", "weights_bytes", "macs")):
            raise UserError(f"Run {run_id}: its {LAYERS} cannot be read (a number in it is none).")
    return rows


def or_left_out(read: Callable[[], T | None]) -> T | None:
    """What is read of a run; None where there is nothing, or it is damaged or out of reach, which is said once."""
    try:
        return read()
    except UserError as error:
        warn_once(f"{error} What is made of it is left out.")
        return None


class Contents(Protocol):
    """Where the files of runs are."""

    def content(self, run_id: str, artifact: str) -> bytes | None:
        """What a file of a run holds; None where there is none."""


def detail(store: Contents, run_id: str, artifact: str, read: Callable[[bytes, str], T]) -> T | None:
    """What a file of a run says; None where there is none, or it is damaged or out of reach, which is said once."""

    def found() -> T | None:
        content = store.content(run_id, artifact)
        return None if content is None else read(content, run_id)

    return or_left_out(found)


def read_digest(content: bytes) -> str | None:
    """SHA-256 of a run's TFLite file, from its record; None where that cannot be read."""
    try:
        return str(json.loads(content)["tflite_sha256"])
    except (ValueError, TypeError, KeyError):
        return None


def layer_table(ops: Sequence[Op], delegated: Collection[int]) -> str:
    """The ops of a file as CSV, one line each; `delegated` are the positions of those that XNNPACK takes."""
    rows = [[*(getattr(op, name) for name in OF_OPS), op.arithmetic, op.index in delegated] for op in ops]
    return _as_csv(LAYER_COLUMNS, rows)


def class_table(labels: Mapping[int, str]) -> str:
    """Class numbers and their labels as CSV, one line each."""
    return _as_csv(["class", "label"], sorted(labels.items()))


def _as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([[_cell(value) for value in row] for row in (header, *rows)])
    return table.getvalue()


def _cell(value: object) -> object:
    """Layers have the names that their model file gives them."""
    return spreadsheet_text(value) if isinstance(value, str) else value


def _table_of(kind: type, values: Sequence[Any]) -> str:
    """Dataclasses of one kind as CSV."""
    return _as_csv([field.name for field in fields(kind)], [list(asdict(value).values()) for value in values])
