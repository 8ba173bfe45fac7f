"""Configurations of a sweep's jobs: Hydra composes one for each choice of options, not one for each job."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from experiments.runs.configuration import Request, explaining_errors, read
from experiments.system.errors import UserError


class Composer:
    """Makes the requests of a sweep's jobs; `always` holds the overrides of Hydra's own settings, for all jobs."""

    def __init__(self, config_name: str, always: Sequence[str] = ()) -> None:
        self._config_name, self._always = config_name, tuple(always)
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
        self._options: dict[str, Any] = {}

    def request(self, overrides: Sequence[str]) -> Request:
        """Return the request that `python -m experiments.run` would make from these overrides.

        Raises:
            UserError: Hydra or an option rejects them; the message names the run.
        """
        try:
            with explaining_errors():
                return self._request([self._read(override) for override in overrides])
        except UserError as error:
            raise UserError(f"{error}\n(in the run {' '.join(overrides)}; no run was started)") from error

    def _request(self, overrides: Sequence[Override]) -> Request:
        values = [each for each in overrides if self._sets_a_value(each)]
        base, choices = self._base(tuple(str(each.input_line) for each in overrides if each not in values))
        config = deepcopy(base)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return read(config, choices, self._options)

    def _base(self, overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
        """Return the configuration of these options with their default values."""
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
        """Whether an override only sets a value, and does not change what else Hydra composes."""
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = bool(_loader().get_group_options(key))
        return override.type is OverrideType.CHANGE and override.package is None and not self._groups[key]


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()
