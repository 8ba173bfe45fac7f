"""The article's protocol, and its claims compared with the results: a sweep, and its tables.

The article's figures come from one run: accuracies on 10,000 test images.
"""

import re
from collections.abc import Iterator, Mapping
from textwrap import fill

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
NOT_TESTED = "not tested"
WIDTH, NO_BREAK = 120, "\u00a0"  # characters of a line in the README; a space that keeps its line
LESS_RIVAL = "quantization-aware minus that control in int8 after training"
# Strategies that the article does not try, or only advises, with descriptions.
FURTHER = {
    "ptq_int8": "int8 after training, without further epochs",
    RIVAL: "as many further epochs in float, then int8 after training",
    "annotate": "only the last layer annotated",
}
IN_SHORT = (
    "Accuracy in %, changes in pp, of TFLite files. [low, high]: 95 % interval, over the test examples. If an "
    "interval includes 0, there is no evidence of a change."
)
Rows = Mapping[str, pd.Series]  # by strategy
Claim = tuple[str, str, str]  # the question, the article's answer, the measured one


def answer_table(table: pd.DataFrame, against_rival: pd.DataFrame, timings: pd.DataFrame) -> str:
    """Return the claims: from the study, compared with the control and the rival, and timings of its files."""
    found = claims(by_strategy(table), by_strategy(against_rival), speeds(timings))
    shown = pd.DataFrame(found, columns=["", "the article", "here"])
    ours = "McNemar's exact test, image by image; " if seeds_of(table) == 1 else ""
    return (
        f"{markdown(shown)}\n"
        f"Accuracies in %, changes in pp. [low, high]: 95 % interval ({scope_of(table)}). If an interval "
        f"includes 0, there is no evidence of a change. p: {ours}for the article's figures, which have no predictions "
        "per image, Fisher's exact test. size ratio, speedup: against the float file of the same baseline"
        f"{'; speedups with intervals over rounds of timing' if 'latency_rounds' in timings else ''}.\n"
    )


def findings(table: pd.DataFrame, timings: pd.DataFrame) -> str:
    """Return the README's list of what was found, from the study and timings of its files."""
    rows, speed = by_strategy(table), speeds(timings)
    after, part = rows["ptq_int8"], rows["annotate"]
    article = f"{percent(AWARE_FILE - FLOAT_FILE, sign='+')} (p = {unpaired_p(AWARE_FILE, FLOAT_FILE):.2f})"
    found = (
        "**Int8 after training (`ptq_int8`) is enough here.** It changes accuracy by "
        f"{percent(*ends(after, 'accuracy_change'), '+')} points, without any further training. The file is "
        f"{times(after['size_ratio'])} smaller than the float file and runs "
        f"{times(*ends(speed['ptq_int8'], 'speedup'))} as fast. Ship it.",
        "**Quantization-aware training (`qat`) shows no gain** over the same number of further float epochs: "
        f"{percent(*ends(rows['qat'], 'accuracy_difference'), '+')} points. The article's own difference, {article}, "
        "could be chance.",
        f"**Quantizing only the last layer saves bytes, not time**: {times(part['size_ratio'])} smaller, "
        f"{times(*ends(speed['annotate'], 'speedup'))} as fast.",
    )
    return "".join(map(_item, found))


def _item(text: str) -> str:
    """Return an item of a list in lines as long as the README's; an interval stays in one line."""
    kept = re.sub(r"\[[^]]*\]", lambda interval: interval[0].replace(" ", NO_BREAK), f"- {text}")
    lines = fill(kept, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return f"{lines.replace(NO_BREAK, ' ')}\n"


def speeds(timings: pd.DataFrame) -> Rows:
    """Return the rows with the speedups, by strategy: of the first seed, where each seed has rows of its own."""
    seeds = timings["seed"].dropna()
    return by_strategy(timings[timings["seed"] == seeds.min()] if len(seeds) else timings)


def seed_by_seed(runs: pd.DataFrame, against_rival: pd.DataFrame) -> str:
    """Return the changes of each seed with McNemar's p-value, from runs compared with the control and the rival."""
    runs = _with_rival(runs, against_rival)
    seeds = {f"seed {seed}": by_strategy(table) for seed, table in runs.groupby("seed")}
    shown = [
        {"": text, **{seed: tested(rows[strategy], column) for seed, rows in seeds.items()}}
        for text, strategy, column in _changes()
        if all(strategy in rows for rows in seeds.values())
    ]
    return (
        f"{markdown(pd.DataFrame(shown))}\n"
        f"In pp, of TFLite files; the first file is the float file. {each_seed_alone(len(shown) * len(seeds))}\n"
    )


def _with_rival(runs: pd.DataFrame, against_rival: pd.DataFrame) -> pd.DataFrame:
    """Add the difference from the rival of the same seed to the runs."""
    columns = [str(name) for name in against_rival if "accuracy_difference" in str(name)]
    renamed = {name: name.replace("accuracy", "rival") for name in columns}
    differences = against_rival[["strategy", "seed", *renamed]].rename(columns=renamed)
    return runs.merge(differences, on=["strategy", "seed"], how="left")


def _changes() -> Iterator[tuple[str, str, str]]:
    """Yield the questions for every seed: text, strategy, and the column with the answer."""
    yield "quantization-aware minus the first file", "qat", "accuracy_change"
    yield "as many further epochs in float minus the first file", CONTROL, "accuracy_change"
    yield "quantization-aware minus that control", "qat", "accuracy_difference"
    yield LESS_RIVAL, "qat", "rival_difference"
    for strategy, text in FURTHER.items():
        yield f"{text}, minus the first file", strategy, "accuracy_change"


def in_short(rows: Rows) -> dict[str, str]:
    """Return the article's question in six columns."""
    return {
        "none": percent(*ends(rows["none"], "tflite_accuracy")),
        f"{CONTROL} - none": percent(*ends(rows[CONTROL], "accuracy_change"), "+"),
        "ptq_int8 - none": percent(*ends(rows["ptq_int8"], "accuracy_change"), "+"),
        **{
            f"{strategy} - {CONTROL}": percent(*ends(rows[strategy], "accuracy_difference"), "+")
            for strategy in (RIVAL, "qat", "annotate")
        },
    }


def size_and_speed(row: pd.Series, timing: pd.Series | None = None) -> str:
    """Format size ratio and speedup of a file; the latter from another row, if given."""
    return f"{times(row['size_ratio'])}, {times(*ends(row if timing is None else timing, 'speedup'))}"


def by_strategy(table: pd.DataFrame) -> Rows:
    """Return the rows of a table by strategy."""
    return {str(row["strategy"]): row for _, row in table.iterrows()}


def claims(rows: Rows, against_rival: Rows, speed: Rows) -> Iterator[Claim]:
    """Yield the article's claims in order, then further questions; `speed` has the rows with the speedups."""
    none, control, aware = rows["none"], rows[CONTROL], rows["qat"]
    yield "float, in Keras", percent(FLOAT), percent(none["keras_accuracy"])
    yield "quantization-aware, in Keras", percent(AWARE), percent(aware["keras_accuracy"])
    both, p = percent(AWARE - FLOAT, sign="+"), unpaired_p(AWARE, FLOAT)
    ours = percent(aware["keras_accuracy"] - none["keras_accuracy"], sign="+")
    yield "the second model minus the first, in Keras", f"{both} (p = {p:.2f})", ours
    yield "float, the TFLite file", percent(FLOAT_FILE), percent(*ends(none, "tflite_accuracy"))
    yield "quantization-aware, the TFLite file", percent(AWARE_FILE), percent(*ends(aware, "tflite_accuracy"))
    gain, p = percent(AWARE_FILE - FLOAT_FILE, sign="+"), unpaired_p(AWARE_FILE, FLOAT_FILE)
    yield "the second file minus the first", f"{gain} (p = {p:.2f})", tested(aware, "accuracy_change")
    size = f"{times(aware['size_ratio'])}, {whole(aware['tflite_bytes'])} bytes"
    yield "the second file: size ratio", "four times", size
    yield "the second file: speedup", NOT_TESTED, times(*ends(speed["qat"], "speedup"))
    yield "as many further epochs in float minus the first file", NOT_TESTED, tested(control, "accuracy_change")
    yield "quantization-aware minus that control", NOT_TESTED, percent(*ends(aware, "accuracy_difference"), "+")
    rival = percent(*ends(against_rival["qat"], "accuracy_difference"), "+")
    yield LESS_RIVAL, NOT_TESTED, rival
    for strategy, text in FURTHER.items():
        if strategy in rows:
            row = rows[strategy]
            yield f"{text}, minus the first file", NOT_TESTED, tested(row, "accuracy_change")
            yield f"{text}: size ratio, speedup", NOT_TESTED, size_and_speed(row, speed[strategy])


def unpaired_p(one: float, other: float) -> float:
    """Return the two-sided p-value of Fisher's exact test that two accuracies, each over IMAGES, are equal.

    Fisher, J. R. Stat. Soc. 98, 1935. Without predictions per image, a paired test is not possible.
    """
    hits = [round(share * IMAGES) for share in (one, other)]
    return float(stats.fisher_exact([[right, IMAGES - right] for right in hits]).pvalue)


TIMINGS = (
    *runs_in("article_timings"),
    *compared_in("article"),
)  # the study's own timings, if its files were not timed again
# The strategies for the article's question; those that compress have their own study.
STRATEGIES = "none,finetune,ptq_dynamic,ptq_float16,ptq_int4,ptq_int8,ptq_int16x8,finetune_ptq_int8,qat,annotate"
BENCHMARK = Study(
    name="article",
    title=(
        "The article's protocol, three seeds: 20 epochs, then 20 more; controls, int8 after training, qat and annotate"
    ),
    minutes=240,
    tables=(
        swept("article"),
        Table("answer", answer_table, (compared_in("article"), (f"article/against_{RIVAL}.csv",), TIMINGS)),
        Table("findings", findings, (compared_in("article"), TIMINGS)),
        Table("seeds", seed_by_seed, (runs_in("article"), (f"article/runs_against_{RIVAL}.csv",))),
    ),
    sweeps=(("+suite=article", f"strategy={STRATEGIES}", "seed=0,1,2"),),
    control=CONTROL,
    rival=RIVAL,
)
