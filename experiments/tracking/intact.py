"""Check that the files of a finished run still exist."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.record.artifacts import EVIDENCE, MODEL, NEEDED, RECORD, read_digest

BYTES = "tflite_bytes"  # metric with the size of a run's TFLite file


def missing_of(sizes: Mapping[str, int | None], metrics: Mapping[str, float]) -> str:
    """Describe a problem with the artifacts, given their sizes by name; empty if there is none."""
    absent = [name for name in NEEDED if name not in sizes]
    if not any(name in sizes for name in EVIDENCE):
        absent.append(EVIDENCE[0])
    if absent:
        return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
    if empty := [name for name in (*NEEDED, *EVIDENCE) if sizes.get(name) == 0]:
        return f"{', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"
    size = sizes[MODEL]
    if size is not None and BYTES in metrics and size != metrics[BYTES]:
        return f"{MODEL} has {size:,} bytes instead of {metrics[BYTES]:,.0f}"
    return ""


def missing_in(folders: Iterable[Path], metrics: Mapping[str, float], models: Iterable[Iterable[Path]] = ()) -> str:
    """Describe a problem with a run's artifacts in these folders; empty if there is none.

    Each file is taken from the first folder that has it. The TFLite file must have the recorded digest. `models` holds
    the folders of the run's logged models.
    """
    files = {name: path for name in (*NEEDED, *EVIDENCE) if (path := _first(folders, name))}
    problem = missing_of({name: path.stat().st_size for name, path in files.items()}, metrics)
    if problem:
        return problem
    digest = hashlib.sha256(files[MODEL].read_bytes()).hexdigest()
    recorded = read_digest(files[RECORD].read_bytes())
    if recorded is None:
        return f"{RECORD} cannot be read"
    if digest != recorded:
        return f"{MODEL} has changed since it was recorded (SHA-256 {digest[:8]} instead of {recorded[:8]})"
    for places in models:
        if not all(_first(places, name) for name in ("MLmodel", MODEL)):
            return f"its MLflow model is missing; searched {' and '.join(map(str, places))}"
    return ""


def _first(folders: Iterable[Path], name: str) -> Path | None:
    return next((path for folder in folders if (path := folder / name).is_file()), None)
