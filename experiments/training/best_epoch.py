"""Which epoch's weights a training returns, and when it stops, as functions of its history.

Neither changes the weights after an epoch, so trainings that differ only in these settings share their epochs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

Keep = Literal["last", "best"]
LOSS = "val_loss"


def best_epoch(history: Mapping[str, Sequence[float]]) -> int:
    """Return the epoch with the lowest validation loss, the first of several; counted from 1."""
    losses = list(history[LOSS])
    return losses.index(min(losses, key=lambda loss: (math.isnan(loss), loss))) + 1


def end_of(history: Mapping[str, Sequence[float]], patience: int | None) -> int | None:
    """Return the epoch after which a training stops: the validation loss has not fallen for `patience` epochs.

    None if there is no such epoch yet.
    """
    if patience is None:
        return None
    lowest, since = float("inf"), 0
    for epoch, loss in enumerate(history.get(LOSS, ()), 1):
        lowest, since = (loss, 0) if loss < lowest else (lowest, since + 1)
        if since >= patience:
            return epoch
    return None
