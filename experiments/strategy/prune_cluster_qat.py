"""Pruning, clustering that keeps the zeros, then quantization-aware training that keeps both."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as option

from experiments.quantization.checked import checked, stripped
from experiments.quantization.compressible import frozen
from experiments.quantization.engines import engine_of
from experiments.strategy import CompressingQAT
from experiments.strategy.cluster import Clusters
from experiments.strategy.prune import Prune, Share
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration
from experiments.tflite.expectation import Compression
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class PruneClusterQAT(CompressingQAT):
    """Trains finetune.epochs three times: with pruning, with clustering, then quantization-aware."""

    trainings: ClassVar[int] = 3

    sparsity: Share = 0.8
    clusters: Annotated[Clusters, Field(ge=3)] = 16  # one of them is zero

    def compression(self, model: "Model") -> Compression:
        """Return the minimum share of zeros and the maximum of distinct weights."""
        engine_of(model).refuse(model, prune=True, cluster=True)
        return Compression(sparsity=self.sparsity, clusters=self.clusters, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the pruned and clustered model after quantization-aware training."""
        engine = engine_of(model)
        sparse = Prune(sparsity=self.sparsity).prepare(model, fit, calibration)
        copy = checked(engine.to_cluster(sparse.model, self.clusters, keep_zeros=True), sparse.model, calibration)
        both = fit(copy)
        compressed = replace(both.after(sparse), model=stripped(engine.clustered(both.model), both.model, calibration))
        return self.quantized(compressed, fit, calibration, keep=["zeros", "clusters"])
