"""Which layers strategy.layers means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.quantization.selection import Layer, checked, select
from experiments.system.errors import UserError

LAYERS = [
    Layer("conv2d", "Conv2D", True),
    Layer("relu", "ReLU", False),
    Layer("conv2d_1", "Conv2D", True),
    Layer("add", "Add", False),
    Layer("dense", "Dense", True),
]
NAMES = [layer.name for layer in LAYERS]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["dense"], ("dense",)),
        (["Dense"], ("dense",)),
        (["Conv2D"], ("conv2d", "conv2d_1")),
        (["conv2d"], ("conv2d",)),  # a name means just that layer, not what it begins
        (["conv2d.*"], ("conv2d", "conv2d_1")),
        (["first:2"], ("conv2d", "conv2d_1")),  # layers with weights are counted
        (["last:1"], ("dense",)),
        (["dense", "first:1"], ("conv2d", "dense")),  # in the order of the model
        (["Add"], ("add",)),
    ],
)
def test_patterns_choose_layers(patterns: list[str], chosen: tuple[str, ...]) -> None:
    assert select(LAYERS, patterns) == chosen


def test_a_pattern_that_selects_nothing_is_refused_with_similar_names() -> None:
    with pytest.raises(UserError, match=r"'conv2d_2' selects no layer.*Did you mean conv2d_1"):
        select(LAYERS, ["dense", "conv2d_2"])


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="'last:4' requires 4 layers, but the model has 3 with weights"):
        select(LAYERS, ["last:4"])


@pytest.mark.parametrize("pattern", ["conv2d(", "*", "last:0"])
def test_patterns_without_meaning_are_refused_before_there_is_a_model(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|selects no layer"):
        checked((pattern,))


@given(st.integers(1, 3), st.integers(1, 3))
def test_first_and_last_are_the_ends_of_the_weighted_layers(first: int, last: int) -> None:
    weighted = [layer.name for layer in LAYERS if layer.weighted]
    wanted = {*weighted[:first], *weighted[-last:]}
    assert set(select(LAYERS, [f"first:{first}", f"last:{last}"])) == wanted


@given(st.lists(st.sampled_from(NAMES), min_size=1))
def test_names_choose_themselves_once_and_in_order(patterns: list[str]) -> None:
    assert select(LAYERS, patterns) == tuple(name for name in NAMES if name in patterns)
