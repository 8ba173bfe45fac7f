"""TFMOT's functions for quantization-aware models as TensorFlow's AutoGraph rewrites them, made once for a sweep.

AutoGraph rewrites a function when it is first traced, which takes a second for such a model, and every run would do it
again in its own process. Loaded by the fork server, this module does it for all of them; AutoGraph finds what it has
rewritten by the function's code.

It changes no result and needs private names of TensorFlow and TFMOT. A function that is missing here, or all of them
where a name is gone or QUANTIZATION_BENCH_REWRITE=0 is set, are rewritten by each run as ever.
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
    """Rewrite the functions; empty, or why that was not done."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    try:
        from tensorflow.python.autograph.core import converter
        from tensorflow.python.autograph.impl import api

        context = converter.ProgramContext(options=converter.STANDARD_OPTIONS)
        with tempfile.TemporaryDirectory(prefix="rewritten-") as folder, replaced(tempfile, "tempdir", folder):
            for function in _functions():
                api._convert_actual(function, context)
    except (ImportError, AttributeError, TypeError) as error:  # a version in which these are named or called otherwise
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
