"""Configurations of the jobs of a sweep: composed by Hydra once for each choice of options, not once a job."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from experiments.runs.configuration import Request, configuration_explained, read
from experiments.system.errors import UserError


class Composer:
    """What the jobs of a sweep ask for; `always` are the overrides that all of them have, of Hydra itself."""

    def __init__(self, config_name: str, always: Sequence[str] = ()) -> None:
        self._config_name, self._always = config_name, tuple(always)
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
        self._options: dict[str, Any] = {}

    def request(self, overrides: Sequence[str]) -> Request:
        """What `python -m experiments.run` would make of these overrides.

        Raises:
            UserError: Hydra or an option refuses them; the message names the run.
        """
        try:
            with configuration_explained():
                return self._request([self._read(override) for override in overrides])
        except UserError as error:
            raise UserError(f"{error}\n(in the run {' '.join(overrides)}; nothing was run)") from error

    def _request(self, overrides: Sequence[Override]) -> Request:
        values = [each for each in overrides if self._sets_a_value(each)]
        base, choices = self._base(tuple(str(each.input_line) for each in overrides if each not in values))
        config = deepcopy(base)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return read(config, choices, self._options)

    def _base(self, overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
        """The configuration of these options, with the values that they have by themselves."""
        if overrides not in self._composed:
            config = _loader().load_configuration(self._config_name, [*self._always, *overrides], RunMode.RUN)
            choices = {str(group): option for group, option in config.hydra.runtime.choices.items()}
            with open_dict(config):
                del config["hydra"]
            self._composed[overrides] = config, choices
        return self._composed[overrides]

    def _read(self, override: str) -> Override:
        if override not in self._parsed:
            self._parsed[override] = self._parser.parse_override(override)
        return self._parsed[override]

    def _sets_a_value(self, override: Override) -> bool:
        """Whether an override gives a setting another value, which changes nothing else of what Hydra composes."""
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = bool(_loader().get_group_options(key))
        return override.type is OverrideType.CHANGE and override.package is None and not self._groups[key]


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()
