"""From Hydra's configuration to typed objects, once, at the door; and what a user is told when it does not work."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Source
from experiments.measure.latency import LatencyProtocol
from experiments.model import Architecture
from experiments.record.run_record import Setting
from experiments.runs.command_line import check_overrides, readable
from experiments.runs.pipeline import Experiment
from experiments.runs.refusals import flat, is_wrong, known_settings, told
from experiments.runs.targets import make, recorded_option
from experiments.strategy import Strategy
from experiments.system.cache import Cache
from experiments.system.errors import UserError, spelled, suggestion
from experiments.system.machine import usable_cores
from experiments.system.options import CONF, OPTION, problems
from experiments.tracking import Tracking
from experiments.training.loop import Training

# What each option makes.
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
GROUPS = tuple(KINDS)
SWITCHES = ("seed", "threads", "resume", "sweep")
MOST_THREADS = 1024
WHOLE_BELOW = 2**63  # what databases and arrays hold


@option(frozen=True, config=OPTION, kw_only=True)
class Switches:
    """The settings that stand in config.yaml by themselves."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy takes as a seed
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None
    resume: bool
    sweep: str | None


@dataclass(frozen=True)
class Request:
    """What one command, or one job of a sweep, asks for."""

    experiment: Experiment
    tracking: Tracking
    resume: bool
    sweep: str | None  # id of the parent run
    settings: Mapping[str, Any]  # the configuration: groups of settings, and settings

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The configuration, flattened: dataset.train_samples and so on."""
        return dict(flat(self.settings))

    @property
    def text(self) -> str:
        """The configuration as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(dict(self.settings)))


def read(config: DictConfig, choices: Mapping[str, str], made: dict[str, Any] | None = None) -> Request:
    """The typed form of a composed configuration; `choices` are the options' names by group.

    Jobs of a sweep share most of their options: `made` holds those that were made before, and gets the new ones.

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
    options = {key: _known_or_made(key, settings[key], {} if made is None else made) for key in GROUPS}
    switches = _checked_switches({key: settings[key] for key in SWITCHES})
    strategy = options["strategy"]
    setting = Setting(
        strategy=choices["strategy"],
        model=choices["model"],
        dataset=choices["dataset"],
        epochs=options["training"].epochs,
        finetune_epochs=options["finetune"].epochs if strategy.trains else 0,
        seed=switches.seed,
    )
    return Request(
        experiment=Experiment(
            setting=setting,
            dataset=options["dataset"],
            model=options["model"],
            strategy=strategy,
            training=options["training"],
            finetune=options["finetune"],
            latency=options["latency"],
            cache=options["cache"],
            threads=switches.threads or usable_cores(),
        ),
        tracking=options["tracking"],
        resume=switches.resume,
        sweep=switches.sweep,
        settings=settings,
    )


def dataset_of(text: str, modules: Collection[str] = ()) -> Source:
    """The data set of a run, from its configuration as it was recorded, by whomever.

    Args:
        text: The configuration, YAML.
        modules: Modules of the user's own that it may name, besides the classes of the options in conf/dataset.

    Raises:
        UserError: it names another class, or this version knows not these settings.
    """
    return make("dataset", recorded_option(text, "dataset", modules), Source)  # type: ignore[type-abstract]


def composed(arguments: Sequence[str]) -> Request:
    """What `python -m experiments.run` would make of these arguments.

    Raises:
        UserError: Hydra or an option refuses them.
    """
    overrides = readable(arguments)
    check_overrides(overrides)
    with configuration_explained(), initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            del config["hydra"]
        return read(config, choices)


@contextmanager
def configuration_explained() -> Iterator[None]:
    """Whatever is wrong with a configuration becomes one message."""
    try:
        yield
    except Exception as error:
        if is_wrong(error):
            raise UserError(told(error)) from error
        raise


def _refuse_strangers(settings: Mapping[str, Any]) -> None:
    """Hydra lets +key=value add anything and ~key take anything away."""
    expected = {*GROUPS, *SWITCHES, "epochs"}
    for key in sorted(settings.keys() - expected):
        raise UserError(f"{key}: there is no such setting. {suggestion(key, known_settings())}")
    for key in sorted(expected - settings.keys()):
        raise UserError(f"{key}: this setting was taken away, and nothing runs without it.")
    for key in GROUPS:
        if not isinstance(settings[key], dict):
            raise UserError(
                f"{key}={spelled(settings[key])}: an option is needed here. See python -m experiments.run --help."
            )


def _known_or_made(key: str, settings: Mapping[str, Any], known: dict[str, Any]) -> Any:
    name = f"{key} {settings}"
    if name not in known:
        known[name] = make(key, settings, KINDS[key])
        _check_numbers(key, settings, known[name])
    return known[name]


def _check_numbers(key: str, settings: Mapping[str, Any], made: Any) -> None:
    """Pydantic takes true for 1 and 1.0 for 1, and whole numbers of any length."""
    for name, given in settings.items():
        held, where = getattr(made, name, given), f"{key}.{name}".strip(".")
        if isinstance(given, bool) and not isinstance(held, bool) and isinstance(held, int | float):
            raise UserError(f"{where}={spelled(given)}: a number is needed.")
        if isinstance(given, float) and isinstance(held, int):
            raise UserError(f"{where}={given}: a whole number is needed, as in {held}.")
        if isinstance(held, int) and abs(held) >= WHOLE_BELOW:
            raise UserError(f"{where}={held}: whole numbers are smaller than 2**63.")


def _checked_switches(values: Mapping[str, Any]) -> Switches:
    try:
        switches = Switches(**values)
    except ValidationError as error:
        raise UserError(problems("", error)) from error
    _check_numbers("", values, switches)
    return switches
