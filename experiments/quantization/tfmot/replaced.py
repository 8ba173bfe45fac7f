"""Temporarily replace functions of TFMOT that have no setting."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace `owner.name`, which must exist, while the block runs.

    Raises:
        KeyError: it does not exist, for example after an update that renames it.
    """
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
