"""What can be chosen, supported, refused and blamed follows from a survey of a model's layers."""

import pytest

from experiments.quantization.survey import Survey, SurveyedLayer
from experiments.system.errors import UserError
from experiments.tflite.expectation import Difference

CONV = ("conv", "bn", "relu")
SURVEY = Survey(
    (
        SurveyedLayer("conv", "Conv2D", weighted=True, group=CONV, neighbours=frozenset({"image", "bn"})),
        SurveyedLayer("bn", "BatchNormalization", group=CONV, neighbours=frozenset({"conv", "relu"})),
        SurveyedLayer("relu", "ReLU", group=CONV, neighbours=frozenset({"bn", "flatten"})),
        SurveyedLayer("flatten", "Flatten", passing=True, neighbours=frozenset({"relu", "dense"})),
        SurveyedLayer("dense", "Dense", weighted=True, neighbours=frozenset({"flatten", "out"})),
        SurveyedLayer("out", "Dense", weighted=True, obstacle="an activation", neighbours=frozenset({"dense"})),
    )
)


def test_a_chosen_layer_brings_along_what_is_folded_into_its_op() -> None:
    assert SURVEY.select(["first:1"]) == CONV


def test_a_layer_that_hands_values_on_cannot_be_chosen() -> None:
    with pytest.raises(UserError, match="selects no layer"):
        SURVEY.select(["flatten"])


def test_units_are_the_ops_of_the_model() -> None:
    assert SURVEY.units == {"conv": CONV, "dense": ("dense",), "out": ("out",)}


def test_layers_with_an_obstacle_are_unsupported_for_their_reason() -> None:
    assert SURVEY.unsupported == {"out": "an activation"}


def test_an_obstacle_holds_for_all_layers_of_an_op() -> None:
    group = ("a", "b")
    survey = Survey((SurveyedLayer("a", "Conv2D", group=group), SurveyedLayer("b", "ELU", obstacle="no", group=group)))
    assert survey.unsupported == {"a": "is one op with b, which is not supported", "b": "no"}


def test_a_refusal_names_layers_that_can_be_annotated_instead() -> None:
    with pytest.raises(UserError, match=r"out \(an activation\).*strategy.layers=\[conv,dense\]"):
        SURVEY.refuse_unsupported(["out", "dense"])


def test_supported_layers_are_not_refused() -> None:
    SURVEY.refuse_unsupported(["dense"])


def test_an_op_in_float_is_blamed_on_its_layer_and_all_that_are_one_op_with_it() -> None:
    found = [Difference("conv (CONV_2D) computes in float32 instead of int8", "conv", "CONV_2D", "float32")]
    assert list(SURVEY.breaking(None, found)) == ["conv", "bn", "relu"]


def test_a_difference_beside_quantized_layers_is_blamed_on_them() -> None:
    found = [Difference("out (FULLY_CONNECTED) computes in int8 instead of float32", "out", "FULLY_CONNECTED", "int8")]
    assert list(SURVEY.breaking(["dense"], found)) == ["dense"]


def test_a_difference_that_no_quantized_layer_explains_is_an_error() -> None:
    with pytest.raises(UserError, match="cannot meet the expectation"):
        SURVEY.breaking(["conv"], [Difference("the file is odd")])
