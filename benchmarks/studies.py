"""Sweeps whose tables are published: what each shows, how long it takes, and its commands."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

RUN = ("-m", "experiments.run")


@dataclass(frozen=True)
class Study:
    """Sweeps of the real command line whose runs make one table."""

    title: str
    minutes: int  # about, on two cores
    sweeps: tuple[tuple[str, ...], ...]  # what follows `python -m experiments.run`
    control: str | None = None  # the strategy that the others are held against, image by image
    rival: str | None = None  # another one; kept as against_RIVAL.csv and runs_against_RIVAL.csv
    removed: str = ""  # the setting that it needs and this version no longer has: it can be repeated at its commit only

    @property
    def commands(self) -> list[str]:
        """What a person types, as each sweep records it."""
        return [shlex.join(["python", *RUN, *overrides]) for overrides in self.sweeps]


CONTROL = "finetune"
RIVAL = "finetune_ptq_int8"
# Of the suite's strategies, those of the article's question; those that compress as well are a study of their own.
ARTICLE = "none,finetune,ptq_dynamic,ptq_float16,ptq_int4,ptq_int8,ptq_int16x8,finetune_ptq_int8,qat,annotate"
COMPRESSION = "none,finetune,finetune_ptq_int8,qat,prune_qat,cluster_qat,prune_cluster_qat"
COMPRESSION_SEEDS = "none,finetune,finetune_ptq_int8,prune_qat,cluster_qat,prune_cluster_qat"
TWO_MORE_SEEDS = ("seed=1,2", "threads=1")  # a thread each, so that seeds can be trained side by side beforehand
STUDIES: Mapping[str, Study] = {
    "first_sweep": Study(
        "What the first command of the README prints",
        8,
        (("-m", "strategy=none,finetune,ptq_dynamic,ptq_int8,finetune_ptq_int8,qat,annotate"),),
    ),
    "ranges": Study(
        "Where the ranges of quantization-aware training should start",
        15,
        (("+suite=ranges",),),
        removed="strategy.range_init",
    ),
    "layers": Study(
        "What it brings to annotate each layer alone, the first ones, or later ones as the article advises",
        30,
        (
            ("-m", "strategy=none,finetune,finetune_ptq_int8,qat", "training.epochs=5", "finetune.epochs=2"),
            ("+suite=layers",),
        ),
        control=CONTROL,
    ),
    "article": Study(
        "The article's protocol, three seeds: 20 epochs, then 20 more; controls, int8 after training, qat and annotate",
        240,
        (("+suite=article", f"strategy={ARTICLE}", "seed=0,1,2"),),
        control=CONTROL,
        rival=RIVAL,
    ),
    "compression": Study(
        "Pruning and clustering by the article's protocol, alone, with int8 after training, or before qat",
        210,
        (
            ("+suite=article", f"strategy={COMPRESSION}"),
            ("+suite=article", "strategy=prune,cluster", "strategy.quantization=none,int8"),
            ("+suite=article", "strategy=finetune,finetune_ptq_int8", "finetune.epochs=40,60"),
        ),
        control=CONTROL,
    ),
    "compression_seeds": Study(
        "Pruning and clustering as in compression, with two more seeds",
        480,
        (
            ("+suite=article", f"strategy={COMPRESSION_SEEDS}", *TWO_MORE_SEEDS),
            ("+suite=article", "strategy=prune,cluster", "strategy.quantization=none,int8", *TWO_MORE_SEEDS),
            ("+suite=article", "strategy=finetune,finetune_ptq_int8", "finetune.epochs=40,60", *TWO_MORE_SEEDS),
        ),
        control=CONTROL,
    ),
    "epochs": Study(
        "Epoch counts by strategy: 1, 2, 5, 10 and 20 after a baseline of as many",
        120,
        (("+suite=epochs",),),
        control=CONTROL,
    ),
    "architectures": Study(
        "The article's question for ResNet8 and DS-CNN: 5 epochs, then 5 more, two seeds",
        60,
        (("+suite=architectures",),),
        control=CONTROL,
        rival=RIVAL,
    ),
}
