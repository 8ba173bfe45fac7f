"""`compare --save`: the file to ship, and what stands beside it; and the summary for a CI job."""

import errno
import json
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flatbuffers.number_types import Float32Flags
from flatbuffers.table import Table

from experiments import compare
from experiments.comparison.saving import SCHEMA_VERSION, command_to_save
from experiments.measure.accuracy import tflite_logits
from experiments.record.artifacts import CONFIGURATION, MODEL, RECORD
from experiments.record.evidence import Predictions
from experiments.system.progress import CONSOLE
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.flatbuffer import editable, parsed
from experiments.tflite.graph import tensors
from experiments.tflite.metadata import LABELS, NAME, Description, with_metadata
from experiments.tracking import Tracking
from tests.rows import predictions, row
from tests.tiny import dense_file, int8_interface

FILE = int8_interface(dense_file())
FLOAT = dense_file()
INT8: dict[str, Any] = {"tflite_bytes": 156_296.0, "size_ratio": 3.84, "coverage_ops": 1.0, "speed": "faster"}
INT8 |= {"speedup": 3.38, "speedup_low": 3.34, "speedup_high": 3.42}
ROWS = [
    row("none", run_id="a" * 32),
    row("ptq_int8", run_id="b" * 32, **INT8),
    row("qat", run_id="c" * 32, finetune_epochs=1, **INT8),
]
WRONG = {"a" * 32: 118, "b" * 32: 118, "c" * 32: 116}
WRONG |= {f"{name}-{seed}": 118 for name in ("none", "int8") for seed in (0, 1)}
SCALING = {"divisor": 255.0, "symmetric": True}
YAML = "epochs: 1\ndataset:\n  _target_: experiments.dataset.mnist.Mnist\n  scale: symmetric\n"


def record(digest: str, **more: Any) -> bytes:
    labels = {str(number): name for number, name in enumerate(("cat", "dog", "emu", "fox"))}
    return json.dumps({"tflite_sha256": digest, "labels": labels, "stamp": {"cpu": "a CPU"}} | more).encode()


def metadata_of(content: bytes) -> bytes | None:
    model = parsed(content)
    places = [each.buffer for each in model.metadata or () if each.name == NAME.encode()]
    return bytes(model.buffers[places[0]].data) if places else None


Contents = Mapping[str, bytes]
WHOLE: Contents = {MODEL: FILE.content, RECORD: record(FILE.digest, scaling=SCALING), CONFIGURATION: YAML.encode()}
Compare = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compare:
    """The command, in a folder of its own, on a store in memory; returns its exit code."""

    def compared(*arguments: str, contents: Contents = WHOLE, rows: list[dict[str, Any]] = ROWS) -> int:
        def read_evidence(run_id: str) -> Predictions | None:
            return predictions(WRONG[run_id], images=10_000) if run_id in WRONG else None

        store = SimpleNamespace(
            rows=lambda _: rows,
            read_evidence=read_evidence,
            count_others=lambda: "",
            content=lambda _, artifact: contents.get(artifact),
            commands=lambda _: ["python -m experiments.run -m strategy=none,ptq_int8,qat"],
            address=SimpleNamespace(experiment="quantization"),
        )
        monkeypatch.setattr(compare, "open_existing", lambda *_: store)
        monkeypatch.setattr(sys, "argv", ["compare", *arguments])
        try:
            compare.main()
        except SystemExit as ended:
            return int(str(ended.code))
        return 0

    monkeypatch.chdir(tmp_path)
    return compared


def beside(path: str) -> dict[str, Any]:
    return dict(json.loads(Path(path).read_text()))


def root(content: bytes) -> Any:
    """The root of a flatbuffer."""
    return Table(content, int.from_bytes(content[:4], "little"))


def place(found: Any, field: int) -> int:
    """Where a field of a table is, from its start."""
    return int(found.Offset(4 + 2 * field))


def table(found: Any, field: int) -> Any:
    """The table in a field."""
    return Table(found.Bytes, found.Indirect(found.Pos + place(found, field)))


def tables(found: Any, field: int) -> list[Any]:
    """The tables in a field."""
    start, count = found.Vector(place(found, field)), found.VectorLen(place(found, field))
    return [Table(found.Bytes, found.Indirect(start + 4 * number)) for number in range(count)]


def floats(found: Any, field: int) -> list[float]:
    """The numbers in a field."""
    start, count = found.Vector(place(found, field)), found.VectorLen(place(found, field))
    return [found.Get(Float32Flags, start + 4 * number) for number in range(count)]


def test_the_recommended_file_is_written_with_its_description(run: Compare) -> None:
    assert run("--save", "model.tflite") == 0
    told = beside("model.json")
    assert (told["schema_version"], told["run_id"], told["measured_sha256"]) == (SCHEMA_VERSION, "b" * 32, FILE.digest)
    assert told["sha256"] == TFLiteModel(Path("model.tflite").read_bytes()).digest
    assert told["bytes"] == Path("model.tflite").stat().st_size
    assert told["settings"]["strategy"] == "ptq_int8"
    assert told["labels"] == ["cat", "dog", "emu", "fox"]
    assert told["inputs"] == [{"name": "int8", "shape": [-1, 16], "dtype": "int8", "scale": 1 / 64, "zero_point": -20}]
    assert told["outputs"][0]["zero_point"] == 3
    assert told["preprocessing"]["formula"] == "x = 2 * stored / 255 - 1"
    assert told["preprocessing"]["quantization"].startswith("q = round(x / scale) + zero_point")
    assert told["metrics"]["speedup"] == {"value": 3.38, "unit": "ratio", "low": 3.34, "high": 3.42}
    assert told["metrics"]["tflite_bytes"]["value"] == 156_296
    assert told["reasons"][0].startswith("No winner: these 3 are tied: ptq_int8, none, qat.")
    assert told["repeat"]["commands"][0].startswith("python -m experiments.run")
    assert told["repeat"]["configuration"] == YAML
    assert told["stamp"] == {"cpu": "a CPU"}


def test_the_form_of_the_file_beside_a_model_is_fixed(run: Compare) -> None:
    """A key that is renamed, removed or means something else takes a higher SCHEMA_VERSION, and a line in CHANGELOG."""
    run("--save", "model.tflite")
    told = beside("model.json")
    assert {name: type(value).__name__ for name, value in told.items()} == {
        "schema_version": "int", "file": "str", "bytes": "int", "sha256": "str", "measured_sha256": "str",
        "metadata": "bool", "run_id": "str", "settings": "dict",
        "inputs": "list", "outputs": "list", "labels": "list", "preprocessing": "dict", "metrics": "dict",
        "findings": "dict", "reasons": "list", "drawbacks": "list", "digests": "dict", "repeat": "dict",
        "stamp": "dict",
    }  # fmt: skip
    assert SCHEMA_VERSION == 2


def test_without_metadata_the_measured_file_is_written_byte_for_byte(run: Compare) -> None:
    assert run("--save", "model.tflite", "--no-metadata") == 0
    assert Path("model.tflite").read_bytes() == FILE.content
    assert (beside("model.json")["sha256"], beside("model.json")["metadata"]) == (FILE.digest, False)


def test_a_file_has_its_labels_and_the_scaling_of_its_input(run: Compare) -> None:
    run("--save", "model.tflite")
    content = Path("model.tflite").read_bytes()
    with zipfile.ZipFile("model.tflite") as archive:
        assert archive.read(LABELS).decode().split() == ["cat", "dog", "emu", "fox"]
    said = metadata_of(content)
    assert said is not None
    assert said[4:8] == b"M001"
    (graph,) = tables(root(said), 3)
    (entry,), (leave,) = tables(graph, 2), tables(graph, 3)
    (unit,) = tables(entry, 4)
    normalization = table(unit, 1)
    assert (floats(normalization, 0), floats(normalization, 1)) == ([127.5], [127.5])  # symmetric, from 0 to 255
    (file,) = tables(leave, 6)
    assert file.String(file.Pos + place(file, 0)).decode() == LABELS


def test_a_file_for_standardized_columns_does_not_say_that_they_are_plain(run: Compare) -> None:
    run("--save", "model.tflite", contents={**WHOLE, CONFIGURATION: b"dataset:\n  standardize: true\n  scale: auto\n"})
    assert beside("model.json")["preprocessing"]["formula"].startswith("x = (stored - mean) / deviation, both of each")
    said = metadata_of(Path("model.tflite").read_bytes())
    assert said is not None
    (graph,) = tables(root(said), 3)
    (entry,) = tables(graph, 2)
    assert not place(entry, 4)  # no normalization


def test_means_and_deviations_of_columns_are_beside_and_in_the_file(run: Compare) -> None:
    table_of = {"table": {"columns": ["a", "b"], "mean": [1.5, -2.0], "deviation": [0.5, 4.0]}}
    configuration = b"dataset:\n  standardize: true\n  scale: auto\n"
    contents = {RECORD: record(FILE.digest, scaling=SCALING, preprocessing=table_of), CONFIGURATION: configuration}
    run("--save", "model.tflite", contents={**WHOLE, **contents})
    assert beside("model.json")["preprocessing"]["table"] == table_of["table"]
    said = metadata_of(Path("model.tflite").read_bytes())
    assert said is not None
    (graph,) = tables(root(said), 3)
    (entry,) = tables(graph, 2)
    (unit,) = tables(entry, 4)
    assert [floats(table(unit, 1), each) for each in (0, 1)] == [[1.5, -2.0], [0.5, 4.0]]


def test_the_place_of_a_label_is_the_output_of_its_class(run: Compare) -> None:
    few = record(FILE.digest, scaling=SCALING, labels={"1": "dog", "3": "fox"})  # of a model with more outputs
    run("--save", "model.tflite", contents={**WHOLE, RECORD: few})
    assert beside("model.json")["labels"] == ["???", "dog", "???", "fox"]
    with zipfile.ZipFile("model.tflite") as archive:
        assert archive.read(LABELS).decode().splitlines() == ["???", "dog", "???", "fox"]


@pytest.mark.parametrize("labels", [(), ("cat", "dog")])
@pytest.mark.parametrize("file", [FILE, FLOAT], ids=["int8", "float"])
def test_a_file_with_metadata_has_bit_identical_outputs(file: TFLiteModel, labels: tuple[str, ...]) -> None:
    described = TFLiteModel(with_metadata(file.content, Description("a model", "", ([0.0], [255.0]), labels)))
    images = np.random.default_rng(0).random((8, 16)).astype(np.float32)
    before, after = (tflite_logits(each, images, threads=1) for each in (file, described))
    assert before.tobytes() == after.tobytes()
    assert tensors(described.content) == tensors(file.content)


def test_metadata_are_replaced_not_added() -> None:
    twice = FLOAT.content
    for name in ("first", "second"):
        twice = with_metadata(twice, Description(name, ""))
    assert len(editable(twice).metadata) == 1
    assert b"second" in (metadata_of(twice) or b"")


def test_the_file_that_the_gates_choose_is_written_with_their_reasons(run: Compare) -> None:
    assert run("--save", "model.tflite", "--require", "tflite_bytes <= 200_000", "--maximize", "tflite_accuracy") == 0
    told = beside("model.json")
    assert told["run_id"] == "b" * 32  # as good as the trained one, and simpler
    assert told["reasons"][0] == "required: tflite_bytes <= 200_000"
    assert "tied with qat" in told["reasons"][-1]


def test_where_no_run_meets_the_requirements_nothing_is_written(run: Compare) -> None:
    assert run("--save", "model.tflite", "--require", "tflite_bytes <= 1") == 3
    assert not list(Path().iterdir())


def test_where_no_run_can_be_shipped_it_says_that_nothing_is_written(
    run: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(each, run_id=number * 32, verified="false") for each, number in (("none", "a"), ("qat", "b"))]
    assert run("--save", "model.tflite", rows=rows) == 3
    assert "model.tflite is not written: no run can be shipped" in capsys.readouterr().out
    assert not list(Path().iterdir())


def test_nothing_is_written_while_there_is_nothing_to_ship_unless_the_user_says_which(
    run: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**each, "warnings": "at chance: always the same"} for each in ROWS]
    assert run("--save", "model.tflite", "--save-all", "files", rows=rows) == 3
    said = capsys.readouterr().out
    assert "Nothing to ship yet" in said
    assert "model.tflite is not written: no run can be shipped yet" in said
    assert not list(Path().iterdir())
    assert run("--save", "model.tflite", "--minimize", "tflite_bytes", rows=rows) == 0
    assert "Warning: its baseline is implausible (at chance)" in beside("model.json")["reasons"][-1]


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("--sort=-speedup",), ("--prefer", "training"), ("--prefer", "size,speed"), ("--margin", "5"),
        ("--group-by", "strategy"), ("--where", "strategy != 'ptq_int8'"), ("--where", "strategy == 'qat'"),
        ("--columns", "strategy"), ("--minimize", "tflite_bytes"), ("--maximize", "tflite_accuracy"),
        ("--maximize", "speedup", "--require", "tflite_bytes < 2e5"),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("wrong", [{}, WRONG, {**WRONG, "c" * 32: 20}, {**WRONG, "a" * 32: 20}], ids=str)
def test_the_file_that_is_written_is_that_of_the_answer(
    arguments: tuple[str, ...], wrong: Mapping[str, int], run: Compare, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Whether all are tied, one wins, or predictions are missing."""
    monkeypatch.setattr("tests.test_saving.WRONG", wrong)
    monkeypatch.setattr(CONSOLE, "_file", CONSOLE._file)  # which --json replaces
    assert run("--save", "model.tflite", "--json", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    told = beside("model.json")
    assert told["run_id"] == found["shipped_run_id"]
    assert told["reasons"][-1] in found["answer"]
    (line,) = (line for line in found["answer"] if "Ship" in line)
    assert re.search(rf"Ship (the simplest of them: )?{told['settings']['strategy']}\b", line)


def test_two_options_never_write_the_same_file(run: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--json", "--out", "--summary"):
        assert run("--save", "model.tflite", option, "model.json") == 2
        assert "model.json: two options write this file" in capsys.readouterr().err
    assert run("--save", "files/qat.tflite", "--save-all", "files") == 2
    Path("files").mkdir()
    assert run("--save", "files/qat.tflite", "--save-all", "files") == 2
    assert "qat.tflite: two options write this file" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["files"]


def test_a_disk_that_is_full_costs_no_file_that_was_there(
    run: Compare, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("model.tflite", "model.json"):
        Path(path).write_text("mine")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("--save", "model.tflite", "--overwrite") == 2
    assert "model.tflite: cannot be written ([Errno 28] No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in Path().iterdir()} == dict.fromkeys(
        ("model.tflite", "model.json"), "mine"
    )


def test_the_command_that_writes_the_file_names_a_store_that_is_not_the_default_one() -> None:
    assert command_to_save(Tracking()) == "python -m experiments.compare --save model.tflite"
    other = command_to_save(Tracking(uri="postgresql://me:secret@host/runs", experiment="two words"))
    assert other.endswith("--save model.tflite --uri 'postgresql://***@host/runs' --experiment 'two words'")


def test_a_folder_is_never_replaced(run: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.json").mkdir()
    assert run("--save", "model.tflite", "--overwrite") == 2
    assert "--save: model.json is a folder. Give another name." in capsys.readouterr().err


def test_of_more_rows_than_have_an_answer_below_them_the_reason_for_the_file_is_said(
    run: Compare, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.comparison.choices.MOST_ROWS", 2)
    assert run("--save", "model.tflite") == 0
    assert "No winner: these 3 are tied: ptq_int8" in capsys.readouterr().out


def test_an_existing_file_is_kept_unless_it_may_be_replaced(run: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.json").write_text("mine")
    assert run("--save", "model.tflite") == 2
    assert "model.json exists already. Add --overwrite" in capsys.readouterr().err
    assert (Path("model.json").read_text(), Path("model.tflite").exists()) == ("mine", False)
    assert run("--save", "model.tflite", "--overwrite") == 0
    assert beside("model.json")["file"] == "model.tflite"


def test_every_file_is_written_by_the_name_of_its_run(run: Compare) -> None:
    rows = [*ROWS, row("annotate", run_id="d" * 32, **{"strategy.layers": "['dense']"}),
            row("annotate", run_id="e" * 32, **{"strategy.layers": "['conv/1']"}),
            row("prune", run_id="f" * 32, verified="false")]  # fmt: skip
    assert run("--save-all", "files", rows=rows) == 0
    assert {path.name for path in Path("files").glob("*.tflite")} == {
        "none.tflite", "ptq_int8.tflite", "qat.tflite", "annotate_layers=_dense.tflite",
        "annotate_layers=_conv_1.tflite",
    }  # fmt: skip
    assert run("--save-all", "files", rows=rows) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({MODEL: FLOAT.content}, "is not the file that was measured"),
        ({MODEL: None}, "its model.tflite is missing"),
        ({RECORD: b"{"}, "its record.json cannot be read"),
        ({RECORD: b"[]"}, "its record.json cannot be read"),
        ({RECORD: b'{"tflite_sha256": "a", "labels": {"first": "cat"}}'}, "its record.json cannot be read"),
        ({RECORD: record(FILE.digest, labels={str(10**12): "cat"})}, "the number of a label is invalid"),
        ({RECORD: record(FILE.digest, scaling={"divisor": float("nan"), "symmetric": True})}, "a scaling is invalid"),
        (
            {RECORD: record(FILE.digest, scaling={"divisor": "255", "symmetric": True})},
            "its record.json cannot be read",
        ),
        ({RECORD: record(FILE.digest, scaling={"symmetric": True})}, "its record.json cannot be read"),
        ({RECORD: record(FILE.digest, scaling=[1])}, "its record.json cannot be read"),
    ],
)
def test_a_file_that_is_not_the_measured_one_is_refused(
    change: dict[str, Any], said: str, run: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {name: content for name, content in {**WHOLE, **change}.items() if content is not None}
    assert run("--save", "model.tflite", contents=contents) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--save", "model.bin"), "requires a name that ends in .tflite"),
        (("--save", "no/model.tflite"), "the folder no does not exist"),
        (("--overwrite",), "--overwrite: requires a model file to write"),
        (("--no-metadata",), "--no-metadata: requires a model file to write"),
        (("--save", "model.tflite", "--pair", "a", "b"), "--save: has no effect with --pair"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused_before_anything_is_shown(
    arguments: tuple[str, ...], said: str, run: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert not shown.out


def test_saving_one_file_of_several_models_is_refused(run: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--save", "model.tflite", rows=[*ROWS, row("none", model="mlp", run_id="m" * 32)]) == 2
    assert "one model and data set, not of several (article_cnn on mnist, mlp on mnist)" in capsys.readouterr().err


def test_over_seeds_the_file_is_that_of_the_lowest_seed_with_its_own_figures(run: Compare) -> None:
    rows = [row("none", seed=n, run_id=f"none-{n}") for n in (1, 0)]
    rows += [row("ptq_int8", seed=n, run_id=f"int8-{n}", **{**INT8, "tflite_bytes": 100.0 + n}) for n in (1, 0)]
    assert run("--save", "model.tflite", rows=rows) == 0
    told = beside("model.json")
    assert (told["run_id"], told["metrics"]["tflite_bytes"]["value"]) == ("int8-0", 100)
    assert "These are means over 2 runs; the file is that of the lowest seed, run int8-0." in told["reasons"][0]
    assert run("--save", "model.tflite", "--overwrite", "--maximize", "size_ratio", rows=rows) == 0
    assert beside("model.json")["run_id"] == "int8-0"


def test_a_run_of_an_earlier_version_has_its_setting_of_the_scale(run: Compare) -> None:
    run("--save", "model.tflite", contents={**WHOLE, RECORD: record(FILE.digest)})
    assert beside("model.json")["preprocessing"]["dataset.scale"] == "symmetric"
    assert "formula" not in beside("model.json")["preprocessing"]


def test_a_float_file_has_no_scale() -> None:
    (entry,), (exit_,) = tensors(FLOAT.content)
    assert (entry["dtype"], entry["scale"], entry["zero_point"], exit_["shape"]) == ("float32", None, None, [-1, 4])


def test_a_summary_begins_with_the_decision(run: Compare) -> None:
    assert run("--summary", "summary.md", "--require", "tflite_bytes <= 200_000") == 0
    title, decided, excluded, heading = Path("summary.md").read_text().split("\n\n")[:4]
    assert title == "## Which quantization to ship: article_cnn on mnist"
    assert decided.startswith("Ship ptq_int8 epochs=1 seed=0 (bbbbbbbb): tflite_bytes 156,296")
    assert excluded.startswith("not tflite_bytes &lt;= 200_000: none")
    assert heading.startswith("| strategy ")


def test_a_summary_is_written_where_the_build_fails_too(run: Compare) -> None:
    assert run("--summary", "summary.md", "--require", "tflite_bytes <= 1") == 3
    assert "No run meets all requirements." in Path("summary.md").read_text()
    assert run("--summary", "summary.md") == 0
    assert "No winner: these 3 are tied" in Path("summary.md").read_text()


def test_a_summary_begins_with_the_regressions_that_stop_a_build(run: Compare) -> None:
    run("--csv", "baseline.csv")
    before = pd.read_csv("baseline.csv")
    before.assign(tflite_bytes=before["tflite_bytes"] - 5000).to_csv("baseline.csv", index=False)
    limit = ("--against", "baseline.csv", "--max-growth", "tflite_bytes=1%")
    assert run(*limit, "--save", "model.tflite", "--summary", "summary.md") == 4
    _, stopped, first = Path("summary.md").read_text().split("\n\n")[:3]
    assert stopped == "Nothing is shipped: runs became worse than baseline.csv allows."
    assert "tflite_bytes was" in first
    assert not Path("model.tflite").exists()


def test_what_json_cannot_hold_in_a_record_becomes_null_or_a_question_mark(run: Compare) -> None:
    text = record(
        FILE.digest, scaling=SCALING, stamp={"cpu": "\ud800", "memory_gib": float("inf")}, labels={"0": "\ud800"}
    )
    assert run("--save", "model.tflite", contents={**WHOLE, RECORD: text}) == 0
    assert beside("model.json")["stamp"] == {"cpu": "?", "memory_gib": None}
    assert beside("model.json")["labels"] == ["?"]


def test_runs_with_long_settings_have_names_that_a_file_may_have(run: Compare) -> None:
    layers = [f"a_layer_with_a_long_name_{number}" for number in range(30)]
    rows = [row("none", run_id="a" * 32)]
    rows += [row("annotate", run_id=key * 32, **{"strategy.layers": str([*layers, key])}) for key in "bc"]
    assert run("--save-all", "files", rows=rows) == 0
    found = {path.name for path in Path("files").glob("*.tflite")}
    assert len(found) == 3
    assert all(len(name.encode()) < 255 for name in found)


NAMES = {"ptq_int8_.._.._a.tflite", "ptq_int8_.._.._b.tflite"}


def test_an_id_in_a_stranger_s_store_leads_to_no_other_folder(run: Compare) -> None:
    rows = [row("ptq_int8", run_id=run_id) for run_id in ("/../../a", "/../../b")]  # of equal settings
    run("--save-all", "files", rows=rows)
    found = {path.name for path in Path().rglob("*.tflite")}
    assert found == {path.name for path in Path("files").glob("*.tflite")} == NAMES
    assert not list(Path("..").glob("*.tflite"))


def test_a_name_that_no_file_may_have_is_refused(run: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--save", f"{'x' * 300}.tflite") == 2
    assert "cannot be written (File name too long). Give another name." in capsys.readouterr().err
