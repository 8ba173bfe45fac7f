"""Our own engine, for Keras 3; see quantization.engines.Engine."""

from typing import TYPE_CHECKING

from experiments.dataset import Images
from experiments.quantization.keras3 import annotation
from experiments.quantization.keras3.annotation import annotated, fake_quantization_off, in_float
from experiments.quantization.keras3.compression import (
    clustered,
    pruned,
    pruning_callbacks,
    refuse,
    to_cluster,
    to_prune,
    to_quantize,
    wrappers_idle,
)
from experiments.quantization.keras3.fake_quantization import ActivationBits
from experiments.quantization.keras3.graph import survey_layers
from experiments.quantization.survey import Survey

if TYPE_CHECKING:
    from keras import Model

__all__ = [
    "annotated",
    "clustered",
    "fake_quantization_off",
    "fit_ranges",
    "in_float",
    "pruned",
    "pruning_callbacks",
    "refuse",
    "start_ranges",
    "survey",
    "to_cluster",
    "to_prune",
    "to_quantize",
    "wrappers_idle",
]


def survey(model: "Model", activation_bits: ActivationBits = 8) -> Survey:
    """Return what this engine can quantize in a model, layer by layer."""
    return Survey(survey_layers(model, activation_bits))


def fit_ranges(quantized: "Model", images: Images) -> None:
    """Set the ranges of all activations to those of these images."""
    annotation.start_ranges(quantized, images)


def start_ranges(quantized: "Model", model: "Model", images: Images) -> None:
    """Start training from the ranges of calibration samples."""
    annotation.start_ranges(quantized, images)
