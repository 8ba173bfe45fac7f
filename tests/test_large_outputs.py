"""Outputs of models that may be larger than memory: in mapped files, of which every reader takes a few megabytes."""

import gc
import tracemalloc
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset, Split, arrays
from experiments.dataset.arrays import kept
from experiments.dataset.named import under
from experiments.dataset.rows import Rows
from experiments.dataset.values import Scaling
from experiments.measure import accuracy
from experiments.measure.accuracy import keras_logits, output_bytes, tflite_logits
from experiments.measure.fidelity import gaps_of_outputs
from experiments.runs import result_cache
from experiments.runs.result_cache import ResultCache
from experiments.system.cache import DATA, RESULTS, Cache, entries_in
from experiments.system.errors import UserError
from experiments.task.classification import ClassHead
from experiments.task.metrics import MeanIntersectionOverUnion, Outputs, ReconstructionError
from experiments.task.own import OwnTask
from experiments.task.segmentation import PixelHead
from tests.tiny import dense_file

FILE = dense_file(16, 4096)  # 16 KiB of outputs for an example
RNG = np.random.default_rng(0)


def results(folder: Path, count: int) -> ResultCache:
    split = Split(Rows(RNG.normal(size=(count, 16)).astype(np.float32)), np.zeros(count, np.int64))
    return ResultCache(Cache(dir=folder), Dataset(split, split.take(np.arange(0)), split, 2), seed=0, threads=2)


@pytest.fixture
def parts_of_64_kib(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (arrays, result_cache):
        monkeypatch.setattr(module, "CHUNK_BYTES", 2**16)
    monkeypatch.setattr(accuracy, "CHUNK", accuracy.BATCH)


@pytest.mark.usefixtures("parts_of_64_kib")
def test_large_outputs_are_computed_once_and_are_those_that_small_ones_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = results(tmp_path, 100)
    outputs = cached.tflite_outputs(FILE)
    assert isinstance(outputs, np.memmap)
    assert np.array_equal(outputs, tflite_logits(FILE, cached.data.test.x, threads=1))
    monkeypatch.setattr(result_cache, "tflite_parts", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(cached.tflite_outputs(FILE), outputs)
    (entry,) = entries_in(tmp_path)
    assert (entry.kind, entry.about, entry.damage) == (DATA, f"outputs: TFLite {FILE.bytes:,} bytes", "")


def test_small_outputs_stay_in_memory_and_among_the_results(tmp_path: Path) -> None:
    outputs = results(tmp_path, 100).tflite_outputs(FILE)
    assert not isinstance(outputs, np.memmap)
    assert [entry.kind for entry in entries_in(tmp_path)] == [RESULTS]


@pytest.mark.usefixtures("parts_of_64_kib")
def test_the_cache_keeps_large_outputs_as_long_as_a_run_reads_them(tmp_path: Path) -> None:
    part = results(tmp_path, 100).tflite_outputs(FILE)[3:5]
    (entry,) = entries_in(tmp_path)
    with entry.unused() as unused:
        assert not unused
    del part
    gc.collect()
    with entry.unused() as unused:
        assert unused


@pytest.mark.usefixtures("parts_of_64_kib")
def test_outputs_that_cannot_be_kept_are_refused_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = results(tmp_path, 3 * 2**16)  # 3 GiB of outputs
    model: Any = SimpleNamespace(outputs=[np.empty((1, 4096))])
    cached.check_outputs(model)
    with pytest.raises(UserError, match=r"cache.gib=5: .* take 6\.00 GiB, more than .* Use cache\.gib=11, or fewer"):
        replace(cached, cache=Cache(dir=tmp_path, gib=5)).check_outputs(model)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(UserError, match=r"for 196,608 test examples take 3\.00 GiB, and 1\.00 GiB are free\. Use"):
        cached.tflite_outputs(FILE)


@pytest.mark.usefixtures("parts_of_64_kib")
@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_outputs_whose_computation_ended_early(
    ended_by: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(*_: Any) -> Generator[Outputs, None, None]:
        yield np.zeros((8, 4096), np.float32)
        raise ended_by

    monkeypatch.setattr(result_cache, "tflite_parts", some)
    with pytest.raises(ended_by):
        results(tmp_path, 100).tflite_outputs(FILE)
    assert not [path for path in (tmp_path / DATA).iterdir() if path.suffix != ".lock"]


@pytest.mark.usefixtures("parts_of_64_kib")
def test_an_error_of_one_thread_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def failing(_: Any, images: Any) -> Any:
        calls.append(len(images))
        raise RuntimeError("no memory")

    images = np.zeros((800, 16), np.float32)
    monkeypatch.setattr(accuracy, "can_batch", lambda *_: True)
    monkeypatch.setattr(accuracy, "_invoke_in_batches", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        tflite_logits(FILE, images, threads=2)
    assert len(calls) <= 2 * accuracy.AHEAD


def peak_of_all_readers(folder: Path, count: int) -> int:
    """The memory that is allocated while outputs are computed, kept, compared and judged."""
    cached = results(folder, count)
    stored = RNG.integers(0, 4, (count, 32, 32, 4), np.uint8)
    maps: Any = Rows(stored[..., 0].copy(), Scaling(dtype=np.dtype(np.int64)))
    test = Split(Rows(stored), maps)
    normal = Split(Rows(stored), np.zeros(count, np.int64))
    tracemalloc.start()
    outputs = cached.tflite_outputs(FILE)
    ClassHead(4096, "logits").predict(outputs)
    pixels = kept((outputs[n : n + 1].reshape(1, 32, 32, 4) for n in range(count)), count)
    gaps_of_outputs({"one": pixels, "other": pixels}, "", {"": PixelHead(4096, logits=True)})
    MeanIntersectionOverUnion().value(pixels, test)
    ReconstructionError().value(pixels, normal)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.usefixtures("parts_of_64_kib")
def test_memory_does_not_grow_with_the_outputs(tmp_path: Path) -> None:
    few, many = (peak_of_all_readers(tmp_path / str(count), count) for count in (64, 512))
    assert many < few + 2**20  # of 7 MiB of outputs more


@pytest.mark.usefixtures("parts_of_64_kib")
def test_the_score_of_a_users_task_is_given_parts_of_large_outputs() -> None:
    lengths: list[int] = []

    class Scored(OwnTask):
        metric_name = "largest"

        def score(self, outputs: Any, truth: Any) -> Any:
            lengths.append(len(outputs))
            return outputs.max(axis=1) - truth

    outputs = RNG.normal(size=(50, 4096)).astype(np.float32)
    model: Any = type("Model", (), {"outputs": [np.empty((1, 4096))]})
    metric = Scored().head(model, results(Path(), 50).data).metric
    assert metric.value(outputs, Split(Rows(outputs), np.ones(50))) == pytest.approx(outputs.max(axis=1).mean() - 1)
    assert (sum(lengths), max(lengths)) == (50, 4)


@pytest.mark.tensorflow
@pytest.mark.usefixtures("parts_of_64_kib")
def test_several_large_outputs_are_read_by_name(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    given = keras.layers.Input((16,), name="given")
    ends = [keras.layers.Dense(width, name=name)(given) for name, width in (("wide", 4096), ("narrow", 3))]
    model = keras.Model(given, ends)
    cached = results(tmp_path, 40)
    outputs, in_memory = cached.keras_outputs(model), keras_logits(model, cached.data.test.x)
    assert (type(outputs), output_bytes(model)) == (np.memmap, 4 * 4099)
    heads = {"wide": ClassHead(4096, "logits"), "narrow": None}
    both = {"mapped": outputs, "in memory": in_memory}
    gaps = gaps_of_outputs(both, "narrow", heads)
    assert [(gap.output, gap.agreement, gap.max_logit_error) for gap in gaps] == [("narrow", None, 0), ("wide", 1, 0)]
    assert isinstance(under("wide", outputs), np.memmap)  # not read as a whole
