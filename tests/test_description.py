"""The description of a run in MLflow."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.record.description import describe
from experiments.statistics.estimates import Estimate


def said(verdict: str = "faster", change: tuple[float, float, float] = (0.0, -0.001, 0.001), **words: str) -> str:
    latency = SimpleNamespace(
        verdict=verdict,
        speedup=Estimate(3.34, 3.33, 3.35),
        own=SimpleNamespace(percentile_us=lambda _: 47.4),
        session=SimpleNamespace(void="other work kept 1.5 of 2 cores busy"),
    )
    tags = {"arithmetic": "4 int8", "left_float": "", "broken_promise": "", **words}
    evidence = SimpleNamespace(
        tflite_accuracy=Estimate(0.957, 0.952, 0.961), change=Estimate(*change), agreement=0.9981
    )
    record: Any = SimpleNamespace(
        engine=words.pop("engine", ""),
        evidence=evidence,
        predictions=evidence,
        tflite=SimpleNamespace(bytes=156_296),
        reference=SimpleNamespace(bytes=599_796),
        latency=latency,
        warnings=(),
        broken=tuple(filter(None, [tags["broken_promise"]])),
        verdict=lambda: tags,
        data=SimpleNamespace(test=10_000, example=np.zeros((1, 28, 28, 1), np.float32)),
    )
    return describe(record, "runs:/ID/model")


def test_description_has_the_values_of_the_table() -> None:
    text = said()
    assert "**95.70 [95.20, 96.10] % accuracy** on 10,000 test examples" in text
    assert "**156,296 bytes**; the float file has 599,796: 3.84x smaller." in text
    assert "**47.4 µs** an inference (median), faster than the float file: 3.34x [3.33, 3.35]." in text
    assert 'mlflow.pyfunc.load_model("runs:/ID/model")' in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((0.0, -0.001, 0.001), "not significantly different from that of the float TFLite model"),
        ((0.02, 0.017, 0.023), "higher than that of the float TFLite model"),
        ((-0.02, -0.023, -0.017), "lower than that of the float TFLite model"),
    ],
)
def test_accuracy_differs_only_if_the_interval_excludes_0(change: tuple[float, float, float], words: str) -> None:
    assert words in said(change=change)


def test_identical_file_is_described_as_such() -> None:
    text = said(verdict="same file")
    assert "the same file as the float TFLite model" in text
    assert "(median): the file is identical to the float file." in text
    assert "faster than" not in text


def test_an_invalid_timing_has_no_numbers() -> None:
    text = said(verdict="void")
    assert "Its timing is invalid: other work kept 1.5 of 2 cores busy." in text
    assert "us**" not in text


def test_unmet_expectation_and_float_layers_are_described() -> None:
    text = said(broken_promise="conv computes in float32", left_float="conv stays float (no recipe)")
    assert "**Does not match the strategy's expectation**: conv computes in float32." in text
    assert "conv stays float (no recipe)." in text


def test_the_engine_of_a_training_is_named() -> None:
    assert "Engine of the training: this package's own (Keras 3)." in said(engine="own")


def test_no_engine_is_named_where_none_was_used() -> None:
    assert "Engine" not in said()
