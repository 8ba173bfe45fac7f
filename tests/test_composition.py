"""Jobs of a sweep, composed once for each choice of options, ask for what Hydra would compose for each of them."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict

from experiments.runs.command_line import normalize
from experiments.runs.composition import Composer
from experiments.runs.configuration import read
from experiments.runs.sweep import _jobs_of
from experiments.system.errors import UserError
from experiments.system.options import CONF
from hydra_plugins.checked_sweeper import CheckedSweeper

STRATEGIES = [path.stem for path in sorted((CONF / "strategy").glob("*.yaml"))]


@pytest.fixture
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        yield Composer("config")


def composed_by_hydra(overrides: list[str]) -> Any:
    config = compose("config", overrides, return_hydra_config=True)
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    return read(config, choices)


NIGHTLY = pytest.mark.nightly
SOME = [("mlp", 1, ()), ("resnet8", 5, ("finetune.epochs=2", "seed=3"))]
ALL = list(product(("mlp", "resnet8"), (1, 5), ((), ("finetune.epochs=2", "seed=3"))))


@pytest.mark.parametrize("cells", [pytest.param(SOME, id="some"), pytest.param(ALL, id="all", marks=NIGHTLY)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_job_has_the_configuration_that_hydra_would_compose(
    strategy: str, cells: Sequence[tuple[str, int, tuple[str, ...]]], composer: Composer
) -> None:
    for model, epochs, more in cells:
        job = [f"strategy={strategy}", f"model={model}", f"epochs={epochs}", *more]
        assert composer.request(job) == composed_by_hydra(job)


@pytest.mark.parametrize(
    "job",
    [
        ["++strategy.layers=[Dense]", "strategy=annotate"],
        ["strategy=annotate", "strategy.layers=[Conv2D,Dense]"],
        ["dataset=npz", "dataset.path=x.npz", "model=keras_file", "model.path=y.keras"],
        ["training={epochs:3,batch_size:7}"],
        ["training.epochs=${seed}", "seed=4"],
        ["epochs=1", "epochs=2"],
    ],
    ids=" ".join,
)
def test_unusual_jobs_as_well(job: list[str], composer: Composer) -> None:
    assert composer.request(job) == composed_by_hydra(job)


@pytest.mark.parametrize("key", ["model.path", "dataset.path"])
def test_a_name_that_looks_like_a_reference_is_the_same_in_each_job(
    key: str, composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a${x}.y").touch()
    given = normalize(["-m", "model=keras_file", "model.path=b", "dataset=npz", "dataset.path=c", f"{key}=a${{x}}.y"])
    config = compose("config", given[1:], return_hydra_config=True)
    (job,) = _jobs_of(config)
    assert getattr(composer.request(job).experiment, key.partition(".")[0]).path == Path("a${x}.y")


def test_a_value_of_one_job_does_not_leak_into_the_next(composer: Composer) -> None:
    composer.request(["strategy=qat", "training.batch_size=7"])
    assert composer.request(["strategy=qat"]).experiment.training.batch_size == 500


def test_options_that_jobs_share_are_made_once(composer: Composer) -> None:
    first, second = (composer.request([f"seed={seed}"]).experiment for seed in (1, 2))
    assert first.model is second.model


def test_hydra_reads_the_files_once_for_each_choice_of_options(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = GlobalHydra.instance().config_loader()
    load = Mock(side_effect=loader.load_configuration)
    monkeypatch.setattr(loader, "load_configuration", load)
    for strategy, seed in product(("none", "qat"), range(20)):
        composer.request([f"strategy={strategy}", f"seed={seed}"])
    assert load.call_count == 2


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (["seed=x"], r"seed=x: input should be a valid integer"),
        (["strategy=nope"], "unknown option in conf/strategy"),
        (["strategy=none", "strategy.layers=[a]"], "strategy.layers: requires strategy=annotate"),
    ],
)
def test_the_job_that_is_refused_is_named(job: list[str], message: str, composer: Composer) -> None:
    with pytest.raises(UserError, match=rf"{message}(.|\n)*\(in the run .*; no run was started\)"):
        composer.request(job)


def test_jobs_in_random_order_are_the_same_for_the_plan_and_the_run() -> None:
    swept = OverridesParser.create().parse_overrides(["seed=shuffle(range(0,50))", "epochs=shuffle(1,5,20)"])
    assert CheckedSweeper.split_arguments(swept, None) == CheckedSweeper.split_arguments(swept, None)


def test_every_sweep_has_this_sweeper(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        config = compose("config", [], return_hydra_config=True)
    assert config.hydra.sweeper._target_ == f"{CheckedSweeper.__module__}.{CheckedSweeper.__qualname__}"
