"""TFMOT's functions for quantization-aware models as TensorFlow's AutoGraph rewrites them, made once for a sweep.

AutoGraph rewrites a function when it is first traced, which takes a second for such a model, and every run would do it
again in its own process. Loaded by the fork server, this module does it for all of them; AutoGraph finds what it has
rewritten by the function's code. A function that is missing here is rewritten by each run as ever.
"""

import tempfile
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import experiments.system.tensorflow  # noqa: F401  # first: it chooses Keras 2

# isort: split
from tensorflow.python.autograph.core import converter
from tensorflow.python.autograph.impl import api
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

FUNCTIONS: tuple[Callable[..., Any], ...] = (
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
_CONTEXT = converter.ProgramContext(options=converter.STANDARD_OPTIONS)


with tempfile.TemporaryDirectory(prefix="rewritten-") as _folder, patch.object(tempfile, "tempdir", _folder):
    for _function in FUNCTIONS:
        api._convert_actual(_function, _CONTEXT)
