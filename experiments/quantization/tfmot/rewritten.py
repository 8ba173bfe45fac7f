"""Rewrite TFMOT's functions with TensorFlow's AutoGraph once per sweep.

AutoGraph rewrites a function when it is first traced, which takes a second for a quantization-aware model, and would be
repeated in the process of every run. The fork server imports this module, so all runs share the rewritten functions,
which AutoGraph looks up by their code.

This changes no result, but uses private names of TensorFlow and TFMOT. Functions that are not listed here, or all of
them if a name no longer exists or QUANTIZATION_BENCH_REWRITE=0 is set, are rewritten in each run.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import experiments.system.tensorflow  # noqa: F401  # it chooses Keras 2, before TFMOT is imported
from experiments.quantization.tfmot.replaced import replaced
from experiments.system.errors import first_line

SWITCH = "QUANTIZATION_BENCH_REWRITE"


def rewrite() -> str:
    """Rewrite the functions; returns the reason if that was not possible, else an empty string."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    try:
        from tensorflow.python.autograph.core import converter
        from tensorflow.python.autograph.impl import api

        context = converter.ProgramContext(options=converter.STANDARD_OPTIONS)
        with tempfile.TemporaryDirectory(prefix="rewritten-") as folder, replaced(tempfile, "tempdir", folder):
            for function in _functions():
                api._convert_actual(function, context)
    except (ImportError, AttributeError, TypeError) as error:  # another version, with other names or signatures
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _functions() -> tuple[Callable[..., Any], ...]:
    from tensorflow_model_optimization.python.core.keras import compat, utils
    from tensorflow_model_optimization.python.core.quantization.keras import (
        quant_ops,
        quantize_annotate,
        quantize_config,
        quantize_layer,
        quantize_wrapper,
        quantizers,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as default_8bit,
    )

    return (
        utils.smart_cond,
        compat.assign,
        quant_ops.AllValuesQuantize,
        quant_ops.LastValueQuantize,
        quant_ops.MovingAvgQuantize,
        quant_ops._FakeQuantWithMinMaxVars,
        quantizers.AllValuesQuantizer.__call__,
        quantizers.LastValueQuantizer.__call__,
        quantizers.MovingAverageQuantizer.__call__,
        quantize_annotate.QuantizeAnnotate.call,
        quantize_layer.QuantizeLayer.call,
        quantize_wrapper.QuantizeWrapper.call,
        quantize_wrapper.QuantizeWrapper._make_quantizer_fn,
        quantize_config.OutputOnlyConfig.set_quantize_weights,
        quantize_config.OutputOnlyConfig.set_quantize_activations,
        default_8bit.Default8BitQuantizeConfig.set_quantize_weights,
        default_8bit.Default8BitQuantizeConfig.set_quantize_activations,
    )


NOT_DONE = rewrite()
