"""Silence for what says more than anybody can use: native code on standard error, and a warning of Hydra."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 100_000  # characters of it that are kept


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Keep what native code writes to standard error off the screen; where the block raises, it is a note of the error.

    So it stands in the error's traceback, and never in a terminal that shows the error's message alone.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        except Exception as error:
            swallowed.seek(0)
            if written := swallowed.read(MOST).decode(errors="replace").strip():
                error.add_note(written)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def ignore_schemas_of_launchers() -> None:
    """Ignore that a launcher's option has the name of its plugin, whose schema Hydra checks it against."""
    warnings.filterwarnings("ignore", message=r"(?s)\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
