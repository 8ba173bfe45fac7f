"""Examples that are in the training part and in the test part, found by digests of what they hold."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import Stored, chunks

Digests = npt.NDArray[np.uint64]
DISTINCT = 0.9  # of the rows of a table: where more are equal by chance, equal ones are no sign of leakage


def digest_of_example(example: npt.NDArray[Any]) -> int:
    """Return a digest of 64 bits."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(example).data, digest_size=8).digest(), "little")


def equal_examples(first: Digests, second: Digests) -> list[tuple[int, int]]:
    """Return the positions of each example of the second part that is in the first part, too."""
    order = np.argsort(first, kind="stable")
    at = np.minimum(np.searchsorted(first[order], second), len(first) - 1)
    also = np.flatnonzero(first[order[at]] == second)
    return [(int(order[at[place]]), int(place)) for place in also]


def leakage_warning(equal: int, tests: int, example: str) -> str:
    """Return the warning about equal examples."""
    return (
        f"leakage: {equal:,} of {tests:,} test examples are also in the training part, such as {example}, so the "
        "accuracy is too high. Remove them from one part."
    )


def leakage_warnings(train: Any, test: Any) -> tuple[str, ...]:
    """Return a warning if examples of the test part are also in the training part; for one input only."""
    if not all(hasattr(each, "dtype") and each.ndim >= 2 and len(each) for each in (train, test)):
        return ()
    if train.dtype != test.dtype or train.shape[1:] != test.shape[1:] or train.dtype.kind not in "biuf":
        return ()
    first = _digests(train)
    if train.ndim == 2 and len(np.unique(first)) < DISTINCT * len(first):
        return ()
    equal = equal_examples(first, _digests(test))
    if not equal:
        return ()
    one, other = equal[0]
    return (leakage_warning(len(equal), len(test), f"x_test[{other}] equals x_train[{one}]"),)


def _digests(examples: Stored) -> Digests:
    row = examples.dtype.itemsize * int(np.prod(examples.shape[1:], dtype=np.int64))
    found = [digest_of_example(each) for rows in chunks(len(examples), row) for each in examples[rows]]
    return np.array(found, np.uint64)
