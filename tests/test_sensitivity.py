"""Which layers bear quantization, and what is proposed."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sensitivity import Measure, Measured, Options, nearest, smallest_within
from experiments.statistics import Estimate
from tests.conftest import run, save_images

FEW = ("a", "b", "c")
MANY = tuple("abcdefgh")


def measure_with(drops: dict[str, float], sizes: dict[str, int]) -> Measure:
    """Files whose drops of accuracy add up, layer by layer; a layer in int8 saves its size."""

    def measure(chosen: Collection[str]) -> Measured:
        drop = sum(drops[unit] for unit in chosen)
        size = 1000 - sum(sizes[unit] for unit in chosen)
        return Measured(tuple(sorted(chosen)), size, 1 - drop, Estimate(-drop, -drop, -drop), drop)

    return measure


def test_everything_is_quantized_where_nothing_is_lost() -> None:
    measure = measure_with(dict.fromkeys(MANY, 0.0), dict.fromkeys(MANY, 10))
    assert smallest_within(MANY, measure, 0.0).chosen == MANY


@pytest.mark.parametrize("units", [FEW, MANY], ids=["every choice", "step by step"])
def test_the_layer_that_costs_too_much_stays_float(units: tuple[str, ...]) -> None:
    drops = {unit: 0.1 if unit == "b" else 0.0 for unit in units}
    measure = measure_with(drops, dict.fromkeys(units, 10))
    assert set(smallest_within(units, measure, 0.01).chosen) == set(units) - {"b"}


@given(
    st.fixed_dictionaries({unit: st.floats(0, 0.1) for unit in MANY}),
    st.fixed_dictionaries({unit: st.integers(1, 100) for unit in MANY}),
    st.floats(0, 0.2),
)
def test_a_proposal_keeps_the_bound(drops: dict[str, float], sizes: dict[str, int], max_drop: float) -> None:
    assert -smallest_within(MANY, measure_with(drops, sizes), max_drop).change.value <= max_drop


@given(st.fixed_dictionaries({unit: st.floats(0, 0.1) for unit in FEW}), st.floats(0, 0.2))
def test_of_few_layers_no_smaller_choice_keeps_the_bound(drops: dict[str, float], max_drop: float) -> None:
    measure = measure_with(drops, {"a": 1, "b": 2, "c": 4})
    proposed = smallest_within(FEW, measure, max_drop)
    smaller = [measure(set(FEW) - {unit}) for unit in FEW] + [measure(FEW)]
    assert not [file for file in smaller if file.bytes < proposed.bytes and -file.change.value <= max_drop]


def test_values_are_rounded_to_the_nearest_level_and_stay_where_there_is_none() -> None:
    values = np.array([[-9.0, 0.4, 0.6, 9.0]], np.float32)
    assert nearest(values, np.array([-1.0, 0.0, 1.0])).tolist() == [[-1.0, 0.0, 1.0, 1.0]]
    assert nearest(values, np.empty(0)) is values


@pytest.mark.tensorflow
def test_every_layer_of_a_network_with_branches_is_measured_alone() -> None:
    from experiments.configuration import composed
    from experiments.sensitivity import find

    overrides = ["model=resnet8", "epochs=0", "dataset.train_samples=300", "dataset.test_samples=10"]
    findings = find(composed(overrides).experiment, Options(images=20, max_drop=1.0))
    assert {"stem", "conv_0a", "add_0", "shortcut_1", "pool", "dense"} <= set(findings.alone)
    assert findings.proposal.chosen == findings.units
    assert findings.rounded.rms_logit_error > 0
    assert all(file.bytes < findings.none.bytes for unit, file in findings.alone.items() if unit.startswith("conv"))


@pytest.mark.endtoend
def test_the_command_prints_a_proposal_and_writes_a_table_and_a_picture(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images.npz")
    data = ["dataset=npz", f"dataset.path={images}", "training.batch_size=20"]
    done = run(tmp_path, "experiments.sensitivity", "model=mlp", *data, "max_drop=0.5", "images=20")
    assert done.returncode == 0, done.stderr
    assert "strategy=ptq_int8 'strategy.layers=[" in done.stdout
    assert (tmp_path / "sensitivity" / "sensitivity.csv").read_text().count("\n") == 11
    assert (tmp_path / "sensitivity" / "sensitivity.png").stat().st_size > 5000


@pytest.mark.endtoend
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("max_drop=much", "max_drop=much"),
        ("images=0", "images=0"),
        ("strategy=qat", "no strategy is chosen here"),
        ("model=resnet", "model=resnet: there is no such card"),
    ],
)
def test_a_wrong_setting_is_told_in_a_line(argument: str, said: str, tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.sensitivity", argument)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
