"""What a run is about, by content: digests of the model and of the examples, and the names that people know them by.

Whatever is compared, pooled or answered for goes by these digests. A name says where something was found, and two
files that stand under one name, at two places or one after the other, are two things.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.system.user_code import sha256, sources_of, user_sources

if TYPE_CHECKING:
    from tf_keras import Model

    from experiments.model import Architecture

DIGITS = 16  # hexadecimal, of a digest that is recorded
SHOWN = 6  # of them, where people read them
DIGESTS = ("model_digest", "training_digest", "test_digest")  # tags of a run, and columns


@dataclass(frozen=True)
class Identity:
    """The digests are empty until they are known: a run may fail before."""

    model_name: str
    dataset_name: str
    model: str = ""
    training: str = ""  # of the training and validation examples that were used
    test: str = ""

    def tags(self) -> dict[str, str]:
        """The digests that are known, under their recorded names."""
        known = zip(DIGESTS, (self.model, self.training, self.test), strict=True)
        return {name: digest for name, digest in known if digest}


def name_of(option: str, file: object) -> str:
    """What people call a model or data set: the stem of its file where it has one, else the chosen option."""
    return (Path(file).stem if isinstance(file, str | Path) else "") or option


def with_digest(name: str, digest: str) -> str:
    """A name that several things share: my (3f2a91)."""
    return f"{name} ({digest if '/' in digest else digest[:SHOWN]})" if digest else name


def model_digest(model: "Model", architecture: "Architecture") -> str:
    """A given model by its architecture and weights; one that is trained here by its architecture and settings.

    The random weights that a training starts from are left out, so that it is the same for every seed. The code of
    users' own layers and architectures counts.
    """
    described = json.loads(model.to_json())
    described.pop("keras_version", None)  # a newer Keras makes no other model
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for source in sources_of(model):
        digest.update(sha256(source).encode())
    if architecture.given:
        for weights in model.get_weights():
            digest.update(f"{weights.dtype.str}{weights.shape}".encode())
            digest.update(np.ascontiguousarray(weights).tobytes())
    else:
        digest.update(json.dumps(contents_of(architecture), sort_keys=True, default=str).encode())
    return digest.hexdigest()[:DIGITS]


def contents_of(option: Any) -> Mapping[str, Any]:
    """All of a configured object that decides a result: its class, code of a user's own, and its values by content.

    Raises:
        UserError: a file that it names cannot be read.
    """
    return {
        "class": type(option).__qualname__,
        "source": [sha256(path) for path in (*user_sources(type(option)), *getattr(option, "sources", tuple)())],
        "values": {name: content_of(value) for name, value in asdict(option).items()},
    }


def content_of(value: Any) -> Any:
    """A value as a result depends on it: files by what they hold, folders by their files."""
    match value:
        case Path() if value.is_file():
            return sha256(value)
        case Path() if value.is_dir():
            files = sorted(path for path in value.rglob("*") if path.is_file())
            return [(str(path.relative_to(value)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        case list() | tuple():
            return [content_of(each) for each in value]
    return value
