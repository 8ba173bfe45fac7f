"""From Hydra's configuration to typed objects, once, at the door; and what a user is told when it does not work."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import Field, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass as card

from experiments.cache import Cache
from experiments.card import CARD, CONF, problems
from experiments.dataset import Source
from experiments.errors import UserError, first_line, near
from experiments.machine import usable_cores
from experiments.measure.latency import LatencyProtocol
from experiments.model import Architecture
from experiments.pipeline import Experiment
from experiments.record import Setting
from experiments.strategy import Strategy
from experiments.tracking import Tracking
from experiments.training import Training

# What each card makes.
KINDS: Mapping[str, type] = {
    "dataset": Source,
    "model": Architecture,
    "strategy": Strategy,
    "tracking": Tracking,
    "training": Training,
    "finetune": Training,
    "latency": LatencyProtocol,
    "cache": Cache,
}
CARDS = tuple(KINDS)
SWITCHES = ("seed", "threads", "resume", "sweep")


@card(frozen=True, config=CARD, kw_only=True)
class Switches:
    """The settings that stand in config.yaml by themselves."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy takes as a seed
    threads: PositiveInt | None
    resume: bool
    sweep: str | None


@dataclass(frozen=True)
class Request:
    """What one command, or one job of a sweep, asks for."""

    experiment: Experiment
    tracking: Tracking
    resume: bool
    sweep: str | None  # id of the parent run
    parameters: Mapping[str, Any]  # the configuration, flattened: dataset.train_samples and so on
    text: str  # the configuration as YAML


def read(config: DictConfig, choices: Mapping[str, str]) -> Request:
    """The typed form of a composed configuration; `choices` are the cards' names by group.

    Raises:
        UserError: a value is missing, of the wrong kind, or out of range.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} is missing: give it on the command line, as in {key}=...") from error
    assert isinstance(plain, dict)
    settings: dict[str, Any] = {str(key): value for key, value in plain.items() if key != "hydra"}
    _refuse_strangers(settings)
    cards = {key: _made(key, settings[key]) for key in CARDS}
    switches = _checked_switches({key: settings[key] for key in SWITCHES})
    strategy = cards["strategy"]
    setting = Setting(
        strategy=choices["strategy"],
        model=choices["model"],
        dataset=choices["dataset"],
        epochs=cards["training"].epochs,
        finetune_epochs=cards["finetune"].epochs if strategy.trains else 0,
        seed=switches.seed,
    )
    return Request(
        experiment=Experiment(
            setting=setting,
            dataset=cards["dataset"],
            model=cards["model"],
            strategy=strategy,
            training=cards["training"],
            finetune=cards["finetune"],
            latency=cards["latency"],
            cache=cards["cache"],
            threads=switches.threads or usable_cores(),
        ),
        tracking=cards["tracking"],
        resume=switches.resume,
        sweep=switches.sweep,
        parameters=dict(_flat(settings)),
        text=OmegaConf.to_yaml(OmegaConf.create(settings)),
    )


def dataset_of(text: str) -> Source:
    """The data set of a run, from its configuration as it was recorded.

    Raises:
        UserError: this version knows no such data set, or not these settings.
    """
    settings = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(settings, dict)
    made: Source = _made("dataset", settings["dataset"])
    return made


def composed(overrides: Sequence[str]) -> Request:
    """What `python -m experiments.run` would make of these overrides.

    Raises:
        UserError: Hydra or a card refuses them.
    """
    try:
        with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
            config = compose("config", list(overrides), return_hydra_config=True)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            del config["hydra"]
        return read(config, choices)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(told(error)) from error


def _refuse_strangers(settings: Mapping[str, Any]) -> None:
    """Hydra lets +key=value add anything and ~key take anything away."""
    expected = {*CARDS, *SWITCHES, "epochs"}
    for key in sorted(settings.keys() - expected):
        raise UserError(f"{key}: there is no such setting. {near(key, known_settings())}")
    for key in sorted(expected - settings.keys()):
        raise UserError(f"{key}: this setting was taken away, and nothing runs without it.")
    for key in CARDS:
        if not isinstance(settings[key], dict):
            raise UserError(f"{key}={settings[key]}: a card is needed here. See python -m experiments.run --help.")


def told(error: Exception) -> str:
    """A refusal, ours or Hydra's, in one message that names the value, the rule and the nearest alternatives."""
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {first_line(error)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: there is no such card in conf/{group}. {near(option, error.options)}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: this cannot be read as KEY=VALUE. Close every bracket, and quote a value that holds "
            "brackets, commas or colons, as in 'model.path=\"a,b.keras\"'."
        )
    if unknown := re.search(r"Could not override '([^']+)'", str(error)):
        return _not_here(unknown[1])
    if several := re.search(r"Ambiguous value for argument '(.+)'", str(error)):
        return f"{several[1]}: several values make a sweep, and a sweep is asked for with -m, as the first argument."
    return str(error).strip()


def _not_here(setting: str) -> str:
    """What is said of a setting that the configuration has not."""
    group = setting.partition(".")[0]
    if group == "suite":
        return f"{setting}: a suite is added to the configuration, with a plus: +suite=NAME."
    if setting.startswith("hydra.launcher."):
        return f"{setting}: this launcher has no such setting. Choose another, as in hydra/launcher=joblib."
    known = list(known_settings())
    if setting in known:
        return (
            f"{setting}: this setting is one of {_cards_with(group, setting)}, and not of the card chosen here. In a "
            f"sweep over cards that all have it, give it with two plusses: ++{setting}=VALUE. Among others, a variant "
            f"is a card of its own: conf/{group}/NAME.yaml, a copy with other values."
        )
    alike = [name for name in known if name.startswith(f"{group}.")] or known
    return f"{setting}: there is no such setting. {near(setting, alike)}"


def _cards_with(group: str, setting: str) -> str:
    """The cards of a group that have a setting, as they are chosen: strategy=prune or strategy=cluster."""
    key = setting.partition(".")[2].partition(".")[0]
    cards = sorted(CONF.glob(f"{group}/*.yaml"))
    return ", ".join(f"{group}={path.stem}" for path in cards if key in list(OmegaConf.load(path)))


def known_settings() -> Iterator[str]:
    """Every setting that the cards in conf/ hold, with its group: dataset.train_samples and so on."""
    main = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(main, dict)
    settings = {str(key): value for key, value in main.items() if key not in ("hydra", "defaults")}
    yield from (key for key, _ in _flat(settings) if not key.endswith("_target_"))
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        if group != "suite":
            yield group
            yield from (f"{group}.{key!s}" for key in OmegaConf.load(path) if key != "_target_")


def _made(key: str, settings: Mapping[str, Any]) -> Any:
    try:
        made = instantiate(settings, _convert_="all")
    except InstantiationException as error:
        match error.__cause__:
            case ValidationError() as cause:
                raise UserError(problems(key, cause)) from error
            case UserError() as cause:
                raise cause from error
        raise UserError(f"{key}: {str(error).strip()}") from error
    if not isinstance(made, KINDS[key]):
        kind = KINDS[key]
        raise UserError(
            f"{key}: the _target_ of this card, {settings.get('_target_', 'which it lacks')}, does not make a "
            f"{kind.__module__}.{kind.__qualname__}."
        )
    return made


def _checked_switches(values: Mapping[str, Any]) -> Switches:
    try:
        return Switches(**values)
    except ValidationError as error:
        raise UserError(problems("", error)) from error


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
