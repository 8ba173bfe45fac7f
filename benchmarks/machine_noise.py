"""Anomaly detection on synthetic noise of machines, as docs/tutorials/anomaly-detection.md shows it."""

import pandas as pd

from benchmarks.harness.benchmark import Study
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, runs_in
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent, times, whole
from experiments.task.metrics import TITLES


def published_table(table: pd.DataFrame) -> str:
    """Return a row for each strategy: score, size and speed of its file."""
    rows, score = [row for _, row in table.iterrows()], str(table["metric"].iloc[0])
    shown = pd.DataFrame(
        {
            "strategy": [f"`{name}`" for name in table["strategy"]],
            f"{TITLES[score]} (%)": [percent(*ends(row, "tflite_score")) for row in rows],
            f"Δ {TITLES[score]} (pp)": [percent(*ends(row, "score_change"), "+") for row in rows],
            "bytes": table["tflite_bytes"].map(whole),
            "size ratio": table["size_ratio"].map(times),
            "speedup": [times(*ends(row, "speedup")) for row in rows],
        }
    )
    return markdown(shown)


BENCHMARK = Study(
    name="machine_noise",
    title="Anomaly detection on synthetic noise of machines: an autoencoder of log-mel spectrograms",
    minutes=6,
    tables=(Table("machine_noise", published_table, (runs_in("machine_noise"),)),),
    data=("examples/machine_noise.py", "machines"),
    sweeps=(
        (
            "-m", "dataset=audio_folder", "dataset.path=machines", "dataset.features=log_mel", "dataset.window_ms=64",
            "dataset.stride_ms=32", "dataset.high_hz=8000", "task=reconstruction", "model=autoencoder",
            "strategy=none,ptq_dynamic,ptq_int8,finetune_ptq_int8,qat", "epochs=20", "training.batch_size=32",
            "finetune.learning_rate=0.0001",
        ),
    ),
)  # fmt: skip
