"""What is changed of TFMOT: by its schemes where it lets us, else by private names, which an update may rename."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from experiments.quantization.tfmot.replaced import replaced
from experiments.system.user_code import sources_of
from experiments.training.loop import digest_of

pytestmark = pytest.mark.tensorflow


def test_a_replaced_name_is_what_it_was_afterwards_also_after_an_error() -> None:
    class Owner:
        name = 1

    with pytest.raises(ZeroDivisionError), replaced(Owner, "name", 2):
        Owner.name //= 0
    assert Owner.name == 1


def test_a_missing_name_is_not_replaced() -> None:
    with pytest.raises(KeyError, match="renamed"), replaced(sys, "renamed", None):
        pass


def test_the_private_names_of_tfmot_that_are_replaced_are_those_that_it_calls() -> None:
    from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_aware_activation import (
        QuantizeAwareActivation,
    )

    quantizes = (quant_ops.LastValueQuantize, quant_ops.MovingAvgQuantize, quant_ops.AllValuesQuantize)
    assert all("_FakeQuantWithMinMaxVars" in function.__code__.co_names for function in quantizes)
    assert "update_clustered_weights_associations" in ClusterWeights.call.__code__.co_names
    assert "_PRE_QUANT_ACTIVATIONS" in QuantizeAwareActivation._should_pre_quantize.__code__.co_names


def test_the_halves_of_a_separable_convolution_have_its_name() -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole
    from experiments.quantization.tfmot.compression import to_quantize
    from experiments.system.tensorflow import keras

    layers = [keras.layers.InputLayer((8, 8, 1)), keras.layers.SeparableConv2D(2, 3, name="separable")]
    plain = keras.Sequential([*layers, keras.layers.Conv2D(2, 3, name="conv2d_1")])
    model = keras.Model(plain.inputs, plain.outputs)
    halves = ["quant_separable/depthwise", "quant_separable/pointwise", "quant_conv2d_1"]
    for copy in (annotated_whole(model), to_quantize(model, ["zeros"]), to_quantize(model, ["clusters"])):
        assert [layer.name for layer in copy.layers][-3:] == halves


def test_rewriting_ahead_can_be_switched_off_and_is_left_out_where_a_name_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from experiments.quantization.tfmot import rewritten

    def renamed() -> Any:
        raise AttributeError("module has no attribute _FakeQuantWithMinMaxVars")

    monkeypatch.setattr(rewritten, "_functions", renamed)
    assert rewritten.rewrite() == "AttributeError: module has no attribute _FakeQuantWithMinMaxVars"
    monkeypatch.setenv(rewritten.SWITCH, "0")
    assert rewritten.rewrite() == "QUANTIZATION_BENCH_REWRITE=0"


def test_the_code_of_a_users_quantizer_decides_the_digest_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.system.tensorflow import keras

    # isort: split
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_registry
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

    file = tmp_path / "coarse.py"
    file.write_text(
        "from tensorflow_model_optimization.python.core.quantization.keras import quantizers\n\n\n"
        "class Coarse(quantizers.LastValueQuantizer):\n    steps = 16\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = default_8bit_quantize_registry.Default8BitQuantizeConfig(["kernel"], ["activation"], False)
    config.weight_quantizer = import_module("coarse").Coarse(4, False, True, True)
    model = keras.Sequential([keras.layers.InputLayer((3,)), QuantizeWrapperV2(keras.layers.Dense(2), config)])
    assert file in sources_of(model)
    before = digest_of(model)
    file.write_text(file.read_text().replace("16", "8"))
    assert digest_of(model) != before
