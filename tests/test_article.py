"""The article's claims beside what was found, made from the study's CSV alone."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import architectures, article_timings, compression, compression_seeds, epochs
from benchmarks.article import answer_table, findings, seed_by_seed, unpaired_p
from tests.rows import row


def measured(strategy: str, difference: float, **changes: Any) -> dict[str, Any]:
    """A row that is held against the control."""
    ends = {"accuracy_difference_low": difference - 0.001, "accuracy_difference_high": difference + 0.001}
    return {**row(strategy, **changes), "accuracy_difference": difference, **ends, "arena_bytes": np.nan}


STUDY = [
    measured("none", -0.0006, keras_accuracy=0.9891, runs_on_micro="yes") | {"arena_bytes": 303_000},
    measured("finetune", 0.0, accuracy_change=0.0006, runs_on_micro="yes") | {"arena_bytes": 303_000},
    measured("ptq_dynamic", -0.0007, runs_on_micro="no: hybrid kernels"),
    measured("ptq_int8", -0.0008, size_ratio=3.84, tflite_bytes=156_296, runs_on_micro="not measured"),
    measured("qat", 0.0002, accuracy_change=0.0008, size_ratio=3.82, tflite_bytes=156_896, speedup=3.3)
    | {"accuracy_change_p": 0.25},
]


def grid(table: str) -> list[list[str]]:
    """The cells of a Markdown table: its heading, the line below that, its rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]


def lines(table: str) -> dict[str, list[str]]:
    """The cells of a Markdown table, by its first column."""
    return {first: rest for first, *rest in grid(table)}


def column_of(table: str, name: str) -> list[str]:
    """What stands in a column of a Markdown table."""
    heading, _, *rows = grid(table)
    return [row[heading.index(name)] for row in rows]


AGAINST_RIVAL = [measured("qat", 0.0001), measured("finetune", -0.0001)]


def answer(study: pd.DataFrame) -> str:
    return answer_table(study, pd.DataFrame(AGAINST_RIVAL), study)


@pytest.mark.parametrize(
    ("question", "article", "here"),
    [
        ("float, in Keras", "98.93", "98.91"),
        ("the second model minus the first, in Keras", "+0.07 (p = 0.68)", "-1.26"),
        ("the second file minus the first", "+0.15 (p = 0.33)", "+0.08 [-0.03, +0.03] (p = 0.25)"),
        ("as many further epochs in float minus the first file", "not tested", "+0.06 [-0.03, +0.03] (p = 1.00)"),
        ("quantization-aware minus that control", "not tested", "+0.02 [-0.08, +0.12]"),
        ("quantization-aware minus that control in int8 after training", "not tested", "+0.01 [-0.09, +0.11]"),
        ("the second file: size ratio", "four times", "3.82x, 156,896 bytes"),
        ("the second file: speedup", "not tested", "3.30x [0.99, 1.01]"),
        ("int8 after training, without further epochs: size ratio, speedup", "not tested", "3.84x, 1.00x [0.99, 1.01]"),
    ],
)  # fmt: skip
def test_a_claim_is_listed_with_the_measured_value(question: str, article: str, here: str) -> None:
    assert lines(answer(pd.DataFrame(STUDY)))[question] == [article, here]


def test_a_strategy_that_was_not_run_has_no_line() -> None:
    assert not [question for question in lines(answer(pd.DataFrame(STUDY))) if "annotated" in question]


@pytest.mark.parametrize(("columns", "said"), [({}, "one seed"), ({"seeds": 3}, "means of 3 seeds")])
def test_the_note_names_what_the_intervals_cover(columns: dict[str, int], said: str) -> None:
    assert said in answer(pd.DataFrame(STUDY).assign(**columns))


def test_a_table_over_seeds_has_no_test_of_a_single_seed() -> None:
    pooled = pd.DataFrame(STUDY).assign(seeds=3, accuracy_change_p=np.nan)

    assert "McNemar" not in answer(pooled)


SEEDS = pd.DataFrame(
    [{**run, "seed": seed, "accuracy_difference_p": 0.5, "accuracy_change_p": p} for seed, p in ((0, 0.25), (1, 0.03))
     for run in STUDY]
)  # fmt: skip


RIVALS = pd.DataFrame(
    [{**run, "seed": seed, "accuracy_difference_p": p} for seed, p in ((0, 0.75), (1, 0.002)) for run in AGAINST_RIVAL]
)


@pytest.mark.parametrize(
    ("question", "seed_0", "seed_1"),
    [
        ("quantization-aware minus the first file", "+0.08 [-0.03, +0.03] (p = 0.25)",
         "+0.08 [-0.03, +0.03] (p = 0.03)"),
        ("quantization-aware minus that control", "+0.02 [-0.08, +0.12] (p = 0.50)",
         "+0.02 [-0.08, +0.12] (p = 0.50)"),
        ("quantization-aware minus that control in int8 after training", "+0.01 [-0.09, +0.11] (p = 0.75)",
         "+0.01 [-0.09, +0.11] (p = 0.002)"),
    ],
)  # fmt: skip
def test_each_seed_has_its_test(question: str, seed_0: str, seed_1: str) -> None:
    assert lines(seed_by_seed(SEEDS, RIVALS))[question] == [seed_0, seed_1]


def test_a_small_p_value_is_not_rounded_to_nothing() -> None:
    rare = SEEDS.assign(accuracy_difference_p=0.00043)

    assert "(p = 0.0004)" in lines(seed_by_seed(rare, RIVALS))["quantization-aware minus that control"][0]


def test_a_strategy_that_one_seed_lacks_is_not_compared_over_seeds() -> None:
    without = SEEDS[(SEEDS["strategy"] != "qat") | (SEEDS["seed"] == 0)]

    assert not [
        question for question in lines(seed_by_seed(without, RIVALS)) if question.startswith("quantization-aware")
    ]


WHOLE = [*STUDY, measured("annotate", 0.0), measured("finetune_ptq_int8", 0.0)]


def test_each_number_of_epochs_has_its_row() -> None:
    table = epochs.published_table(pd.DataFrame([{**run, "epochs": epochs} for epochs in (1, 10) for run in WHOLE]))

    assert column_of(table, "epochs") == ["1, then 1", "10, then 10"]


SEVERAL = pd.DataFrame(
    [{**run, "model": model, "seed": seed} for model in ("resnet8", "ds_cnn") for seed in (0, 1) for run in WHOLE]
)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("model", ["resnet8", "resnet8", "ds_cnn", "ds_cnn"]),
        ("seed", ["0", "1", "0", "1"]),
        ("qat - finetune", ["+0.02 [-0.08, +0.12]"] * 4),
        ("qat - finetune_ptq_int8", ["+0.01 [-0.08, +0.12]"] * 4),
        ("qat: size ratio, speedup", ["3.82x, 3.30x [0.99, 1.01]"] * 4),
    ],
)
def test_each_model_and_seed_has_its_row(column: str, shown: list[str]) -> None:
    assert (
        column_of(architectures.published_table(SEVERAL, SEVERAL.assign(accuracy_difference=0.0001)), column) == shown
    )


COMPRESSED = [
    row("none", tflite_gzip_bytes=550_000.0),
    measured("finetune", 0.0, finetune_epochs=20, epochs=20, epochs_trained=40.0, tflite_gzip_bytes=551_000.0),
    measured("prune", -0.001, finetune_epochs=20, epochs=20, epochs_trained=40.0, tflite_gzip_bytes=50_000.0)
    | {"strategy.quantization": "int8"},
    measured("prune_qat", 0.001, finetune_epochs=20, epochs=20, epochs_trained=60.0, tflite_gzip_bytes=55_000.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("strategy", ["prune, then int8", "prune_qat", "none", "finetune"]),
        ("further epochs", ["20", "40", "0", "20"]),
        ("Δ accuracy vs finetune with as many epochs (pp)",
         ["-0.10 [-0.20, +0.00]", "+0.10 [+0.00, +0.20]", "", "+0.00 [-0.10, +0.10]"]),
        ("download size ratio", ["11.00x", "10.00x", "1.00x", "1.00x"]),
    ],
)  # fmt: skip
def test_compression_results_are_listed_smallest_download_first(column: str, shown: list[str]) -> None:
    assert column_of(compression.published_table(pd.DataFrame(COMPRESSED)), column) == shown


FURTHER_SEEDS = [
    {**run, "seed": seed} | ({"tflite_gzip_bytes": gzip} if run["strategy"] == "prune" else {})
    for seed, gzip in ((1, 50_000.0), (2, 55_000.0))
    for run in COMPRESSED[:3]
]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("strategy", ["prune, then int8", "finetune itself, against none"]),
        ("further epochs", ["20", "20"]),
        ("seed 0", ["-0.10 [-0.20, +0.00] (p = 0.50)", "+0.00 [-0.03, +0.03] (p = 1.00)"]),
        ("seed 2", ["-0.10 [-0.20, +0.00] (p = 0.50)", "+0.00 [-0.03, +0.03] (p = 1.00)"]),
        ("download size ratio", ["10.00x to 11.00x", "1.00x to 1.00x"]),
    ],
)
def test_settings_of_every_seed_are_listed_seed_by_seed(column: str, shown: list[str]) -> None:
    first, further = (pd.DataFrame(runs).assign(accuracy_difference_p=0.5) for runs in (COMPRESSED, FURTHER_SEEDS))

    assert column_of(compression_seeds.seed_by_seed(first, further), column) == shown


def test_a_difference_of_seven_images_is_no_evidence() -> None:
    assert unpaired_p(0.9893, 0.9900) == pytest.approx(0.67, abs=0.01)


def test_a_difference_of_a_point_is() -> None:
    assert unpaired_p(0.98, 0.99) < 1e-6


TIMINGS = pd.DataFrame(
    [
        row(
            strategy, seed=seed, tflite_bytes=150_000, latency_p50_us=100.0, latency_rounds=10, latency_span_seconds=600
        )
        | {"speedup": speedup + 0.02 * seed, "speedup_low": speedup - 0.01, "speedup_high": speedup + 0.03}
        for strategy, speedup in {"none": 1.0, "ptq_int8": 3.5, "qat": 3.6, "annotate": 1.1}.items()
        for seed in (0, 1)
    ]
)


def test_speedups_are_those_of_the_files_timed_together() -> None:
    study = pd.DataFrame(STUDY)
    found = answer_table(study, pd.DataFrame(AGAINST_RIVAL), TIMINGS)
    assert lines(found)["the second file: speedup"] == ["not tested", "3.60x [3.59, 3.63]"]
    assert "speedups with intervals over rounds" in found
    assert lines(found)["the second file: size ratio"] == lines(answer(study))["the second file: size ratio"]


def test_findings_of_the_readme_have_speedups_of_the_files_timed_together() -> None:
    study = pd.DataFrame([*STUDY, measured("annotate", 0.0, size_ratio=2.67)])
    found = findings(study, TIMINGS)
    assert "3.84x smaller than the float file and runs 3.50x [3.49, 3.53] as fast" in " ".join(found.split())
    assert "2.67x smaller, 1.10x [1.09, 1.13] as fast." in found
    assert max(map(len, found.splitlines())) <= 120


def test_files_of_two_seeds_are_compared() -> None:
    found = article_timings.published_table(TIMINGS)
    assert lines(found)["`ptq_int8`"][0] == "150,000"
    assert "of 4 pairs of files that differ only in the seed, 4 have equally many bytes" in found
    assert "4 have speedups whose intervals overlap, and the speedups differ by at most 2.0 %" in found
