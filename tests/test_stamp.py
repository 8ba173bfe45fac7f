"""The digest of the code, and the keys of runs, change only with code that decides results."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.runs import job
from experiments.runs.configuration import compose_request
from experiments.system import stamp as stamps
from experiments.system.stamp import CODE_DIGEST, code_digest, stamp, this_machine
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "experiments"
DECIDES_NOTHING = [
    "plots/labels.py", "plots/tradeoffs.py", "comparison/display.py", "comparison/terminal.py", "tracking/schema.py",
    "report/page.py", "report/page.html", "tracking/store.py", "compare.py", "run.py", "system/errors.py",
]  # fmt: skip
DECIDES = [
    "strategy/qat.py", "training/loop.py", "tflite/conversion.py", "measure/latency.py", "dataset/mnist.py",
    "quantization/tfmot/annotation.py", "model/mlp.py", "runs/pipeline.py", "system/tensorflow.py",
]  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package somewhere else, to be edited."""
    folder = tmp_path_factory.mktemp("code") / "experiments"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def digest_with_edit(copy: Path, file: str) -> str:
    path = copy / file
    before = path.read_bytes()
    path.write_bytes(before + b"\n# edited\n")
    try:
        return code_digest(copy)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("file", DECIDES_NOTHING)
def test_editing_display_code_keeps_the_digest(copy: Path, file: str) -> None:
    assert digest_with_edit(copy, file) == CODE_DIGEST


@pytest.mark.parametrize("file", DECIDES)
def test_editing_result_code_changes_the_digest(copy: Path, file: str) -> None:
    assert digest_with_edit(copy, file) != CODE_DIGEST


@pytest.mark.parametrize(
    ("file", "same"), [("plots/labels.py", True), ("compare.py", True), ("strategy/qat.py", False)]
)
def test_finished_run_is_reused_unless_result_code_was_edited(
    copy: Path, file: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = compose_request(["model=mlp"]).experiment
    before = job.run_key(experiment)
    monkeypatch.setattr(job, "CODE_DIGEST", digest_with_edit(copy, file))
    assert (job.run_key(experiment) == before) == same


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Returns the name of a machine whose files have these ids."""

    def name(*ids: str) -> str:
        files = [tmp_path / str(number) for number in range(len(ids))]
        for file, content in zip(files, ids, strict=True):
            file.write_text(content)
        monkeypatch.setattr(stamps, "MACHINE_IDS", (tmp_path / "missing", *files))
        this_machine.cache_clear()
        return this_machine()

    return name


def test_machines_of_one_kind_are_distinguished_by_the_id_of_their_system(named: Callable[..., str]) -> None:
    one, other = "3d1219c7c4c5404aaa1f6d2a48adfda4", "0f0f0f0f-c4c5-404a-aa1f-6d2a48adfda4"
    kind = stamp()["machine"]
    try:
        assert named(f"{one}\n") == named("uninitialized\n", one) != named(other)
        assert named(one).startswith(f"{kind}-")
        assert one[:8] not in named(one)  # the id is confidential
        assert named() == named("") == named("0" * 32) == kind
    finally:
        this_machine.cache_clear()
