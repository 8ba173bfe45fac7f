"""What tracking does where a server is gone, or somebody else uses it at the same moment."""

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException, RestException

from experiments import tracking
from experiments.tracking import Tracking

GONE = Tracking(uri="http://127.0.0.1:9")


@dataclass
class Rival:
    """A client of a store in which somebody else makes the experiment between the look and the making."""

    reason: str
    made: bool = False

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7", lifecycle_stage="active", name=name) if self.made else None

    def create_experiment(self, *_: Any, **__: Any) -> str:
        self.made = True
        raise RestException({"error_code": self.reason, "message": "no"})  # type: ignore[no-untyped-call]


def test_an_experiment_that_somebody_else_makes_at_the_same_moment_is_shared() -> None:
    assert GONE._experiment_id(Rival("RESOURCE_ALREADY_EXISTS"), create=True) == "7"  # type: ignore[arg-type]


def test_another_refusal_is_no_race() -> None:
    with pytest.raises(MlflowException):
        GONE._experiment_id(Rival("PERMISSION_DENIED"), create=True)  # type: ignore[arg-type]


def test_a_server_that_is_gone_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "RESTART_PATIENCE", 1.5)
    monkeypatch.setattr(tracking, "_GIVEN_UP", set())
    before = time.monotonic()
    GONE.await_server()
    given_up = time.monotonic()
    GONE.await_server()
    assert given_up - before >= 1.5
    assert time.monotonic() - given_up < 1


def test_a_database_needs_no_waiting() -> None:
    before = time.monotonic()
    Tracking(uri="sqlite:///nothing.db").await_server()
    assert time.monotonic() - before < 1
