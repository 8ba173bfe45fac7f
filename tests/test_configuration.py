"""What a command asks for, and what is said of a configuration that cannot be meant, before anything is run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.runs.configuration import compose_request, explaining_errors
from experiments.system.errors import UserError, suggestion


@pytest.mark.parametrize(("overrides", "threads"), [([], None), (["threads=2"], 2)])
def test_threads_are_set_only_if_requested(overrides: list[str], threads: int | None) -> None:
    assert compose_request(overrides).parameters["threads"] == threads


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["suite=smoke"], r"requires a plus. Type \+suite=NAME"),
        (["hydra.launcher.n_jobs=4"], "Choose another launcher, as in hydra/launcher=joblib"),
        (["~strategy._target_"], r"strategy: _target_ \(missing\) requires the name of a subclass of"),
        (
            ["strategy._target_=experiments.model.mlp.MLP"],
            "a subclass of experiments.strategy.Strategy",
        ),
        (
            ["model.path=my.keras"],
            "model.path: requires model=keras_file or model=pretrained or model=saved_model or model=tflite_file",
        ),
        (["training.learning_rate=inf"], "training.learning_rate=inf: input should be a finite number"),
        (["tracking.uri=postgres://me:secret@host/db"], r"tracking.uri=postgres://\*\*\*@host/db: requires"),
        (["training=5"], "training"),
        (["epochs=${nothing}"], "nothing"),
        (["strategy=[qat"], r"strategy=\[qat: cannot be parsed as KEY=VALUE"),
        (["strategy"], "strategy: cannot be parsed as KEY=VALUE"),
        (["epochs=1,5"], "epochs=1,5: several values require a sweep. Type -m"),
        (["strategy=annotate", "strategy.layers={a:null}"], r"requires a list, as in \[a,b\], not a mapping"),
        (["strategy=annotate", "strategy.layers=3"], r"strategy.layers=3: input should be a list, as in \[a,b\]"),
        (["strategy=prune_cluster_qat", "strategy.clusters=2"], "strategy.clusters=2: input should be greater than or"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_setting_is_refused_with_the_valid_values(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose_request(overrides)


def test_a_name_is_proposed_whatever_its_case() -> None:
    assert suggestion("QAT", ["none", "qat"]).startswith("Did you mean qat?")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("!!bool x", "x is not a valid !!bool"),
        ("!!int abc", "abc is not a valid !!int"),
        ("!!int ''", "an empty text is not a valid !!int"),
        ("!!float x", "x is not a valid !!float"),
        ("!!timestamp x", "x is not a valid !!timestamp"),
        ("!!timestamp 2020-13-45", "2020-13-45 is not a valid !!timestamp"),
        ("0x_", "0x_ is not a valid !!int"),
        ("!!python/object/apply:pathlib.Path [1]", "this value is not a valid !!python/object/apply:pathlib.Path"),
        ("!!python/object:os.System {}", "could not determine a constructor"),
    ],
)
def test_a_value_of_which_yaml_can_make_nothing_is_named_with_its_file_and_line(
    value: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(f"first: 1\nsecond: {value}\n")
    with (
        pytest.raises(UserError, match=rf"mine\.yaml, line 2: invalid YAML \({told}"),
        explaining_errors(),
    ):
        OmegaConf.load(tmp_path / "mine.yaml")


def test_an_error_in_the_code_is_not_reported_as_an_invalid_configuration() -> None:
    with pytest.raises(KeyError), explaining_errors():
        dict[str, int]()["x"]
