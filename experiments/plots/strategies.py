"""How a strategy is drawn: the same in every picture."""

import hashlib
from dataclasses import dataclass

from experiments.plots import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

AFTER_TRAINING, IN_TRAINING, COMPRESSING = "o", "s", "^"
LINES = {AFTER_TRAINING: "-", IN_TRAINING: "--", COMPRESSING: ":"}
KEY = "Circles: not trained after the baseline; squares: trained further; triangles: pruned or clustered."
OWN = "DvPX*"  # markers of strategies that are not named here
COLOURS = (BLUE, SKY, GREEN, ORANGE, RED, PINK, GREY)


@dataclass(frozen=True)
class Mark:
    """A colour and a marker; the pair tells strategies apart, since no palette has colours for all of them."""

    colour: str
    marker: str

    @property
    def line(self) -> str:
        """How its lines are dashed."""
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
    """How a strategy is drawn; one of a user's own gets a mark by its name."""
    if strategy in MARKS:
        return MARKS[strategy]
    number = int.from_bytes(hashlib.sha256(strategy.encode()).digest()[:4], "big")
    return Mark(COLOURS[number % len(COLOURS)], OWN[number // len(COLOURS) % len(OWN)])
