"""Latency of each op: ops extracted from a file compute the same as in it, and each is timed."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.measure import op_profile as module
from experiments.measure.fidelity import delegated
from experiments.measure.latency import LatencyProtocol, TimedFile
from experiments.measure.op_profile import (
    WITH_ITS_READER,
    OpTime,
    Profile,
    call_only_file,
    extract_ops,
    op_profile,
)
from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.ds_cnn import DSCNN
from experiments.model.resnet8 import ResNet8
from experiments.plots.run import COLOURS, save_profile
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.flatbuffer import one_graph_file, operator_code
from experiments.tflite.graph import Op, read_ops
from experiments.tflite.schemes import Dynamic, DynamicInt4, Float16, Float32, Int8, Int16x8, Scheme

NEGATION = TFLiteModel(call_only_file().content)
NUMBERS = np.arange(3, dtype=np.float32).reshape(3, 1)
SCHEMES: list[Scheme] = [Float32(), Dynamic(), DynamicInt4(), Float16(), Int8(20), Int8(20, "int8"), Int16x8(20)]


def operator(name: str, inputs: list[int], outputs: list[int], code: int) -> tuple[Any, Any]:
    return schema.OperatorT(opcodeIndex=code, inputs=inputs, outputs=outputs), operator_code(name)


def with_an_op_of_constants() -> TFLiteModel:
    """A file that negates a number, once it has filled a tensor from constants."""
    floats, integers = schema.TensorType.FLOAT32, schema.TensorType.INT32
    tensors = [
        schema.TensorT(name=b"in", shape=[1, 1], type=floats, buffer=0),
        schema.TensorT(name=b"shape", shape=[2], type=integers, buffer=1),
        schema.TensorT(name=b"value", shape=[], type=floats, buffer=2),
        schema.TensorT(name=b"filled", shape=[1, 1], type=floats, buffer=0),
        schema.TensorT(name=b"out", shape=[1, 1], type=floats, buffer=0),
    ]
    buffers = [
        schema.BufferT(),
        schema.BufferT(data=np.array([1, 1], np.int32).view(np.uint8)),
        schema.BufferT(data=np.array([2], np.float32).view(np.uint8)),
    ]
    operators, codes = zip(operator("FILL", [1, 2], [3], 0), operator("NEG", [0], [4], 1), strict=True)
    return TFLiteModel(one_graph_file(operators, codes, tensors, buffers, [0]))


def profiled(model: TFLiteModel, **options: Any) -> Profile:
    return op_profile(model, read_ops(model.content, []), NUMBERS, LatencyProtocol(seconds=0.5, **options))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_only_op_has_the_whole_share(threads: int) -> None:
    found = profiled(NEGATION, threads=threads)
    (op,) = found.ops
    assert (op.index, op.op, op.types, op.remark) == (0, "NEG", "float32", "")
    assert found.whole_us > 0
    assert found.call_us > 0


def test_op_without_inputs_has_no_time() -> None:
    filling, negating = profiled(with_an_op_of_constants()).ops
    assert (filling.op, filling.microseconds, filling.share) == ("FILL", None, None)
    assert filling.remark == "cannot be run alone: it has no inputs"
    assert negating.microseconds is not None


def test_an_op_that_cannot_be_run_alone_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {0: TimedFile(b"not a file", call_only_file().inputs)}
    monkeypatch.setattr(module, "extract_ops", lambda *_: (broken, {}))
    found = profiled(NEGATION)
    (op,) = found.ops
    assert (op.microseconds, op.share) == (None, None)
    assert op.remark.startswith("cannot be run alone: ")
    assert found.sum_us == found.call_us


def test_the_sum_counts_one_call() -> None:
    times = (10.0, None, 30.0)
    ops = tuple(OpTime(i, "CONV_2D", "", "int8", us, us and us / 40, "") for i, us in enumerate(times))
    assert Profile(ops, whole_us=41, call_us=2).sum_us == 42


@pytest.mark.parametrize("longest", [0.3, 30, 3000])
def test_profile_is_plotted(tmp_path: Path, longest: float) -> None:
    timed = tuple(OpTime(i, "CONV_2D", f"conv{i}", types, longest, 0.1, "") for i, types in enumerate(COLOURS))
    others = (
        OpTime(10, "DEQUANTIZE", "", "float16", None, None, WITH_ITS_READER),
        OpTime(11, "WHILE", "", "uint8", None, None, "cannot be run alone: it calls another graph"),
    )
    save_profile(tmp_path / "profile.png", Profile((*timed, *others), longest * 6, 1.0), "many types")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


@cache
def data() -> Dataset:
    return Mnist(train_samples=50, test_samples=3).load()


@cache
def converted(architecture: Architecture, scheme: Scheme) -> tuple[TFLiteModel, tuple[Op, ...]]:
    """The file of an untrained model."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = architecture.build(data().input_shape, data().classes)
    file = convert(model, scheme, partial(data().calibration, seed=0))
    return file, read_ops(file.content, [layer.name for layer in model.layers])


def answer(cut: TimedFile, image: int) -> Any:
    """The output of the file of one op, on the kernels that keep all tensors of the whole file."""
    interpreter = Interpreter(
        model_content=cut.content,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    for entry, values in zip(interpreter.get_input_details(), cut.inputs, strict=True):
        interpreter.set_tensor(entry["index"], values[image])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.tensorflow
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("architecture", [ArticleCNN(), ResNet8(), DSCNN(filters=16)], ids=lambda it: type(it).__name__)
def test_extracted_op_computes_the_same_as_in_the_file(architecture: Architecture, scheme: Scheme) -> None:
    file, ops = converted(architecture, scheme)
    cuts, _ = extract_ops(file, ops, data().test.x[:])
    makers = {tensor: op.index for op in ops for tensor in op.outputs}
    outputs = module._values(file, makers, data().test.x[:])
    assert {op.index for op in ops if op.computes} <= cuts.keys()
    for tensor, index in makers.items():
        if index in cuts:
            for image in range(len(data().test.x)):
                np.testing.assert_array_equal(answer(cuts[index], image), outputs[tensor][image], strict=True)


@pytest.mark.tensorflow
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_delegate_runs_the_same_ops_when_extracted(scheme: Scheme) -> None:
    file, ops = converted(ArticleCNN(), scheme)
    cuts, _ = extract_ops(file, ops, data().test.x[:])
    taken = delegated(file, ops)
    for index, cut in cuts.items():
        alone = TFLiteModel(cut.content)
        assert bool(delegated(alone, read_ops(alone.content, []))) == (index in taken)


@pytest.mark.tensorflow
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_op_is_listed_and_every_computing_op_is_timed(scheme: Scheme) -> None:
    file, ops = converted(ResNet8(), scheme)
    found = op_profile(file, ops, data().test.x[:], LatencyProtocol(seconds=1))
    assert [(op.index, op.op, op.layer) for op in found.ops] == [(op.index, op.op, op.layer) for op in ops]
    assert all((op.microseconds is None) == bool(op.remark) for op in found.ops)
    assert {op.op for op in found.ops if op.remark} <= {"DEQUANTIZE"}
    assert sum(op.share or 0.0 for op in found.ops) == pytest.approx(1)
