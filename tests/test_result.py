"""What commands write with --json: one document on standard output that has the published form, whatever happens."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments import cache, compare, latency, store
from experiments.runs.configuration import compose_request
from experiments.sensitivity import Measured
from experiments.statistics.estimates import Estimate
from experiments.system.cache import Cache
from experiments.system.errors import Ended, UserError
from experiments.system.result import result, to_json_value
from experiments.tracking import Tracking, connect
from tests import rows
from tests.conftest import run, run_interpreter, save_images
from tests.support.results import document


def main(command: Any, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", [command.__name__.rpartition(".")[2], *arguments])
    try:
        command.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(autouse=True)
def console(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console of these tests prints on standard error no longer than they last."""
    from experiments.system.progress import CONSOLE

    monkeypatch.setattr(CONSOLE, "_file", CONSOLE._file)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    place = Cache(dir=tmp_path / "cache")
    place.load_or_compute("0" * 32, lambda: {}, "a conversion")
    damaged = next((tmp_path / "cache" / "results").glob("*.npz"))
    (damaged.parent / f"{'1' * 32}-{'2' * 16}.npz").write_bytes(b"not what its name says")
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("arguments", "code", "keys"),
    [
        (["list"], 0, {"entries", "bytes"}),
        (["verify"], 1, {"intact", "damaged"}),
        (["clear"], 0, {"removed", "bytes", "in_use"}),
        (["--remove"], 2, {"error"}),  # has no effect with list
        (["nonsense"], 2, {"error"}),
    ],
)
def test_results_of_the_cache(
    arguments: list[str], code: int, keys: set[str], filled: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(cache, [*arguments, "--dir", str(filled), "--json"], monkeypatch) == code
    found = document(capsys.readouterr().out)
    assert found.keys() == {"schema_version", "command", "exit_code"} | keys
    assert (found["command"], found["exit_code"]) == ("cache", code)


def test_results_of_a_store(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_store, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert main(store, ["check", "--uri", uri, "--json"], monkeypatch) == 1  # it was copied
    (finding,) = document(capsys.readouterr().out)["findings"]
    assert "store relocate" in finding["remedy"]
    assert main(store, ["relocate", "--uri", uri, "--json"], monkeypatch) == 0
    (moved,) = document(capsys.readouterr().out)["addresses"]
    assert moved["current"].startswith(str(tmp_path))
    assert main(store, ["check", "--uri", f"{uri}.missing", "--json"], monkeypatch) == 2
    assert "no file" in document(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize(("json_option"), [["--json"], ["--json", "-"]], ids=" ".join)
def test_result_of_a_comparison_has_the_rows_of_the_file_and_the_answer(
    json_option: list[str], tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copy(empty_store, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    opened = connect(Tracking(uri=uri))
    monkeypatch.setattr(type(opened), "rows", lambda _, sweep: [{**row, "reused": False} for row in rows.ROWS])
    monkeypatch.setattr(type(opened), "read_evidence", lambda *_: None)
    arguments = ["--uri", uri, *json_option, "--out", str(tmp_path / "rows.json")]
    assert main(compare, arguments, monkeypatch) == 0
    found = document(capsys.readouterr().out)
    assert found["rows"] == json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert found["shipped_run_id"] in {row["run_id"] for row in found["rows"]}
    assert found["answer"]
    assert main(compare, ["--uri", uri, "--require", "tflite_bytes < 1", *json_option], monkeypatch) == 3
    found = document(capsys.readouterr().out)
    assert (found["exit_code"], found["shipped_run_id"]) == (3, None)


def test_invalid_arguments_are_an_error_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, nowhere = str(tmp_path / "none.tflite"), ["--uri", f"sqlite:///{tmp_path}/x.db"]
    refused = [
        *((command, ["--no-such"]) for command in (compare, latency, cache, store)), (latency, [missing]),
        (latency, ["latest", *nowhere]), (compare, nowhere), (store, ["check", *nowhere]),
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for command, arguments in refused:
        assert main(command, [*arguments, "--json"], monkeypatch) == 2, arguments
        found = document(capsys.readouterr().out)
        assert (found["command"], bool(found["error"]["message"])) == (command.__name__.rpartition(".")[2], True)
    assert not list(tmp_path.iterdir())


def test_a_plan_is_a_result(tmp_path: Path) -> None:
    save_images(tmp_path / "images.npz")
    data = ["model=mlp", "dataset=npz", "dataset.path=images.npz"]
    done = run(tmp_path, "experiments.run", "-m", "strategy=none,qat", *data, "--dry-run", "--json")
    runs = document(done.stdout)["plan"]["runs"]
    assert [run["epochs_to_train"] for run in runs] == [1, 1]
    assert runs[1]["settings"]["dataset"]["path"] == "images.npz"
    assert "Plan: 2 runs" in done.stderr


def test_errors_of_a_run_have_the_message_that_is_printed(tmp_path: Path) -> None:
    for command, *arguments in (
        ("run", "stratgy=qat"), ("run", "-m", "strategy=qat", "finetune.epochs=0"), ("sensitivity", "modl=mlp"),
    ):  # fmt: skip
        done = run(tmp_path, f"experiments.{command}", *arguments, "--json")
        found = document(done.stdout)
        assert (done.returncode, found["exit_code"], found["command"]) == (2, 2, command)
        assert found["error"]["message"] in done.stderr


def test_whatever_a_command_and_its_processes_print_goes_to_standard_error(tmp_path: Path) -> None:
    code = """
import subprocess, sys
from experiments.system.progress import say
from experiments.system.result import result
with result("cache", wanted=True) as found:
    print("printed")
    say("said")
    subprocess.run([sys.executable, "-c", "print('by another process')"], check=True)
    found |= {"entries": [], "bytes": 0}
"""
    done = run_interpreter(tmp_path, "-c", code)
    assert document(done.stdout) == {
        "schema_version": 1, "command": "cache", "exit_code": 0, "entries": [], "bytes": 0
    }  # fmt: skip
    assert {"printed", "said", "by another process"} <= set(done.stderr.splitlines())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("wrong"), 2, "wrong"),
        (Ended(1, "a run failed"), 1, "a run failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug"),
    ],
)
def test_every_end_is_a_document(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)), result("run", wanted=True):
        raise error
    found = document(capsys.readouterr().out)
    assert (found["exit_code"], found["error"]["message"]) == (code, message)


def test_values_become_those_of_json() -> None:
    measured = Measured(("dense",), 10, 0.5, Estimate(0.0, float("nan"), 1.0), 0.0, 0.1)
    assert to_json_value({"of": measured, "path": Path("a"), "several": (1, None)}) == {
        "of": {
            "chosen": ["dense"], "bytes": 10, "score": 0.5, "change": {"value": 0.0, "low": None, "high": 1.0},
            "lost": 0.0, "rms_logit_error": 0.1,
        },
        "path": "a",
        "several": [1, None],
    }  # fmt: skip


def test_plan_hides_passwords() -> None:
    from experiments.runs.plan import plan

    request = compose_request(["tracking.uri=postgresql://me:secret@host/db"])
    assert "secret" not in json.dumps(to_json_value(plan([request], store=None).described))
