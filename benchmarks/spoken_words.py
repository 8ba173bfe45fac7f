"""Keyword spotting on synthetic speech, as docs/tutorials/keyword-spotting.md shows it."""

from benchmarks.harness.benchmark import Study
from benchmarks.harness.markdown import score_table
from benchmarks.harness.pages import Table, runs_in

BENCHMARK = Study(
    name="spoken_words",
    title="Keyword spotting on synthetic speech: ds_cnn on ten words, tested with other voices",
    minutes=10,
    tables=(Table("spoken_words", score_table, (runs_in("spoken_words"),)),),
    data=("examples/spoken_words.py", "words"),
    sweeps=(
        (
            "-m", "dataset=audio_folder", "dataset.path=words", "model=ds_cnn",
            "strategy=none,ptq_dynamic,ptq_int8,finetune_ptq_int8,qat", "training.epochs=20",
            "finetune.epochs=5", "training.batch_size=100",
        ),
    ),
)  # fmt: skip
