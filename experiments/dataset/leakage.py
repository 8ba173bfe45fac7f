"""Examples that are in the training part and in the test part, found by digests of what they hold."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
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
        "score is too good. Remove them from one part."
    )


def of_array(part: str, place: int) -> str:
    """Return the name of an example of an array."""
    return f"x_{part}[{place}]"


def leakage_warnings(train: Any, test: Any, name: Callable[[str, int], str] = of_array) -> tuple[str, ...]:
    """Return a warning if examples of the test part are also in the training part, with all of several inputs.

    `name` is what a user calls an example, from its part and position.
    """
    named = isinstance(train, Mapping) and isinstance(test, Mapping) and train.keys() == test.keys()
    pairs = [(train[name], test[name]) for name in train] if named else [(train, test)]
    lengths = {(len(first), len(second)) for first, second in pairs if _are_comparable(first, second)}
    if len(lengths) != 1 or not all(_are_comparable(*pair) for pair in pairs):
        return ()
    first = _joined([_digests(each) for each, _ in pairs])
    if all(each.ndim == 2 for each, _ in pairs) and len(np.unique(first)) < DISTINCT * len(first):
        return ()
    second = _joined([_digests(each) for _, each in pairs])
    equal = equal_examples(first, second)
    if not equal:
        return ()
    one, other = equal[0]
    return (leakage_warning(len(equal), len(second), f"{name('test', other)} equals {name('train', one)}"),)


def _are_comparable(train: Any, test: Any) -> bool:
    if not all(hasattr(each, "dtype") and each.ndim >= 2 and len(each) for each in (train, test)):
        return False
    return train.dtype == test.dtype and train.shape[1:] == test.shape[1:] and train.dtype.kind in "biuf"


def _joined(digests: Sequence[Digests]) -> Digests:
    """Return a digest of each example from those of its inputs, whose order matters."""
    if len(digests) == 1:
        return digests[0]
    return np.array([digest_of_example(row) for row in np.stack(digests, axis=1)], np.uint64)


def _digests(examples: Stored) -> Digests:
    row = examples.dtype.itemsize * int(np.prod(examples.shape[1:], dtype=np.int64))
    found = [digest_of_example(each) for rows in chunks(len(examples), row) for each in examples[rows]]
    return np.array(found, np.uint64)
