"""Made-up runs, as a store holds them."""

import hashlib
from typing import Any

import numpy as np

from experiments.comparison.columns import SUBJECTS
from experiments.measure.rounds import FileTiming, Round, Rounds
from experiments.record.evidence import Predictions
from experiments.record.identity import DIGESTS, DIGITS
from experiments.system.machine import Conditions


def digests(model: str = "article_cnn", dataset: str = "mnist", **settings: Any) -> dict[str, str]:
    """What a run is about, as far as its settings say it."""
    of_model, of_data = (sorted((k, v) for k, v in settings.items() if k.startswith(kind)) for kind in SUBJECTS)
    of_test = [each for each in of_data if each[0] != "dataset.train_samples"]
    contents = ((model, of_model), (dataset, of_data), (of_test, dataset))
    found = (hashlib.sha256(repr(content).encode()).hexdigest()[:DIGITS] for content in contents)
    return dict(zip(DIGESTS, found, strict=True))


def row(strategy: str, **changes: Any) -> dict[str, Any]:
    return {
        "strategy": strategy, "model": "article_cnn", "dataset": "mnist", "epochs": 1, "finetune_epochs": 0, "seed": 0,
        "keras_accuracy": 0.9765, "tflite_accuracy": 0.9765,
        "tflite_accuracy_low": 0.9734, "tflite_accuracy_high": 0.9793,
        "accuracy_change": 0.0, "accuracy_change_low": -0.0003, "accuracy_change_high": 0.0003,
        "accuracy_change_p": 1.0, "agreement": 1.0,
        "tflite_bytes": 599620.0, "tflite_gzip_bytes": 553386.0, "size_ratio": 1.0,
        "latency_p50_us": 410.4, "latency_p90_us": 420.0, "latency_p99_us": 500.0, "latency_min_us": 400.0,
        "latency_rounds": 3.0,
        "speedup": 1.001, "speedup_low": 0.992, "speedup_high": 1.011, "speed": "equivalent",
        "arithmetic": "4 float32", "coverage_ops": 0.0, "coverage_weights": 0.0, "coverage_macs": 0.0,
        "train_seconds": 60.0, "epochs_reused": 0.0,
        "epochs_trained": float(changes.get("epochs", 1) + changes.get("finetune_epochs", 0)),
        "cpu": "a CPU", "git_commit": "abc", **digests(**{k: v for k, v in changes.items() if k.startswith(SUBJECTS)}),
        "run_id": f"run-{strategy}", "status": "FINISHED", "error": None,
        **changes,
    }  # fmt: skip


ROWS = [
    row("none"),
    row("qat", finetune_epochs=1, tflite_accuracy=0.9812, accuracy_change=0.0047, accuracy_change_low=0.0021,
        accuracy_change_high=0.0073, tflite_bytes=156664.0, size_ratio=3.827, latency_p50_us=110.2, speedup=3.72,
        speedup_low=3.69, speedup_high=3.75, speed="faster", arithmetic="4 int8"),
]  # fmt: skip
FAILED = {"strategy": "annotate", "model": "article_cnn", "dataset": "mnist", "epochs": 1, "finetune_epochs": 1,
          "seed": 0, "run_id": "run-annotate", "status": "FAILED", "error": "no such layer"}  # fmt: skip


def predictions(wrong: int, wrong_reference: int = 0, images: int = 100, truth: int = 1) -> Predictions:
    """Predictions of a file that errs on the first images, and of a reference that errs on the last."""
    true = np.full(images, truth)
    place = np.arange(images)
    tflite, reference = np.where(place < wrong, 9, true), np.where(place >= images - wrong_reference, 9, true)
    return Predictions(true, true, tflite, reference)


def seeds(strategy: str, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [row(strategy, seed=n, run_id=f"{strategy}-{n}", **changes) for n in range(count)]


IDLE = Conditions(cores=2, other_cores=0.1, steal_cores=0.0, load_before=0.1, load_after=0.2)


def timing(microseconds: float) -> FileTiming:
    medians = tuple(1000 * microseconds * factor for factor in (0.999, 1.0, 1.001))
    return FileTiming(medians, microseconds, microseconds, microseconds, microseconds, 2 * microseconds, 50)


def a_round(number: int, own: float, reference: float = 300, conditions: Conditions = IDLE) -> Round:
    control = (timing(reference), timing(reference))
    return Round(
        f"round-{number}", 15.0 * number, "m", 1, "xnnpack", conditions, timing(own), timing(reference), control
    )


def five_rounds() -> Rounds:
    """The timing of a run in five rounds over a minute, three times as fast as its float file."""
    return Rounds("own", "reference", tuple(a_round(number, 100 + number) for number in range(5)))
