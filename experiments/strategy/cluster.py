"""Weight clustering."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Promise
from experiments.strategy import Compressing
from experiments.strategy.checked import checked, stripped
from experiments.tflite import Calibration
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model

Clusters = Annotated[int, Field(ge=2, le=256)]


@card(frozen=True, config=CARD, kw_only=True)
class Cluster(Compressing):
    """`clusters` is how many distinct weights a kernel may have: smaller after gzip, not in the file."""

    clusters: Clusters = 16

    def promise(self, model: "Model") -> Promise:
        """No more distinct weights."""
        from experiments.strategy.compression import frozen, refuse

        refuse(model, cluster=True)
        return replace(super().promise(model), clusters=self.clusters, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The clustered model."""
        from experiments.strategy.compression import clustered, to_cluster

        trained = fit(checked(to_cluster(model, self.clusters), model, calibration))
        return replace(trained, model=stripped(clustered(trained.model), trained.model, calibration))
