"""The files of a run: written when it is finished, and read again by whoever compares runs."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from experiments.errors import UserError, first_line
from experiments.escaping import spreadsheet_text
from experiments.graph import Op
from experiments.measure.changes import Changed
from experiments.measure.fidelity import Gap, OpNoise
from experiments.measure.latency import Session
from experiments.measure.profile import OpTime
from experiments.plots.run import save_noise, save_profile
from experiments.record import Answers, RunRecord

RECORD = "record.json"
SAMPLES = "latency_samples.csv.gz"
TIMED = "file,replicate,nanoseconds"  # its columns
LAYERS = "layers.csv"  # artifact of a run: every op of its file
CHANGED = "changed.npz"  # artifact of a run: test images whose answer is not that of the float model
CLASSES = "classes.csv"  # artifact of a run: which label of the data each class number stands for
PREDICTIONS = "predictions.csv"  # artifact of a run: what the models say of each test image
MODEL = "model.tflite"  # artifact of a run: its file
# What later commands read of a finished run: without one of them it is not finished.
NEEDED = (MODEL, RECORD, "config.yaml", LAYERS, SAMPLES, CHANGED, PREDICTIONS)
PREDICTED = "truth,keras,tflite,float_reference"  # its columns


def write_artifacts(folder: Path, record: RunRecord, title: str, configuration: str) -> None:
    """The files of a run: the model, the record, what is in the file, raw timings, predictions, configuration."""
    (folder / MODEL).write_bytes(record.tflite.content)
    (folder / RECORD).write_text(json.dumps(record.as_json(), indent=2))
    (folder / "config.yaml").write_text(configuration, encoding="utf-8")
    if record.data.labels:
        (folder / CLASSES).write_text(class_table(record.data.labels), encoding="utf-8")
    (folder / LAYERS).write_text(layer_table(record.ops, record.delegated), encoding="utf-8")
    (folder / "fidelity.csv").write_text(_table_of(Gap, record.gaps), encoding="utf-8")
    (folder / "signal_to_noise.csv").write_text(_table_of(OpNoise, record.op_noise), encoding="utf-8")
    save_noise(folder / "signal_to_noise.png", record.op_noise, title)
    (folder / "profile.csv").write_text(_table_of(OpTime, record.profile.ops), encoding="utf-8")
    save_profile(folder / "profile.png", record.profile, title)
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
        header, _, lines = gzip.decompress(content).decode().partition("\n")
        files = groupby(lines.splitlines(), key=lambda line: line.partition(",")[0])
        if header != TIMED:
            raise UserError(f"Run {run_id}: its {SAMPLES} cannot be read (it does not begin with {TIMED}).")
        return {name: np.array([line.rpartition(",")[2] for line in own], np.int64) for name, own in files}
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"Run {run_id}: its {SAMPLES} cannot be read ({first_line(error)}).") from error


def read_curves(content: bytes, run_id: str) -> Mapping[str, tuple[float, ...]]:
    """Training curves by the names of `RunRecord.curves`, as `write_artifacts` wrote them.

    Raises:
        UserError: the file is cut, or another one.
    """
    try:
        record = json.loads(content)
        stages = {"baseline": record["baseline"]["history"], "finetune": record["own_training"]["history"]}
        return {f"{stage}/{name}": tuple(values) for stage, curves in stages.items() for name, values in curves.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"Run {run_id}: its {RECORD} cannot be read ({first_line(error)}).") from error


def read_changed(content: bytes, run_id: str) -> Changed:
    """The images that `write_artifacts` wrote.

    Raises:
        UserError: the file is cut, or another one.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Changed(arrays["places"], arrays["images"])
    except (BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
        raise UserError(f"Run {run_id}: its {CHANGED} cannot be read ({first_line(error)}).") from error


def read_predictions(content: bytes, run_id: str) -> Answers:
    """The answers that `write_artifacts` wrote.

    Raises:
        UserError: the file is cut, or another one.
    """
    if content.partition(b"\n")[0] != PREDICTED.encode():
        raise UserError(f"Run {run_id}: its {PREDICTIONS} cannot be read (it does not begin with {PREDICTED}).")
    try:
        truth, keras, tflite, reference = np.loadtxt(
            io.BytesIO(content), np.int64, delimiter=",", skiprows=1, ndmin=2
        ).T
    except ValueError as error:
        raise UserError(f"Run {run_id}: its {PREDICTIONS} cannot be read ({first_line(error)}).") from error
    return Answers(truth, keras, tflite, reference)


def read_digest(content: bytes) -> str | None:
    """SHA-256 of a run's TFLite file, from its record; None where that cannot be read."""
    try:
        return str(json.loads(content)["tflite_sha256"])
    except (ValueError, TypeError, KeyError):
        return None


def layer_table(ops: Sequence[Op], delegated: Collection[int]) -> str:
    """The ops of a file as CSV, one line each; `delegated` are the positions of those that XNNPACK takes."""
    columns = [field.name for field in fields(Op) if field.name not in ("inputs", "outputs")]
    rows = [[*(getattr(op, name) for name in columns), op.arithmetic, op.index in delegated] for op in ops]
    return _as_csv([*columns, "arithmetic", "xnnpack"], rows)


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
