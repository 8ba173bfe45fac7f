"""Architectures: each file builds one, for any image shape and number of classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Architecture(ABC):
    """What a model option is: something that builds a Keras model. A new architecture defines `build`.

    One that is given, and not built to fit, takes images as they are stored where its input has their number of axes;
    others get a channel axis for grey images.
    """

    given: ClassVar[bool] = False  # whether `build` gives a model with weights of its own, whatever the seed

    def check(self) -> None:
        """Raise UserError where the model cannot be built; called before TensorFlow is imported."""

    def sources(self) -> Sequence[Path]:
        """Files of a user's own code that it runs, which a result depends on as on this class."""
        return ()

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """A Keras model from images (n, *input_shape) float32 to logits (n, classes) float32.

        The layers carry fixed names, so that a selection of layers means the same in every run.
        """
