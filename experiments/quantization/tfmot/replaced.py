"""What TFMOT offers no switch for is replaced in TFMOT itself, for as long as a block runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within it, `owner.name` is this value; it has to have one of its own.

    Raises:
        KeyError: it has none, as after an update that renames it.
    """
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
