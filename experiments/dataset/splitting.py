"""Which examples are held out: a random share of each class, and whole groups of examples."""

from typing import Any

import numpy as np
import numpy.typing as npt


def held_out(
    classes: npt.NDArray[Any], share: float, seed: int, groups: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.bool_]:
    """Return which examples (n,) to hold out, so that `share` of each class is held out, as closely as possible.

    Examples of one group, such as the recordings of one person, are either all held out or none of them. Groups are
    taken in random order, each of them if that brings the counts of the classes closer to the share.
    """
    codes, rng = np.unique(classes, return_inverse=True)[1], np.random.default_rng(seed)
    wanted, held = np.bincount(codes) * share, np.zeros(len(codes), bool)
    if groups is None:
        for code, count in enumerate(np.rint(wanted).astype(np.int64)):
            held[rng.permutation(np.flatnonzero(codes == code))[:count]] = True
        return held
    names = np.unique(groups, return_inverse=True)[1]
    members = np.split(np.argsort(names, kind="stable"), np.cumsum(np.bincount(names))[:-1])
    taken = np.zeros(len(wanted))
    for group in rng.permutation(len(members)):
        added = np.bincount(codes[members[group]], minlength=len(wanted))
        if ((taken + added - wanted) ** 2).sum() < ((taken - wanted) ** 2).sum():
            taken += added
            held[members[group]] = True
    return held
