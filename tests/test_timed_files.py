"""Files of the latency command: one that cannot be timed is reported with the reason, before any timing."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from experiments import latency
from experiments.measure.rounds import Rounds
from experiments.runs.rounds import RecordedRun
from experiments.system.errors import UserError
from experiments.system.stamp import stamp, this_machine
from experiments.tflite.flatbuffer import packed, parsed
from experiments.tflite.graph import inputs_of, outputs_of
from tests.conftest import run
from tests.rows import a_round, row
from tests.tiny import dense_file


def changed(change: Callable[[Any], None]) -> bytes:
    """A file of one dense layer whose input tensor was changed."""
    model = parsed(dense_file().content)
    change(model.subgraphs[0].tensors[0])
    return packed(model)


def shaped(*shape: int) -> bytes:
    return changed(lambda tensor: setattr(tensor, "shape", np.array(shape, np.int32)))


def typed(kind: int) -> bytes:
    return changed(lambda tensor: setattr(tensor, "type", kind))


def with_an_op_of_its_own() -> bytes:
    model = parsed(dense_file().content)
    (code,) = model.operatorCodes
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode, code.customCode = schema.BuiltinOperator.CUSTOM, "OpOfMine"
    return packed(model)


FILES = {
    "empty": (b"", "Not a TFLite file"),
    "text": (b"not a model at all", "Not a TFLite file"),
    "cut": (dense_file().content[:60], "damaged"),
    "offsets": (b"\xff\xff\xff\x7fTFL3" + bytes(40), "damaged"),
    "string": (typed(schema.TensorType.STRING), "is string; numbers are required"),
    "complex": (typed(schema.TensorType.COMPLEX64), "The input is complex64"),
    "bool": (typed(schema.TensorType.BOOL), "The input is bool"),
    "index": (typed(schema.TensorType.INT64), "The input is int64; a timing requires float or quantized"),
    "dynamic": (shaped(1, -1), r"shape \(1, -1\) is not fixed"),
    "nothing": (shaped(1, 0), "is not fixed"),
    "scalar": (shaped(), "is not fixed"),
    "huge": (shaped(1, 2**31 - 1, 2**31 - 1, 2**31 - 1), "GiB are allowed"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_without_image_input_is_reported(name: str, tmp_path: Path) -> None:
    content, reason = FILES[name]
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(content)
    options = latency.parser().parse_args([str(path)])
    with pytest.raises(UserError, match=rf"{name}.tflite: .*{reason}"):
        list(latency._candidates(options, None))


def test_a_file_with_invalid_offsets_is_refused_wherever_they_are() -> None:
    """Four bytes at a time, as an attacker may set them: no error but a UserError, and no endless loop."""
    content = dense_file().content
    refused = 0
    for place in range(0, len(content) - 4, 4):
        for value in (b"\xff\xff\xff\x7f", b"\x40\x00\x00\x00", b"\x00\x00\x00\x00"):
            damaged = content[:place] + value + content[place + 4 :]
            for read in (inputs_of, outputs_of):
                try:
                    read(damaged)
                except UserError:
                    refused += 1
    assert refused


@pytest.mark.parametrize("kind", ["pipe", "folder", "absent"])
def test_missing_or_invalid_file_is_reported(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.tflite"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    options = latency.parser().parse_args([str(path)])
    with pytest.raises(UserError, match=rf"{kind}.tflite: (requires a file, not a|cannot be read)"):
        list(latency._candidates(options, None))


def test_file_that_cannot_be_run_is_named_among_several(tmp_path: Path) -> None:
    (tmp_path / "good.tflite").write_bytes(dense_file().content)
    (tmp_path / "bad.tflite").write_bytes(with_an_op_of_its_own())
    done = run(tmp_path, "experiments.latency", "good.tflite", "bad.tflite", "--seconds", "0.2")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr.startswith("bad.tflite: ")


def test_rounds_are_added_to_runs_that_were_timed_under_these_conditions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    file, images = dense_file(), np.zeros((1, 4), np.float32)
    machine = stamp()["machine"]

    def recorded(threads: int, kind: str, machine: str = this_machine()) -> latency.Candidate:
        found = row("none", run_id=f"{threads} {kind} {machine}", machine=kind)
        rounds = Rounds("own", "float", (replace(a_round(0, 100), threads=threads, machine=machine),))
        return latency.Candidate(found["run_id"], file, images, found, RecordedRun(found, file, file, images, rounds))

    kinds = [recorded(1, machine), recorded(2, machine), recorded(1, "another")]  # all against the same float file
    runs = [*kinds, recorded(1, machine, "another of this kind"), recorded(1, machine, machine)]
    monkeypatch.setattr(latency, "_load_recorded", lambda *_: runs)
    options = latency.parser().parse_args(["latest", "--threads", "1"])
    found = list(latency._candidates(options, SimpleNamespace()))  # type: ignore[arg-type]
    assert [each.run for each in found] == [each.run for each in runs]
    assert [each.recorded is not None for each in found] == [True, False, False, False, True]
