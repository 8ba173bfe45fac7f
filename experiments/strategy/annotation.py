"""The former module of quantization-aware copies, which external code may still import."""

from experiments.quantization.tfmot.annotation import annotated, annotated_whole

__all__ = ["annotated", "annotated_whole"]
