"""Sweeps whose tables are published: what each shows, how long it takes, and what it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Study:
    """A sweep of the real command line."""

    shows: str
    takes: str
    overrides: tuple[str, ...]
    control: str | None = None  # the strategy that the others are held against, image by image


CONTROL = "finetune"
# Of the suite's strategies, those whose training is published so far; more of them and more seeds take hours.
ARTICLE = "none,finetune,ptq_dynamic,ptq_float16,ptq_int4,ptq_int8,ptq_int16x8,qat"
STUDIES: Mapping[str, Study] = {
    "first_sweep": Study(
        "What the first command of the README prints",
        "four to eight minutes on two cores",
        ("-m", "strategy=none,finetune,ptq_dynamic,ptq_int8,qat,annotate"),
    ),
    "ranges": Study(
        "Where the ranges of quantization-aware training should start",
        "a quarter of an hour on two cores",
        ("+suite=ranges",),
    ),
    "layers": Study(
        "What it brings to annotate each layer alone, all but it, and as the article advises",
        "half an hour on two cores",
        ("+suite=layers",),
    ),
    "article": Study(
        "The article's protocol: 20 epochs, then 20 more; the control, quantization after training, and qat",
        "an hour on two cores",
        ("+suite=article", f"strategy={ARTICLE}", "seed=0"),
        control=CONTROL,
    ),
    "epochs": Study(
        "Epoch counts by strategy: 1, 2, 5, 10 and 20 after a baseline of as many",
        "some hours on two cores",
        ("+suite=epochs",),
    ),
    "architectures": Study(
        "The article's question for ResNet8 and DS-CNN: 5 epochs, then 5 more, two seeds",
        "two hours on two cores",
        ("+suite=architectures",),
        control=CONTROL,
    ),
}
