"""Effect of annotating only some layers, as the article advises: two sweeps from one baseline."""

from benchmarks.harness.benchmark import CONTROL, Study, swept

BENCHMARK = Study(
    name="layers",
    title="Effect of annotating each layer alone, the first ones, or the last ones as the article advises",
    minutes=30,
    tables=(swept("layers"),),
    sweeps=(
        ("-m", "strategy=none,finetune,finetune_ptq_int8,qat", "training.epochs=5", "finetune.epochs=2"),
        ("+suite=layers",),
    ),
    control=CONTROL,
)
