"""Where quantization-aware copies were made in earlier versions: code that measures the suite from outside names it."""

from experiments.quantization.tfmot.annotation import annotated, annotated_whole

__all__ = ["annotated", "annotated_whole"]
