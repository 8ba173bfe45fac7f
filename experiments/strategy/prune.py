"""Magnitude pruning."""

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

Share = Annotated[float, Field(gt=0, lt=1)]


@option(frozen=True, config=OPTION, kw_only=True)
class Prune(Compressing):
    """`sparsity` is the share of each kernel's weights that become zero: the file is smaller only after gzip."""

    sparsity: Share = 0.8

    def compression(self, model: "Model") -> Compression:
        """Return the minimum share of zeros."""
        engine_of(model).refuse(model, prune=True)
        return Compression(sparsity=self.sparsity, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the pruned model."""
        engine = engine_of(model)
        copy = checked(engine.to_prune(model, self.sparsity), model, calibration)
        trained = fit(copy, engine.pruning_callbacks())
        return replace(trained, model=stripped(engine.pruned(trained.model), trained.model, calibration))
