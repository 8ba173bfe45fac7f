"""Suppression of output that has no setting to turn it off: native code on standard error, and a Hydra warning."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MAX_BYTES = 100_000  # bytes of the output to keep


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Suppress what native code writes to standard error; if the block raises, add it to the error as a note.

    The note is part of the traceback, but not of the message that a user sees.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception as error:
            captured.seek(0)
            if written := captured.read(MAX_BYTES).decode(errors="replace").strip():
                error.add_note(written)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def ignore_schemas_of_launchers() -> None:
    """Ignore Hydra's warning that a launcher option has the same name as the schema of its plugin."""
    warnings.filterwarnings("ignore", message=r"(?s)\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
