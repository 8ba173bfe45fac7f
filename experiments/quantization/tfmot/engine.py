"""TFMOT as an engine; see quantization.engines.Engine."""

from experiments.quantization.tfmot.annotation import (
    annotated,
    fake_quantization_off,
    fit_ranges,
    in_float,
    start_ranges,
    survey,
)
from experiments.quantization.tfmot.compression import (
    clustered,
    pruned,
    pruning_callbacks,
    refuse,
    to_cluster,
    to_prune,
    to_quantize,
    wrappers_idle,
)

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
