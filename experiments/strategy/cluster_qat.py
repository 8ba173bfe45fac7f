"""Weight clustering, then quantization-aware training that keeps the clusters."""

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Promise
from experiments.strategy import CompressingQAT
from experiments.strategy.cluster import Cluster, Clusters
from experiments.tflite import Calibration
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class ClusterQAT(CompressingQAT):
    """Trains finetune.epochs twice: once clustering, once quantization-aware."""

    clusters: Clusters = 16

    def promise(self, model: "Model") -> Promise:
        """int8, and no more distinct weights."""
        from experiments.strategy.compression import frozen, refuse

        refuse(model, cluster=True)
        return replace(super().promise(model), clusters=self.clusters, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The clustered model, trained quantization-aware."""
        compressed = Cluster(clusters=self.clusters).prepare(model, fit, calibration)
        return self.quantized(compressed, fit, calibration, keep=["clusters"])
