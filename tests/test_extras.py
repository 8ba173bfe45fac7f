"""Optional packages: if one is missing, the message names the extra and the command, before any work."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.comparison.files import form_of
from experiments.runs.configuration import compose_request
from experiments.runs.launchers import check_launcher
from experiments.system import extras
from experiments.system.errors import UserError
from experiments.system.options import CONF
from experiments.system.program import DISTRIBUTION
from experiments.tracking import open_existing
from tests.conftest import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def launched_by(option: str) -> Callable[[], object]:
    launcher = OmegaConf.load(CONF / "hydra" / "launcher" / f"{option}.yaml")
    assert isinstance(launcher, DictConfig)
    return lambda: check_launcher(launcher)


def configured(*overrides: str) -> Callable[[], object]:
    return lambda: compose_request(list(overrides)).experiment.check()  # noqa: PLW0108  # composed when it is called


@pytest.mark.parametrize(
    ("extra", "asked", "ask"),
    [
        ("joblib", "hydra/launcher=joblib", launched_by("joblib")),
        ("ray", "hydra/launcher=ray", launched_by("ray")),
        ("slurm", "hydra/launcher=submitit", launched_by("submitit")),
        ("excel", "--out table.xlsx", lambda: form_of(Path("table.xlsx"))),
        ("parquet", "--out table.parquet", lambda: form_of(Path("table.parquet"))),
        ("int4", "strategy=ptq_int4", configured("strategy=ptq_int4")),
        ("int4", "strategy=ptq_int4_int8", configured("strategy=ptq_int4_int8")),
        ("int4", "strategy=qat strategy.rest=dynamic", configured("strategy=qat", "strategy.rest=dynamic")),
        ("tfds", "dataset.name=cats", configured("dataset=tfds", "dataset.name=cats")),
        ("detection", "task=detection", configured("task=detection", "dataset=drawn_shapes")),
        ("postgres", "tracking.uri=postgresql://host/runs:", lambda: open_existing("postgresql://host/runs")),
        ("postgres", "tracking.uri=postgresql://host/runs:", configured("tracking.uri=postgresql://host/runs")),
    ],
)  # fmt: skip
def test_missing_extra_is_named_with_the_command(
    extra: str, asked: str, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == extras.MODULES[extra] else object())
    with pytest.raises(UserError) as refusal:
        ask()
    install = f"pip install -c constraints.txt -e '.[{extra}]'"
    assert str(refusal.value) == f"{asked} requires the extra '{extra}': {install}"


def test_without_a_checkout_the_command_installs_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    monkeypatch.setattr(extras, "PACKAGE", tmp_path / "experiments")
    assert extras.missing("excel") == f"requires the extra 'excel': pip install '{DISTRIBUTION}[excel]'"


@pytest.mark.parametrize("overrides", [["strategy=ptq_int8"], ["strategy=qat"], ["tracking.uri=http://host:5000"]])
def test_everything_else_runs_without_extras(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    compose_request(overrides).experiment.check()


def test_every_extra_has_a_module_and_is_part_of_all() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert set(extras.MODULES) == set(EXTRAS) - {"all", "docs", "test"}
    (everything,) = EXTRAS["all"]
    assert everything == f"{DISTRIBUTION}[{','.join(name for name in EXTRAS if name in extras.MODULES)}]"
