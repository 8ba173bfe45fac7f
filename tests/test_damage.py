"""Damaged and foreign runs: omitted, entirely or in part, with a message and without a traceback."""

import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.comparison.columns import frame
from experiments.comparison.compared import compare_runs
from experiments.comparison.display import display_table
from experiments.comparison.files import write_comparison
from experiments.plots.comparison import Pictures
from experiments.plots.export import draw_pictures
from experiments.record import artifacts
from experiments.record.artifacts import CHANGED, LAYERS, PREDICTIONS, RECORD, SAMPLES
from experiments.record.evidence import Predictions
from experiments.report.page import report
from experiments.system.errors import UserError
from experiments.system.processes import is_running
from experiments.system.progress import warn_once
from experiments.tracking.rows import to_row, to_rows
from experiments.tracking.tables import Recorded
from tests.rows import row
from tests.test_report import LAYER_TABLE

TAGS = ("strategy", "model", "dataset", "epochs", "finetune_epochs", "seed")


def recorded(strategy: str = "none", **changes: Any) -> Recorded:
    """A run as a store has it."""
    values = row(strategy, run_id=f"{len(strategy)}{strategy}", machine="m")
    metrics = {name: value for name, value in values.items() if isinstance(value, float)}
    words = {name: str(value) for name, value in values.items() if name not in metrics and value is not None}
    tags = {**words, "verified": "true", "epochs": "1", "finetune_epochs": "0", "seed": "0"}
    params = {"training.epochs": "1", "strategy.layers": "['Dense']"} if strategy == "annotate" else {}
    changed = {"tags": {**tags, **changes.get("tags", {})}, "metrics": {**metrics, **changes.get("metrics", {})}}
    gone = {kind: {k: v for k, v in values.items() if v is not None} for kind, values in changed.items()}
    return Recorded(values["run_id"], changes.get("status", "FINISHED"), gone["tags"], params, gone["metrics"])


@pytest.fixture(autouse=True)
def _each_is_said_again() -> None:
    warn_once.cache_clear()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tags": {"epochs": "many"}}, "has the tag epochs='many', which is not an integer"),
        ({"tags": {"seed": "-1"}}, "has the tag seed='-1', which is not an integer"),
        ({"tags": {"epochs": "9" * 30}}, "which is not an integer"),
        ({"tags": {"epochs": "²"}}, "which is not an integer"),
        ({"tags": {"strategy": None}}, "has no tag strategy"),
        ({"tags": {"model": ""}}, "has no tag model"),
        ({"metrics": {"tflite_accuracy": None}}, "is finished, but has no tflite_accuracy"),
        ({"metrics": {"tflite_accuracy": float("nan")}}, "is finished, but has no tflite_accuracy"),
        ({"metrics": {"tflite_bytes": 1.7976931348623157e308}}, "is finished, but has no tflite_bytes"),
        ({"metrics": {"tflite_bytes": 0.5}}, "is finished, but has no tflite_bytes"),
        ({"metrics": {"keras_accuracy": 98.0}}, "is finished, but has no keras_accuracy"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_run_that_cannot_become_a_row_is_omitted_with_a_message(
    changes: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = to_rows([recorded("none"), recorded("qat", **changes)])
    said = capsys.readouterr().err.splitlines()
    assert [each["strategy"] for each in rows] == ["none"]
    assert said[-1].startswith("Run 3qat ")
    assert said[-1].endswith(f"{reason}. It is omitted.")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.7976931348623157e308], ids=str)
def test_invalid_metric_is_omitted_with_a_message(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert "speedup" not in to_row(recorded(metrics={"speedup": value}))
    assert capsys.readouterr().err == f"Run 4none has speedup={value:g}, which is invalid and omitted.\n"


def test_missing_end_of_an_interval_causes_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    to_row(recorded(metrics={"speedup_low": float("nan")}))
    assert capsys.readouterr().err == ""


def test_many_omitted_runs_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [Recorded(str(number), "FINISHED", {}, {}, {}) for number in range(500)]
    assert to_rows(broken) == []
    said = capsys.readouterr().err.splitlines()
    assert (len(said), said[-1]) == (11, "490 more runs are omitted for similar reasons.")


def test_a_failed_run_needs_no_metrics() -> None:
    assert to_row(recorded(status="FAILED", metrics={"tflite_accuracy": None}))["status"] == "FAILED"


@pytest.mark.parametrize("process", ["", "x", "1", "²@1", "1@", "1@x", "1@nan", f"{10**30}@1", "-1@1", "1@1e999"])
def test_impossible_process_is_not_running(process: str) -> None:
    assert not is_running(process)


def zipped(**parts: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def arrays(**values: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **values)
    return file.getvalue()


READERS = {
    PREDICTIONS: artifacts.read_predictions,
    RECORD: artifacts.read_curves,
    SAMPLES: artifacts.read_samples,
    CHANGED: artifacts.read_changed,
    LAYERS: artifacts.read_layers,
}
IMAGES = np.zeros((2, 4, 4, 1), np.uint8)
SOUND = {
    PREDICTIONS: b"truth,keras,tflite,float_reference\n" + b"1,1,1,1\n0,0,1,0\n" * 20,
    RECORD: json.dumps(
        {"baseline": {"history": {"loss": [1.0], "accuracy": [0.5]}}, "own_training": {"history": {}}}
    ).encode(),
    SAMPLES: gzip.compress(b"file,replicate,nanoseconds\nfile,0,400000\nfile,1,410000\nreference,0,500000\n"),
    CHANGED: arrays(places=np.array([1, 2]), images=IMAGES),
    LAYERS: LAYER_TABLE,
}
BOMB = bytes(2**28 + 1)
BROKEN = [
    *((name, content) for name in READERS for content in (b"", b"\xff\xfe\x00", b"null", b"[]", b"{}", b"[" * 20_000)),
    *((name, content[: len(content) // 2]) for name, content in SOUND.items()),
    (PREDICTIONS, b"truth,keras,tflite,float_reference\n"),
    (PREDICTIONS, b"truth,keras,tflite,float_reference\n1,1,1,-1\n"),
    (PREDICTIONS, b"truth,keras,tflite,float_reference\n1,1,1,99999999999999999999\n"),
    (PREDICTIONS, b"truth,keras,tflite,float_reference\n1,1,1\n"),
    (RECORD, b'{"baseline": {"history": {"loss": [NaN]}}, "own_training": {"history": {}}}'),
    (RECORD, b'{"baseline": {"history": {"loss": ["1"]}}, "own_training": {"history": {}}}'),
    (RECORD, b'{"baseline": {"history": {"loss": 1}}, "own_training": {"history": {}}}'),
    (SAMPLES, gzip.compress(b"file,replicate,nanoseconds\nfile,0,-5\n")),
    (SAMPLES, gzip.compress(b"file,replicate,nanoseconds\nfile,0,99999999999999999999\n")),
    (SAMPLES, gzip.compress(b"file,replicate,nanoseconds\n" + BOMB)),
    (CHANGED, arrays(places=np.array([-1]), images=IMAGES)),
    (CHANGED, arrays(places=np.array([0.5]), images=IMAGES)),
    (CHANGED, arrays(places=np.array([1]), images=IMAGES.astype(float))),
    (CHANGED, arrays(places=np.array([1]), images=IMAGES[..., 0])),
    (CHANGED, arrays(places=np.array([1]), images=np.zeros((2, 0, 4, 1), np.uint8))),
    (CHANGED, zipped(places=b"", images=b"")),
    (CHANGED, zipped(places=BOMB)),
    (LAYERS, LAYER_TABLE.replace(b"451584", b"many")),
    (LAYERS, LAYER_TABLE.replace(b"layer,", b"")),
]


@pytest.mark.parametrize("name", READERS)
def test_intact_file_is_read(name: str) -> None:
    READERS[name](SOUND[name], "r")


@pytest.mark.parametrize(("name", "content"), BROKEN, ids=[f"{name} {n}" for n, (name, _) in enumerate(BROKEN)])
def test_invalid_artifact_is_reported_with_its_run(name: str, content: bytes) -> None:
    with pytest.raises(UserError, match=rf"Run some-run: its {name} cannot be read"):
        READERS[name](content, "some-run")


@dataclass(frozen=True)
class InMemory:
    """A store whose runs have these files, or those of SOUND."""

    files: Mapping[tuple[str, str], bytes | None]

    def content(self, run_id: str, artifact: str) -> bytes | None:
        if (run_id, "unreachable") in self.files:
            raise UserError("Files of runs in s3://gone cannot be read (no route).")
        return self.files.get((run_id, artifact), SOUND.get(artifact))

    def read_evidence(self, run_id: str) -> Predictions | None:
        content = self.content(run_id, PREDICTIONS)
        return None if content is None else artifacts.read_predictions(content, run_id)

    def stamp(self, run_id: str) -> dict[str, str]:
        return {"cpu": "a CPU"}

    ui_command = ""

    def page(self, run_id: str) -> str:
        return f"https://mlflow.example.org/#/experiments/1/runs/{run_id}"


NUMBER = st.one_of(
    st.floats(), st.sampled_from([float("nan"), 1.7976931348623157e308, -1e308, 0.0, -0.0, 1e-320, 2.0**60]), st.none()
)
WORD = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "0", "1", "-1", "1e9", "true", "False", "9" * 25]), st.none()
)
TAG_NAMES = (*TAGS, "verified", "speed", "latency_void", "partial", "machine", "arithmetic", "git_commit", "error")


@st.composite
def damaged(draw: st.DrawFn) -> Recorded:
    strategy = draw(st.sampled_from(["none", "qat", "finetune", "annotate", "ptq_int8"]))
    names = sorted(recorded().metrics)
    run = recorded(
        strategy,
        status=draw(st.sampled_from(["FINISHED", "FINISHED", "FAILED", "KILLED", "RUNNING", ""])),
        tags=draw(st.dictionaries(st.sampled_from(TAG_NAMES), WORD, max_size=3)),
        metrics=draw(st.dictionaries(st.sampled_from(names), NUMBER, max_size=4)),
    )
    params = draw(
        st.dictionaries(st.sampled_from(["strategy.layers", "training.x", "latency.", "."]), st.text(), max_size=2)
    )
    return Recorded(draw(st.uuids()).hex, run.status, run.tags, params, run.metrics)


FILES = st.one_of(
    st.binary(max_size=60),
    st.none(),
    st.sampled_from([content for _, content in BROKEN if len(content) < 10_000]),
)


ALIKE = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
SOUND_RUNS = [recorded("none"), recorded("qat"), recorded("finetune")]


@settings(max_examples=settings().max_examples // 2, **ALIKE)  # type: ignore[arg-type]
@given(st.lists(damaged(), min_size=1, max_size=6))
def test_random_stores_become_tables(tmp_path_factory: pytest.TempPathFactory, runs: list[Recorded]) -> None:
    comparison = compare_runs(InMemory({}), frame(to_rows([*SOUND_RUNS, *runs])))  # type: ignore[arg-type]
    write_comparison(comparison, tmp_path_factory.mktemp("files"))
    assert {"4none", "3qat", "8finetune"} <= {*comparison.runs["run_id"]}
    assert len(display_table(comparison.table))


@settings(max_examples=settings().max_examples // 3, **ALIKE)  # type: ignore[arg-type]
@given(st.lists(damaged(), min_size=1, max_size=2), st.data())
def test_random_stores_become_reports(runs: list[Recorded], data: st.DataObject) -> None:
    rows = to_rows([*SOUND_RUNS, *runs])
    wanted = st.tuples(st.sampled_from([each["run_id"] for each in rows]), st.sampled_from([*SOUND, "unreachable"]))
    store: Any = InMemory(data.draw(st.dictionaries(wanted, FILES, max_size=6)))
    comparison = compare_runs(store, frame(rows))
    assert "</html>" in report(store, comparison, Pictures({}, {}), [])


@settings(max_examples=settings().max_examples // 10, **ALIKE)  # type: ignore[arg-type]
@given(st.lists(damaged(), min_size=2, max_size=3), st.data())
@pytest.mark.filterwarnings("ignore:Glyph")
def test_random_stores_are_plotted(runs: list[Recorded], data: st.DataObject) -> None:
    rows = to_rows([*SOUND_RUNS, *runs])
    wanted = st.tuples(st.sampled_from([each["run_id"] for each in rows]), st.sampled_from([RECORD, SAMPLES]))
    store: Any = InMemory(data.draw(st.dictionaries(wanted, FILES, max_size=4)))
    assert draw_pictures(store, compare_runs(store, frame(rows))).drawn


def test_artifact_that_is_a_pipe_is_omitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store: Any = InMemory({("4none", "unreachable"): b""})
    for artifact, read in READERS.items():
        assert artifacts.read_artifact(store, "4none", artifact, read) is None
    assert capsys.readouterr().err.count("Files of runs in s3://gone cannot be read (no route).") == 1
