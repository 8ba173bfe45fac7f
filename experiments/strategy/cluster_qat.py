"""Weight clustering, then quantization-aware training that keeps the clusters."""

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.quantization.compressible import frozen
from experiments.quantization.engines import engine_of
from experiments.strategy import CompressingQAT
from experiments.strategy.cluster import Cluster, Clusters
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration
from experiments.tflite.expectation import Compression
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class ClusterQAT(CompressingQAT):
    """Trains finetune.epochs twice: with clustering, then quantization-aware."""

    trainings: ClassVar[int] = 2

    clusters: Clusters = 16

    def compression(self, model: "Model") -> Compression:
        """Return the maximum of distinct weights."""
        engine_of(model).refuse(model, cluster=True)
        return Compression(clusters=self.clusters, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the clustered model after quantization-aware training."""
        compressed = Cluster(clusters=self.clusters).prepare(model, fit, calibration)
        return self.quantized(compressed, fit, calibration, keep=["clusters"])
