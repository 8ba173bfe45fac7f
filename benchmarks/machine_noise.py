"""Anomaly detection on synthetic noise of machines, as docs/tutorials/anomaly-detection.md shows it."""

from benchmarks.harness.benchmark import Study
from benchmarks.harness.markdown import score_table
from benchmarks.harness.pages import Table, runs_in

BENCHMARK = Study(
    name="machine_noise",
    title="Anomaly detection on synthetic noise of machines: an autoencoder of log-mel spectrograms",
    minutes=6,
    tables=(Table("machine_noise", score_table, (runs_in("machine_noise"),)),),
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
