"""The article's protocol, and its claims beside what was found: a sweep, and its tables.

The article's figures are those of one run: accuracies over 10,000 test images.
"""

from collections.abc import Iterator, Mapping

import pandas as pd
from scipy import stats

from benchmarks.harness.benchmark import CONTROL, RIVAL, Study, swept
from benchmarks.harness.markdown import each_seed_alone, markdown, scope_of, seeds_of, tested
from benchmarks.harness.pages import Table, compared_in, runs_in
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent, times, whole

IMAGES = 10_000
FLOAT, AWARE = 0.9893, 0.9900  # Keras
FLOAT_FILE, AWARE_FILE = 0.9886, 0.9901  # converted
NOT_ASKED = "not asked"
LESS_RIVAL = "quantization-aware, less that control in int8 after training"
# Strategies that the article does not try, or only advises, and what they are in plain words.
FURTHER = {
    "ptq_int8": "int8 after training, without a further epoch",
    RIVAL: "as many further epochs in float, then int8 after training",
    "annotate": "the last layer alone annotated",
}
IN_SHORT = (
    "Accuracy in %, changes in pp, of TFLite files. [low, high]: 95 % interval, over the test images. A change "
    "whose interval holds 0 is no evidence of one."
)
Rows = Mapping[str, pd.Series]  # by strategy
Claim = tuple[str, str, str]  # what is asked, what the article says, what was found here


def answers(table: pd.DataFrame, against_rival: pd.DataFrame) -> str:
    """The claims, from the rows of the study: one a strategy, held against the control, and against the rival."""
    shown = pd.DataFrame(claims(by_strategy(table), by_strategy(against_rival)), columns=["", "the article", "here"])
    ours = "McNemar's exact test, image by image; " if seeds_of(table) == 1 else ""
    return (
        f"{markdown(shown)}\n"
        f"Accuracies in %, changes in pp. [low, high]: 95 % interval ({scope_of(table)}). A change whose interval "
        f"holds 0 is no evidence of one. p: {ours}of the article's figures, which do not say which images were right, "
        "Fisher's exact test. size ratio, speedup: against the float file of the same baseline.\n"
    )


def seed_by_seed(runs: pd.DataFrame, against_rival: pd.DataFrame) -> str:
    """The changes seed by seed, each with McNemar's p-value: from runs held against the control, and the rival."""
    runs = _with_rival(runs, against_rival)
    seeds = {f"seed {seed}": by_strategy(table) for seed, table in runs.groupby("seed")}
    shown = [
        {"": told, **{seed: tested(rows[strategy], column) for seed, rows in seeds.items()}}
        for told, strategy, column in _changes()
        if all(strategy in rows for rows in seeds.values())
    ]
    return (
        f"{markdown(pd.DataFrame(shown))}\n"
        f"In pp, of TFLite files; the first file is the float one. {each_seed_alone(len(shown) * len(seeds))}\n"
    )


def _with_rival(runs: pd.DataFrame, against_rival: pd.DataFrame) -> pd.DataFrame:
    """The runs, each also with its difference from the rival of its seed."""
    columns = [str(name) for name in against_rival if "accuracy_difference" in str(name)]
    renamed = {name: name.replace("accuracy", "rival") for name in columns}
    differences = against_rival[["strategy", "seed", *renamed]].rename(columns=renamed)
    return runs.merge(differences, on=["strategy", "seed"], how="left")


def _changes() -> Iterator[tuple[str, str, str]]:
    """What is asked of every seed: in words, the strategy, and the column that has the answer."""
    yield "quantization-aware, less the first file", "qat", "accuracy_change"
    yield "as many further epochs in float, less the first file", CONTROL, "accuracy_change"
    yield "quantization-aware, less that control", "qat", "accuracy_difference"
    yield LESS_RIVAL, "qat", "rival_difference"
    for strategy, told in FURTHER.items():
        yield f"{told}, less the first file", strategy, "accuracy_change"


def in_short(rows: Rows) -> dict[str, str]:
    """The article's question in six columns."""
    return {
        "none": percent(*ends(rows["none"], "tflite_accuracy")),
        f"{CONTROL} less none": percent(*ends(rows[CONTROL], "accuracy_change"), "+"),
        "ptq_int8 less none": percent(*ends(rows["ptq_int8"], "accuracy_change"), "+"),
        **{
            f"{strategy} less {CONTROL}": percent(*ends(rows[strategy], "accuracy_difference"), "+")
            for strategy in (RIVAL, "qat", "annotate")
        },
    }


def size_and_speed(row: pd.Series) -> str:
    """What a file saves."""
    return f"{times(row['size_ratio'])}, {times(*ends(row, 'speedup'))}"


def by_strategy(table: pd.DataFrame) -> Rows:
    """The rows of a table by their strategy."""
    return {str(row["strategy"]): row for _, row in table.iterrows()}


def claims(rows: Rows, against_rival: Rows) -> Iterator[Claim]:
    """The article's claims in its order, then what it did not ask."""
    none, control, aware = rows["none"], rows[CONTROL], rows["qat"]
    yield "float, in Keras", percent(FLOAT), percent(none["keras_accuracy"])
    yield "quantization-aware, in Keras", percent(AWARE), percent(aware["keras_accuracy"])
    both, p = percent(AWARE - FLOAT, sign="+"), unpaired_p(AWARE, FLOAT)
    ours = percent(aware["keras_accuracy"] - none["keras_accuracy"], sign="+")
    yield "the second model less the first, in Keras", f"{both} (p = {p:.2f})", ours
    yield "float, the TFLite file", percent(FLOAT_FILE), percent(*ends(none, "tflite_accuracy"))
    yield "quantization-aware, the TFLite file", percent(AWARE_FILE), percent(*ends(aware, "tflite_accuracy"))
    gain, p = percent(AWARE_FILE - FLOAT_FILE, sign="+"), unpaired_p(AWARE_FILE, FLOAT_FILE)
    yield "the second file less the first", f"{gain} (p = {p:.2f})", tested(aware, "accuracy_change")
    size = f"{times(aware['size_ratio'])}, {whole(aware['tflite_bytes'])} bytes"
    yield "the second file: size ratio", "four times", size
    yield "the second file: speedup", NOT_ASKED, times(*ends(aware, "speedup"))
    yield "as many further epochs in float, less the first file", NOT_ASKED, tested(control, "accuracy_change")
    yield "quantization-aware, less that control", NOT_ASKED, percent(*ends(aware, "accuracy_difference"), "+")
    rival = percent(*ends(against_rival["qat"], "accuracy_difference"), "+")
    yield LESS_RIVAL, NOT_ASKED, rival
    for strategy, told in FURTHER.items():
        if strategy in rows:
            row = rows[strategy]
            yield f"{told}, less the first file", NOT_ASKED, tested(row, "accuracy_change")
            yield f"{told}: size ratio, speedup", NOT_ASKED, size_and_speed(row)


def unpaired_p(one: float, other: float) -> float:
    """Two-sided p-value of Fisher's exact test that two accuracies, each over IMAGES, are the same.

    Fisher, J. R. Stat. Soc. 98, 1935. An article that gives no answers image by image allows no paired test.
    """
    hits = [round(share * IMAGES) for share in (one, other)]
    return float(stats.fisher_exact([[right, IMAGES - right] for right in hits]).pvalue)


# Of the suite's strategies, those of the article's question; those that compress as well are a study of their own.
STRATEGIES = "none,finetune,ptq_dynamic,ptq_float16,ptq_int4,ptq_int8,ptq_int16x8,finetune_ptq_int8,qat,annotate"
BENCHMARK = Study(
    name="article",
    title=(
        "The article's protocol, three seeds: 20 epochs, then 20 more; controls, int8 after training, qat and annotate"
    ),
    minutes=240,
    tables=(
        swept("article"),
        Table("answer", answers, (compared_in("article"), (f"article/against_{RIVAL}.csv",))),
        Table("seeds", seed_by_seed, (runs_in("article"), (f"article/runs_against_{RIVAL}.csv",))),
    ),
    sweeps=(("+suite=article", f"strategy={STRATEGIES}", "seed=0,1,2"),),
    control=CONTROL,
    rival=RIVAL,
)
