"""Colours and markers of strategies, the same in every plot."""

import hashlib
from dataclasses import dataclass

from experiments.plots import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

AFTER_TRAINING, IN_TRAINING, COMPRESSING = "o", "s", "^"
LINES = {AFTER_TRAINING: "-", IN_TRAINING: "--", COMPRESSING: ":"}
KEY = "Circles: not trained after the baseline; squares: trained further; triangles: pruned or clustered."
OWN = "DvPX*"  # markers of users' strategies
COLOURS = (BLUE, SKY, GREEN, ORANGE, RED, PINK, GREY)


@dataclass(frozen=True)
class Mark:
    """A colour and a marker; the pair identifies a strategy, since no palette has enough colours."""

    colour: str
    marker: str

    @property
    def line(self) -> str:
        """Line style."""
        return LINES.get(self.marker, "-.")


MARKS = {
    "none": Mark(GREY, AFTER_TRAINING),
    "ptq_dynamic": Mark(ORANGE, AFTER_TRAINING),
    "ptq_float16": Mark(SKY, AFTER_TRAINING),
    "ptq_int4": Mark(RED, AFTER_TRAINING),
    "ptq_int4_int8": Mark(PINK, AFTER_TRAINING),
    "ptq_int8": Mark(BLUE, AFTER_TRAINING),
    "ptq_int16x8": Mark(GREEN, AFTER_TRAINING),
    "finetune": Mark(PINK, IN_TRAINING),
    "finetune_ptq_int8": Mark(BLUE, IN_TRAINING),
    "qat": Mark(RED, IN_TRAINING),
    "annotate": Mark(GREEN, IN_TRAINING),
    "prune": Mark(GREEN, COMPRESSING),
    "cluster": Mark(SKY, COMPRESSING),
    "prune_qat": Mark(ORANGE, COMPRESSING),
    "cluster_qat": Mark(BLUE, COMPRESSING),
    "prune_cluster_qat": Mark(PINK, COMPRESSING),
}


def mark(strategy: str) -> Mark:
    """Return the mark of a strategy; for users' strategies, it is derived from the name."""
    if strategy in MARKS:
        return MARKS[strategy]
    number = int.from_bytes(hashlib.sha256(strategy.encode()).digest()[:4], "big")
    return Mark(COLOURS[number % len(COLOURS)], OWN[number // len(COLOURS) % len(OWN)])
