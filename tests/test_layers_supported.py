"""The benchmark of supported layers: what it calls supported, and when its figures are not reached."""

import pandas as pd
import pytest

from benchmarks import applications
from benchmarks.layers_supported import BLOCKS, LEAST_SUPPORTED, computes_in, failures, outcome, published_table, reason
from experiments.system.errors import UserError
from tests.tiny import dense_file


def found(supported: int, steps: float = 0.5) -> pd.DataFrame:
    own = ["int8"] * supported + ["refused"] * (len(BLOCKS) - supported)
    return pd.DataFrame(
        {
            "theme": [block.theme for block in BLOCKS.values()],
            "block": list(BLOCKS),
            "tfmot": "refused",
            "own": own,
            "converter": "float: RSQRT",
            "steps": [steps if each == "int8" else float("nan") for each in own],
        }
    )


def test_every_block_has_a_name_of_its_own_and_there_are_some_sixty() -> None:
    assert len(BLOCKS) >= 60


def test_as_many_blocks_as_are_promised_have_to_be_int8_and_near_their_models() -> None:
    assert failures(found(LEAST_SUPPORTED)) == []
    assert len(failures(found(LEAST_SUPPORTED - 1))) == 1
    assert len(failures(found(LEAST_SUPPORTED, steps=100.0))) == LEAST_SUPPORTED


def test_the_table_counts_what_is_int8_and_leaves_steps_of_refused_blocks_empty() -> None:
    text = published_table(found(55))
    assert f"All int8, of {len(BLOCKS)}: TFMOT 0, own engine 55, converter 0." in text
    assert "nan" not in text


def test_a_file_with_an_op_in_float_is_called_float_with_the_op() -> None:
    assert computes_in(dense_file().content) == "float: FULLY_CONNECTED"


@pytest.mark.tensorflow
def test_a_series_is_refused_by_tfmot_and_int8_with_our_engine() -> None:
    from experiments.system.tensorflow import keras

    keras.layers.Conv1D(1, 1)
    conv = outcome("Conv1D")
    assert (conv.tfmot, conv.own, conv.converter) == ("refused", "int8", "int8")
    assert conv.steps < 1
    assert "Layer conv1d:<class" in conv.why  # with the same number in any selection of rows


def test_a_reason_has_no_address_which_differs_in_each_process() -> None:
    assert reason(TypeError(f"{found} is not supported")) == "TypeError: <function found> is not supported"
    assert reason(UserError("Give a number.")) == "Give a number."


def test_networks_of_keras_applications_have_no_ops_in_float() -> None:
    row = {
        "network": "MobileNetV2", "keras": 2, "ops": 60, "float_ops": 2, "in_float": "2 LOGISTIC", "named": "swish (2)",
        "not_named": "", "bytes": 1000, "steps": 0.5,
    }  # fmt: skip
    assert "58 of 60" in applications.published_table(pd.DataFrame([row]))
    assert applications.failures(pd.DataFrame([row])) == ["MobileNetV2 in Keras 2 has ops in float: 2 LOGISTIC"]
    whole = {**row, "float_ops": 0, "in_float": ""}
    wrong = [whole, {**whole, "keras": 3}, {**row, "keras": 3}, {**whole, "not_named": "conv computes in float32"}]
    assert len(applications.failures(pd.DataFrame(wrong))) == 2


def test_a_network_without_a_file_is_a_missed_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UserError("kernel: is not finite")

    monkeypatch.setattr(applications, "outcome", refuse)
    table = pd.DataFrame([applications.outcome_or_refusal("EfficientNetB0", 2)])
    assert applications.failures(table) == ["EfficientNetB0 in Keras 2: kernel: is not finite"]
    assert "kernel: is not finite" in applications.published_table(table)
