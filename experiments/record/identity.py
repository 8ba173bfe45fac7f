"""The identity of a run's model and data: digests of their content, and display names.

Runs are compared and pooled by these digests, never by names: the same file name may refer to different files, in two
folders or at two times.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.model.configuration import configuration_of
from experiments.system.contents import code_of, contents_of

if TYPE_CHECKING:
    from tf_keras import Model

    from experiments.model import Architecture

DIGITS = 16  # hexadecimal digits of a recorded digest
SHOWN = 6  # digits to display
DIGESTS = ("model_digest", "training_digest", "test_digest")  # tags of a run, and columns


@dataclass(frozen=True)
class Identity:
    """Names and digests of model and data; a digest is empty until it is known, since a run may fail earlier."""

    model_name: str
    dataset_name: str
    model: str = ""
    training: str = ""  # of the training and validation examples that were used
    test: str = ""

    def tags(self) -> dict[str, str]:
        """Return the known digests by tag name."""
        digests = zip(DIGESTS, (self.model, self.training, self.test), strict=True)
        return {name: digest for name, digest in digests if digest}


def name_of(option: str, file: object) -> str:
    """Return the display name of a model or data set: the stem of its file if it has one, else the option."""
    return (Path(file).stem if isinstance(file, str | Path) else "") or option


def with_digest(name: str, digest: str) -> str:
    """Append a short digest to an ambiguous name: my (3f2a91)."""
    return f"{name} ({digest if '/' in digest else digest[:SHOWN]})" if digest else name


def model_digest(model: "Model", architecture: "Architecture") -> str:
    """Return the digest of an existing model (architecture and weights) or a new one (architecture and options).

    Random initial weights are excluded, so that the digest is the same for every seed. The code of users' own layers
    and architectures is included.
    """
    digest = hashlib.sha256(json.dumps(configuration_of(model), sort_keys=True).encode())
    digest.update(code_of(model).encode())
    if architecture.given:
        for weights in model.get_weights():
            digest.update(f"{weights.dtype.str}{weights.shape}".encode())
            digest.update(np.ascontiguousarray(weights).tobytes())
    else:
        contents = dict(contents_of(architecture))
        contents["values"] = {name: value for name, value in contents["values"].items() if name != "keras"}
        digest.update(json.dumps(contents, sort_keys=True, default=str).encode())  # the version is in the configuration
    return digest.hexdigest()[:DIGITS]
