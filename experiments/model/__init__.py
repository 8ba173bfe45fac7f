"""Architectures: each file builds one, for any image shape and number of classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Architecture(ABC):
    """The base class of all model options, which build a Keras model. A new architecture defines `build`.

    An existing model (`given`) gets images in their stored shape if it fits its input; a new one gets a channel axis
    for grey images.
    """

    given: ClassVar[bool] = False  # whether `build` returns an existing model with its weights, whatever the seed
    has_trained_head: ClassVar[bool] = True  # whether a given model predicts the classes of the data already
    extras: ClassVar[tuple[str, ...]] = ()  # optional dependencies of this package that quantizing it requires

    @property
    def trainable(self) -> bool:
        """Whether the model has Keras layers, which training and selections of layers require."""
        return True

    def check(self) -> None:
        """Raise UserError if the model cannot be built; called before TensorFlow is imported."""

    def sources(self) -> Sequence[Path]:
        """Return the files of user code that decide a result, in addition to the file of this class."""
        return ()

    @abstractmethod
    def build(self, input_shape: Any, classes: int) -> "Model":
        """Return a Keras model from images (n, *input_shape) float32 to logits (n, classes) float32.

        Of several inputs, `input_shape` has the shapes by name; only an existing model has several.

        The layers have fixed names, so that a selection of layers means the same in every run.
        """
