"""The memory of a file, in LiteRT and on microcontrollers, and the clean processes that measure it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import SIGKILL

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from ai_edge_litert import schema_py_generated as schema

from experiments.dataset.mnist import Mnist
from experiments.measure import memory
from experiments.measure.child import describe_exit, run_child
from experiments.measure.memory import Arena, arena, peak_memory
from experiments.measure.op_profile import call_only_file
from experiments.model.article_cnn import ArticleCNN
from experiments.system.errors import UserError
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.flatbuffer import one_graph_file, operator_code
from experiments.tflite.schemes import Dynamic, DynamicInt4, Float16, Float32, Int8, Int16x8, Scheme
from tests.conftest import ENVIRONMENT

NEGATION = TFLiteModel(call_only_file().content)
MIB = 1 << 20


def one_op(name: str, constant: npt.NDArray[np.float32] | None = None, values: int = 1) -> TFLiteModel:
    """A file of one op on so many float32 values, and on constants."""
    tensors = [
        schema.TensorT(name=b"tensor", shape=[1, values], type=schema.TensorType.FLOAT32, buffer=buffer)
        for buffer in ((0, 0) if constant is None else (0, 0, 1))
    ]
    buffers = [schema.BufferT()] + ([] if constant is None else [schema.BufferT(data=constant.view(np.uint8))])
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0] if constant is None else [0, 2], outputs=[1])
    return TFLiteModel(one_graph_file([operator], [operator_code(name)], tensors, buffers, [0]))


def larger(count: int) -> TFLiteModel:
    """A file that takes the larger one of its input and of so many constants, value by value."""
    return one_op("MAXIMUM", np.arange(count, dtype=np.float32), count)


def script(folder: Path, code: str) -> Path:
    path = folder / "script.py"
    path.write_text(code)
    return path


def test_child_receives_its_folder(tmp_path: Path) -> None:
    code = "import sys, pathlib; pathlib.Path(sys.argv[1], 'found').write_text(str(len(sys.argv)))"
    run_child(script(tmp_path, code), tmp_path)
    assert (tmp_path / "found").read_text() == "2"


def test_child_does_not_import_this_package(tmp_path: Path) -> None:
    code = "import cProfile, sys; sys.exit(any(name.startswith('experiments') for name in sys.modules))"
    run_child(script(tmp_path, code), tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.stderr.write('first\\nlast\\n'); sys.exit(3)", r"exit code 3 \(last\)"),
        ("import os; os.abort()", r"SIGABRT \(no message\)"),
        ("raise ValueError('no such op')", r"exit code 1 \(ValueError: no such op\)"),
    ],
)
def test_the_error_of_a_failed_child_says_how_it_ended(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_child(script(tmp_path, code), tmp_path)


def test_exit_codes_and_signals_are_described() -> None:
    assert [describe_exit(code) for code in (0, 2, -9, -63)] == ["exit code 0", "exit code 2", "SIGKILL", "signal 63"]


SLEEPING = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1], "pid").write_text(f"{os.getpid()}\\n")
time.sleep(600)
"""
STARTING = """
import sys
from pathlib import Path
from experiments.measure.child import run_child
run_child(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    child = script(tmp_path, SLEEPING)
    starter = subprocess.Popen([sys.executable, "-c", STARTING, str(child), str(tmp_path)], env=ENVIRONMENT)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))

    os.kill(starter.pid, SIGKILL)
    starter.wait()

    wait_until(lambda: gone(int(pid.read_text())))


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("threads", [1, 2])
def test_peak_memory_exceeds_the_model(threads: int) -> None:
    found = peak_memory(NEGATION, np.ones((3, 1), np.float32), threads)
    assert found.peak_kib > found.model_kib > 0


def test_weights_and_activations_are_counted() -> None:
    count = 4 * MIB // 4  # 4 MiB of constants, input, and output
    more = peak_memory(larger(count), np.ones((1, count), np.float32), 1)
    less = peak_memory(larger(1), np.ones((1, 1), np.float32), 1)
    assert 11 * 1024 < more.model_kib - less.model_kib < 18 * 1024


def test_arena_is_none_without_tflite_micro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "find_spec", lambda _name: None)
    assert arena(NEGATION) is None


def test_broken_tflite_micro_is_reported_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "find_spec", lambda _name: True)
    monkeypatch.setattr(memory, "MICRO_PROBE", script(tmp_path, "raise ImportError('numpy.core failed')"))
    assert arena(NEGATION) is None
    assert "micro arena not measured: " in capsys.readouterr().out


def in_micro(model: TFLiteModel) -> Arena:
    pytest.importorskip("tflite_micro")
    found = arena(model)
    assert found is not None
    return found


def test_the_arena_grows_with_activations_and_not_with_weights() -> None:
    small, large = in_micro(larger(1000)), in_micro(larger(2000))
    assert small.bytes is not None
    assert large.bytes is not None
    assert 8000 - 64 <= large.bytes - small.bytes <= 8000 + 64  # an input and an output, 4 bytes each; aligned


def test_invalid_file_does_not_run_on_micro() -> None:
    found = in_micro(TFLiteModel(b"no model at all, yet long enough to be read as one"))
    assert found.bytes is None
    assert found.reason


def test_op_missing_on_micro_is_named() -> None:
    assert in_micro(one_op("GELU")) == Arena(None, "Didn't find op for builtin opcode 'GELU'")


HYBRID = "CONV_2D (op {}): Hybrid models are not supported on TFLite Micro."
DEQUANTIZES = "DEQUANTIZE (op 0): requires that input type is int8 or input type is int16 or input type is uint8"


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (Float32(), ""),
        (Int8(20), ""),
        (Int8(20, "int8"), ""),
        (Int16x8(20), ""),
        (Dynamic(), HYBRID.format(1)),  # the first is so small that the converter leaves it in float
        (DynamicInt4(), HYBRID.format(0)),
        (Float16(), DEQUANTIZES),
    ],
    ids=str,
)
def test_article_network_on_micro(scheme: Scheme, reason: str) -> None:
    from experiments.system.tensorflow import keras

    pytest.importorskip("tflite_micro")
    data = Mnist(train_samples=50, test_samples=1).load()
    keras.backend.clear_session()
    model = ArticleCNN().build(data.input_shape, data.classes)
    found = in_micro(convert(model, scheme, partial(data.calibration, seed=0)))
    assert found.reason == reason
    assert (found.bytes is None) == bool(reason)
