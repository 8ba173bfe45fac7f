"""Pruning, then quantization-aware training that keeps the zeros."""

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Promise
from experiments.strategy import CompressingQAT
from experiments.strategy.prune import Prune, Share
from experiments.tflite import Calibration
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class PruneQAT(CompressingQAT):
    """Trains finetune.epochs twice: once pruning, once quantization-aware."""

    sparsity: Share = 0.8

    def promise(self, model: "Model") -> Promise:
        """int8, and at least so many zeros."""
        from experiments.strategy.compression import frozen, refuse

        refuse(model, prune=True)
        return replace(super().promise(model), sparsity=self.sparsity, uncompressed=frozen(model))

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The pruned model, trained quantization-aware."""
        compressed = Prune(sparsity=self.sparsity).prepare(model, fit, calibration)
        return self.quantized(compressed, fit, calibration, keep=["zeros"])
