"""A store that somebody else wrote: what it names is not asked, resolved or expanded."""

import os

import pytest

from experiments.runs.configuration import judged_output
from experiments.system.errors import UserError
from experiments.tracking import Tracking
from experiments.tracking.places import check_storage

SQLITE, SERVER = Tracking(uri="sqlite:///mlflow.db"), Tracking(uri="https://me:secret@mlflow.example:5000")


@pytest.mark.parametrize(
    "uri",
    [
        "http://evil.example/api/2.0/mlflow-artifacts/artifacts/1", "https://me@evil.example/1", "HTTPS://evil.example",
        "mlflow-artifacts://evil.example/1", "sftp://evil.example/1", "abfss://files@evil.example/1",
    ],
)  # fmt: skip
def test_no_credentials_are_sent_to_a_host_that_a_file_names(uri: str) -> None:
    with pytest.raises(UserError, match=r"mlflow\.db: the store records files at \S*evil\.example\. .*mlflow server"):
        check_storage(SQLITE, uri)


@pytest.mark.parametrize("uri", ["s3://bucket/1", "gs://bucket/1", "/home/me/mlruns/1", "file:///home/me/mlruns/1"])
def test_files_of_the_machine_and_of_buckets_are_read(uri: str) -> None:
    check_storage(SQLITE, uri)


def test_a_server_may_name_itself_and_storage_but_no_other_server() -> None:
    check_storage(SERVER, "mlflow-artifacts:/1/artifacts")
    check_storage(SERVER, "https://me:secret@mlflow.example:5000/api/2.0/mlflow-artifacts/artifacts/1")
    check_storage(SERVER, "abfss://files@account.dfs.core.windows.net/1")
    with pytest.raises(UserError, match=r"the store records files at https://evil\.example\. "):
        check_storage(SERVER, "https://evil.example/api/2.0/mlflow-artifacts/artifacts/1")


def test_a_recorded_setting_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TOKEN", "secret")
    assert judged_output("task: {output: '${oc.env:TOKEN}'}") == "${oc.env:TOKEN}"
    assert judged_output("task: {output: head}") == "head"
    assert judged_output("task: {output: null}") is None
    assert judged_output("dataset: {}") is None


def test_a_recorded_setting_is_not_expanded() -> None:
    lines = [
        "a: &a [x, x]",
        *(f"{name}: &{name} [*{before}, *{before}]" for before, name in zip("abc", "bcd", strict=True)),
    ]
    with pytest.raises(UserError, match="it contains aliases"):
        judged_output("\n".join([*lines, "task: {output: *d}"]))
