"""What every card shares: a frozen dataclass whose fields are checked when the configuration is read."""

from pydantic import ConfigDict

CARD = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=True)
