"""Data sets that Keras downloads once and keeps in its own cache (~/.keras/datasets)."""

from typing import Literal

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.dataset import Raw, Source
from experiments.errors import UserError


@card(frozen=True, config=CARD, kw_only=True)
class KerasDataset(Source):
    """A data set of `tf.keras.datasets`, by its name there."""

    name: Literal["fashion_mnist", "cifar10"]

    def read(self) -> Raw:
        """The arrays from Keras' cache, or from its server the first time."""
        from experiments.tensorflow_quietly import keras

        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, self.name).load_data()
        except Exception as error:  # Keras raises a bare Exception for every network failure
            raise UserError(
                f"dataset={self.name}: not in Keras' cache, and the download failed ({error}). On a machine "
                "without internet, make the file elsewhere with numpy.savez('data.npz', x_train=..., "
                "y_train=..., x_test=..., y_test=...) and give dataset=npz dataset.path=data.npz."
            ) from error
        return Raw(x_train, y_train, x_test, y_test)
