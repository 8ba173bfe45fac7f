"""Detection of drawn shapes, as docs/how-to/detect-objects.md shows it."""

from benchmarks.harness.benchmark import Study
from benchmarks.harness.markdown import score_table
from benchmarks.harness.pages import Table, runs_in

BENCHMARK = Study(
    name="drawn_shapes",
    title="Detection: a small detector of drawn circles, squares and triangles",
    minutes=3,
    tables=(Table("drawn_shapes", score_table, (runs_in("drawn_shapes"),)),),
    sweeps=(
        (
            "-m", "dataset=drawn_shapes", "dataset.train_samples=2000", "dataset.test_samples=500", "model=detector",
            "keras=3", "strategy=none,ptq_int8,qat", "epochs=12", "finetune.epochs=2", "training.batch_size=16",
            "training.learning_rate=0.004", "finetune.learning_rate=0.001",
        ),
    ),
)  # fmt: skip
