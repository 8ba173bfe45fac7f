"""Whether the files of a finished run are still there."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.record.artifacts import MODEL, NEEDED, RECORD, read_digest

BYTES = "tflite_bytes"  # metric: the size of a run's TFLite file


def missing_of(sizes: Mapping[str, int | None], metrics: Mapping[str, float]) -> str:
    """What is wrong with artifacts of which names and sizes are known; empty where nothing is."""
    if absent := [name for name in NEEDED if name not in sizes]:
        return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
    size = sizes[MODEL]
    if size is not None and BYTES in metrics and size != metrics[BYTES]:
        return f"{MODEL} has {size:,} bytes instead of {metrics[BYTES]:,.0f}"
    return ""


def missing_in(folders: Iterable[Path], metrics: Mapping[str, float], models: Iterable[Iterable[Path]] = ()) -> str:
    """What is wrong with the artifacts of a run in these folders, of which the first that has a file counts.

    `models` are the folders of the models that the run logged. The file has to be the one that was recorded.
    """
    files = {name: path for name in NEEDED if (path := _first(folders, name))}
    problem = missing_of({name: path.stat().st_size for name, path in files.items()}, metrics)
    if problem:
        return problem
    digest = hashlib.sha256(files[MODEL].read_bytes()).hexdigest()
    recorded = read_digest(files[RECORD].read_bytes())
    if recorded is None:
        return f"{RECORD} cannot be read"
    if digest != recorded:
        return f"{MODEL} is not the file that was recorded (SHA-256 {digest[:8]} instead of {recorded[:8]})"
    for places in models:
        if not all(_first(places, name) for name in ("MLmodel", MODEL)):
            return f"its MLflow model is missing; looked in {' and '.join(map(str, places))}"
    return ""


def _first(folders: Iterable[Path], name: str) -> Path | None:
    return next((path for folder in folders if (path := folder / name).is_file()), None)
