"""What a list of names that a model file may use consists of; the lists are in keras2/ and keras3/."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownNames:
    """The names of one version of Keras that compute, and neither run Python code nor read files."""

    classes: Mapping[str, frozenset[str]]  # by the module that a configuration gives
    classes_without_module: frozenset[str]
    functions: Mapping[str, frozenset[str]]
    functions_without_module: frozenset[str]
    by_key: Mapping[str, frozenset[str]]  # names as text, by the end of their key: kernel_initializer
    registered: frozenset[str] = frozenset()  # names under which Keras registers classes of its own
    operations: frozenset[str] = frozenset()  # functions of TensorFlow that layers of operations may call
    operations_as_layers: frozenset[str] = frozenset()
    only_with_module: frozenset[str] = frozenset()  # classes that files without modules cannot hold
