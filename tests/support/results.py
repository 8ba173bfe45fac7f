"""What commands write with --json, checked against its published form."""

import json
from typing import Any

import jsonschema

from tests.conftest import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "docs" / "reference" / "results.schema.json").read_text())


def document(text: str) -> Any:
    """The only thing on standard output, in the published form."""
    found = json.loads(text)
    jsonschema.validate(found, SCHEMA)
    return found
