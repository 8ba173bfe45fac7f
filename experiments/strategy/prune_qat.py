"""Pruning, then quantization-aware training that keeps the zeros."""

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.quantization.compressible import frozen
from experiments.quantization.engines import engine_of
from experiments.strategy import CompressingQAT
from experiments.strategy.prune import Prune, Share
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration
from experiments.tflite.expectation import Compression
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class PruneQAT(CompressingQAT):
    """Trains finetune.epochs twice: with pruning, then quantization-aware."""

    trainings: ClassVar[int] = 2

    sparsity: Share = 0.8

    def compression(self, model: "Model") -> Compression:
        """Return the minimum share of zeros."""
        engine_of(model).refuse(model, prune=True)
        return Compression(sparsity=self.sparsity, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the pruned model after quantization-aware training."""
        compressed = Prune(sparsity=self.sparsity).prepare(model, fit, calibration)
        return self.quantized(compressed, fit, calibration, keep=["zeros"])
