"""Weight clustering."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as option

from experiments.quantization.checked import checked, stripped
from experiments.quantization.compressible import frozen
from experiments.quantization.engines import engine_of
from experiments.strategy import Compressing
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration
from experiments.tflite.expectation import Compression
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model

Clusters = Annotated[int, Field(ge=2, le=256)]


@option(frozen=True, config=OPTION, kw_only=True)
class Cluster(Compressing):
    """`clusters` is the number of distinct weights per kernel: the file is smaller only after gzip."""

    clusters: Clusters = 16

    def compression(self, model: "Model") -> Compression:
        """Return the maximum of distinct weights."""
        engine_of(model).refuse(model, cluster=True)
        return Compression(clusters=self.clusters, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the clustered model."""
        engine = engine_of(model)
        trained = fit(checked(engine.to_cluster(model, self.clusters), model, calibration))
        return replace(trained, model=stripped(engine.clustered(trained.model), trained.model, calibration))
