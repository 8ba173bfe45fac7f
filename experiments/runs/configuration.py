"""Hydra's configuration as typed objects, converted and checked once."""

import re
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
from experiments.runs.command_line import check_overrides, normalize
from experiments.runs.experiment import Experiment
from experiments.runs.refusals import explain, flatten, is_configuration_error, known_settings
from experiments.runs.targets import make, recorded, recorded_option
from experiments.strategy import Strategy
from experiments.system.cache import Cache
from experiments.system.errors import UserError, format_value, suggestion
from experiments.system.keras_version import Version
from experiments.system.machine import usable_cores
from experiments.system.options import CONF, OPTION, describe_errors
from experiments.system.program import program
from experiments.task import Task
from experiments.tracking import Tracking
from experiments.training.loop import Training

# The class of each option.
KINDS: Mapping[str, type] = {
    "dataset": Source,
    "model": Architecture,
    "task": Task,
    "strategy": Strategy,
    "tracking": Tracking,
    "training": Training,
    "finetune": Training,
    "latency": LatencyProtocol,
    "cache": Cache,
}
GROUPS = tuple(KINDS)
SWITCHES = ("seed", "keras", "threads", "resume", "sweep")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # a default that is the value of another setting
UNLISTED = ("epochs", "seed", "sweep", "resume", "tracking.", "cache.")  # parameters of their own, or of no result
MISSING = object()  # equals no value
MAX_THREADS = 1024
INTEGER_LIMIT = 2**63  # the range of integers in databases and arrays


@option(frozen=True, config=OPTION, kw_only=True)
class Switches:
    """The settings in config.yaml that are in no group."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]  # NumPy's range of seeds
    keras: Version
    threads: Annotated[int, Field(gt=0, le=MAX_THREADS)] | None
    resume: bool
    sweep: str | None


@dataclass(frozen=True)
class Request:
    """The typed configuration of one run or of one job of a sweep."""

    experiment: Experiment
    tracking: Tracking
    resume: bool
    sweep: str | None  # id of the parent run
    settings: Mapping[str, Any]  # the configuration: values, and nested groups of them

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The flattened configuration, with keys such as dataset.train_samples."""
        return dict(flatten(self.settings))

    @property
    def changed(self) -> Mapping[str, Any]:
        """The parameters that differ from the defaults of this suite, without those of stores and caches.

        Defaults that follow other settings, such as finetune.epochs, differ only if they do not follow them. All
        settings of a user's own option differ.
        """
        defaults = _defaults(self.settings, self.experiment.setting)
        return {
            name: value
            for name, value in self.parameters.items()
            if not name.startswith(UNLISTED) and not name.endswith("_target_") and defaults.get(name, MISSING) != value
        }

    @property
    def text(self) -> str:
        """The configuration as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(dict(self.settings)))


def read(config: DictConfig, choices: Mapping[str, str], made: dict[str, Any] | None = None) -> Request:
    """Convert a composed configuration to a request; `choices` holds the names of the chosen options by group.

    Jobs of a sweep share most of their options: `made` caches them, and is extended with new ones.

    Raises:
        UserError: a value is missing, has the wrong type, or is out of range.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key}: requires a value. Type it as {key}=VALUE.") from error
    assert isinstance(plain, dict)
    settings: dict[str, Any] = {str(key): value for key, value in plain.items() if key != "hydra"}
    _check_keys(settings)
    switches = _read_switches({key: settings[key] for key in SWITCHES})
    options = {key: _make_once(key, settings[key], {} if made is None else made) for key in GROUPS}
    _check_version(switches.keras, options["model"], choices["model"])
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
            task=options["task"],
        ),
        tracking=options["tracking"],
        resume=switches.resume,
        sweep=switches.sweep,
        settings=settings,
    )


def _defaults(settings: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the flattened defaults of the chosen options and of config.yaml; some follow other settings."""
    found = OmegaConf.load(CONF / "config.yaml")
    assert isinstance(found, DictConfig)
    for group in ("dataset", "model", "strategy", "task"):
        found[group] = _option(group, settings[group], getattr(setting, group, "*"))
    del found["defaults"], found["hydra"]
    plain = OmegaConf.to_container(found, resolve=False)
    assert isinstance(plain, dict)
    given, defaults = dict(flatten(settings)), dict(flatten({str(name): value for name, value in plain.items()}))
    followed = {name: match[1] for name, value in defaults.items() if (match := REFERENCE.fullmatch(str(value)))}
    return {**defaults, **{name: given.get(other) for name, other in followed.items()}}


def _option(group: str, settings: Mapping[str, Any], name: str) -> Any:
    """Return the option of this name (*: any) that has the class of these settings; empty for a user's own option."""
    options: Iterator[Any] = (OmegaConf.load(path) for path in sorted((CONF / group).glob(f"{name}.yaml")))
    return next((option for option in options if option.get("_target_") == settings.get("_target_")), {})


def judged_output(text: str) -> str | None:
    """Return the setting task.output of a recorded configuration; None if it is not set."""
    found = recorded(text, "task").get("output")
    return found if isinstance(found, str) else None


def read_dataset(text: str, modules: Collection[str] = ()) -> Source:
    """Return the data set of a run from its recorded configuration, which may come from anyone.

    Args:
        text: The configuration, YAML.
        modules: User modules that it may name, in addition to the classes of the options in conf/dataset.

    Raises:
        UserError: it names another class, or this version does not know its settings.
    """
    return make("dataset", recorded_option(text, "dataset", modules), Source)  # type: ignore[type-abstract]


def compose_request(arguments: Sequence[str]) -> Request:
    """Return the request that `python -m experiments.run` would make from these arguments.

    Raises:
        UserError: Hydra or an option rejects them.
    """
    overrides = normalize(arguments)
    check_overrides(overrides)
    with explaining_errors(), initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            del config["hydra"]
        return read(config, choices)


@contextmanager
def explaining_errors() -> Iterator[None]:
    """Turn every configuration error into a UserError with one message."""
    try:
        yield
    except Exception as error:
        if is_configuration_error(error):
            raise UserError(explain(error)) from error
        raise


def _check_keys(settings: Mapping[str, Any]) -> None:
    """Reject unknown and removed settings: Hydra lets +key=value add and ~key remove anything."""
    expected = {*GROUPS, *SWITCHES, "epochs"}
    for key in sorted(settings.keys() - expected):
        raise UserError(f"{key}: unknown setting. {suggestion(key, known_settings())}")
    for key in sorted(expected - settings.keys()):
        raise UserError(f"{key}: this setting is required. Remove ~{key} from the command.")
    for key in GROUPS:
        if not isinstance(settings[key], dict):
            raise UserError(
                f"{key}={format_value(settings[key])}: {key} requires an option. See {program('run')} --help."
            )


def _make_once(key: str, settings: Mapping[str, Any], known: dict[str, Any]) -> Any:
    name = f"{key} {settings}"
    if name not in known:
        known[name] = make(key, settings, KINDS[key])
        _check_numbers(key, settings, known[name])
    return known[name]


def _check_numbers(key: str, settings: Mapping[str, Any], made: Any) -> None:
    """Reject what Pydantic accepts as an integer: true, 1.0, and numbers of 64 bits or more."""
    for name, given in settings.items():
        held, where = getattr(made, name, given), f"{key}.{name}".strip(".")
        if isinstance(given, bool) and not isinstance(held, bool) and isinstance(held, int | float):
            raise UserError(f"{where}={format_value(given)}: requires a number.")
        if isinstance(given, float) and isinstance(held, int):
            raise UserError(f"{where}={given}: requires an integer, such as {held}.")
        if isinstance(held, int) and abs(held) >= INTEGER_LIMIT:
            raise UserError(f"{where}={held}: requires an integer below 2**63.")


def _check_version(version: Version, model: Architecture, name: str) -> None:
    """Reject a version of Keras that the model option does not use."""
    if version == 2 or getattr(model, "keras", 2) == version:
        return
    if model.given:
        raise UserError(f"keras={version}: model={name} uses the version of Keras that saved the file. Remove keras=.")
    raise UserError(
        f"keras={version}: model={name} does not take a version of Keras. If its class does, write 'keras: ${{keras}}' "
        "into its option; bundled architectures take one, such as model=article_cnn."
    )


def _read_switches(values: Mapping[str, Any]) -> Switches:
    try:
        switches = Switches(**values)
    except ValidationError as error:
        raise UserError(describe_errors("", error)) from error
    _check_numbers("", values, switches)
    return switches
