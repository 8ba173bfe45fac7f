"""Runs as rows of a table: its columns and their types."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.record.identity import DIGESTS, name_of
from experiments.record.run_record import is_setting
from experiments.system.errors import OPTION, UserError
from experiments.tracking import Row
from experiments.tracking.schema import SCHEMA, names

# The columns of a file, in this order; other recorded values are omitted.
COLUMNS = names("setting", "metric", "verdict", "tag", "run", "derived")
# Further columns: of comparisons with the runs of one strategy, and of tables whose rows are groups of runs.
AGAINST, GROUPED = names("comparison"), names("group")
STRATEGY, FINETUNE = "strategy.", "finetune."  # settings of the strategy's option, and of its training
# Settings of where a run is stored, which do not affect its results.
NOT_DECISIVE = ("tracking.", "cache.", "latency.rounds", "latency.span")
FILES = ("model.path", "dataset.path")
WHOLE = tuple(name for name in names(kinds=("count",)) if name in COLUMNS)
WORDS = tuple(name for name in names(kinds=("text",)) if name in COLUMNS)
NUMBERS = tuple(name for name in COLUMNS if name not in (*WHOLE, *WORDS))
VOID, INVALID = "void", "invalid"  # of an invalid timing: the recorded value of `speed`, and how it is shown
SCORE = re.compile(r"(keras_score|tflite_score|score_change|score_difference)(_low|_high|_p)?")
# Columns that the formatted table shows only if their values differ.
SETTINGS = ("model", "dataset", "epochs", "seed")
NOUNS = {"model": "models", "dataset": "data sets"}
SUBJECTS = ("model", "dataset")  # groups of settings of model and data, which digests identify
# Columns for matching rows, which are not in files: digests, or names if a run has none (an earlier version, an early
# failure). NAMED has the settings of SUBJECTS of a run without digests, and is empty for others.
MODEL, TRAINING, TEST, NAMED = KEYS = ("_model", "_training", "_test", "_named")
# The settings of the task in which runs are judged differently, such as threshold=0.7; empty if all are judged alike.
JUDGED_BY = "_judged_by"
NOT_JUDGING = ("task.loss", "task.metric")  # a loss only trains, and TEST has the metric
TASK = [MODEL, TEST, JUDGED_BY]  # files compete only within the same task
INTERNAL = (*KEYS, JUDGED_BY)
# What identifies a run except for its seed, in addition to settings that vary.
CELL = ("strategy", *KEYS, "epochs", "finetune_epochs")


def names_of(table: pd.DataFrame) -> list[str]:
    """Return the columns that users can name, which are those of files."""
    return [str(name) for name in table.columns if name not in INTERNAL]


def ends(row: Any, name: str) -> tuple[Any, Any, Any]:
    """Return a value of a row and the ends of its interval."""
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows of the store as a table: WHOLE columns are Int64, NUMBERS float64, WORDS text.

    A missing measurement is an empty cell, never zero. `settings` is a digest of all settings, including those without
    a column because they do not vary.
    """
    everything = with_identity(pd.DataFrame([{**row, "settings": _digest_of(row)} for row in rows]))
    varied = {name: _as_numbers(everything[name]) for name in _varied(everything)}
    table = with_scores(everything.reindex(columns=[*COLUMNS, *INTERNAL])).assign(**varied)
    typed = table.astype({**dict.fromkeys(WHOLE, "Int64"), **dict.fromkeys(NUMBERS, "float64")})
    return typed.copy()  # in few blocks: further columns would be slow


def with_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Fill the columns of scores of runs of earlier versions, which recorded accuracies only."""
    old = table["metric"].isna() & table["tflite_accuracy"].notna()
    if not old.any():
        return table
    words = {"task": "classification", "metric": "accuracy", "metric_better": "higher"}
    accuracies = {name.replace("accuracy", "score"): name for name in map(str, table.columns) if "accuracy" in name}
    scores = {score: name for score, name in accuracies.items() if SCORE.fullmatch(score)}
    complete = table.reindex(columns=list(dict.fromkeys([*table.columns, *scores])))
    return complete.assign(
        **{name: complete[name].astype(object).where(~old, word) for name, word in words.items()},
        **{score: complete[score].where(~old, complete[name]) for score, name in scores.items()},
    )


def with_identity(table: pd.DataFrame) -> pd.DataFrame:
    """Add KEYS, JUDGED_BY and the names of models and data sets, which tables of earlier versions lack.

    A run without a digest has the names of its option and file instead, and never matches a run with digests.
    """
    wanted = [*DIGESTS, *FILES, *(f"{kind}_name" for kind in SUBJECTS)]
    complete = table.reindex(columns=[*table.columns, *(name for name in wanted if name not in table.columns)])
    unknown = complete[list(DIGESTS)].isna().any(axis=1)
    names = {
        f"{kind}_name": [
            str(title) if _given(title) else name_of(str(option), file if _given(file) else None)
            for title, option, file in complete[[f"{kind}_name", kind, f"{kind}.path"]].itertuples(index=False)
        ]
        for kind in SUBJECTS
    }
    subjects = dict(zip((MODEL, TRAINING, TEST), ("model", "dataset", "dataset"), strict=True))
    keys = {
        key: complete[digest].astype(object).where(~unknown, _joined(complete, [kind, f"{kind}.path"], unknown))
        for (key, kind), digest in zip(subjects.items(), DIGESTS, strict=True)
    }
    if "metric" in complete:  # files that are judged by different metrics do not compete
        metric = _metrics_by(keys[TEST], complete["metric"])
        other = metric.notna() & (metric != "accuracy")
        keys[TEST] = keys[TEST].where(~other, keys[TEST].astype(str) + " " + metric.astype(str))
    contents = [name for name in table.columns if is_content(name)]
    others = {NAMED: _joined(complete, contents, unknown), JUDGED_BY: _judged_by(complete)}
    found = complete.assign(**names, **keys, **others)
    return found.drop(columns=[name for name in FILES if name not in table.columns])


def _judged_by(table: pd.DataFrame) -> pd.Series:
    """Return the values of the task's settings that differ between rows, without those that do not judge."""
    of_task = [name for name in table.columns if str(name).startswith("task.") and name not in NOT_JUDGING]
    varied = [name for name in of_task if table[name].nunique() > 1]  # a run of an earlier version may lack a setting
    if not varied:
        return pd.Series("", table.index, object)  # pandas 2 has no tuples of no columns
    texts = [
        ", ".join(f"{name.partition('.')[2]}={value}" for name, value in zip(varied, map(as_typed, row), strict=True))
        for row in table[varied].itertuples(index=False)
    ]
    return pd.Series(texts, table.index, object)


def _metrics_by(tests: pd.Series, metrics: pd.Series) -> pd.Series:
    """Return the metric of each row; a failed run has that of the others on its test examples, if these have one."""
    by_test = metrics.astype(object).groupby(tests, dropna=False)
    return metrics.astype(object).where(
        metrics.notna(), by_test.transform("first").where(by_test.transform("nunique") == 1)
    )


def _given(value: object) -> bool:
    return isinstance(value, str) and value not in ("", "None")


def _joined(table: pd.DataFrame, columns: Sequence[str], where: pd.Series) -> pd.Series:
    """Return the values of these columns as one text where `where` is true; empty elsewhere."""
    rows = zip(*(table[name] for name in columns), strict=True)
    texts = [" ".join(str(value) for value in row if not pd.isna(value)) for row in rows] or ""
    return pd.Series(texts, table.index, object).where(where, "")


def is_content(name: str) -> bool:
    """Whether a setting is about model or data, such as dataset.path and model.units, which digests identify."""
    return name.partition(".")[0] in SUBJECTS and is_setting(name)


def without_internal_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without the columns for internal use."""
    return table.drop(columns=[name for name in INTERNAL if name in table.columns])


def without_digests(table: pd.DataFrame) -> int:
    """Return the number of finished runs without digests, recorded by earlier versions."""
    finished = table["status"] == "FINISHED"
    return int((finished & table.reindex(columns=list(DIGESTS)).isna().any(axis=1)).sum())


def _as_numbers(texts: pd.Series) -> pd.Series:
    """Convert a setting to Int64 or float64 if all its values are numbers; otherwise return the texts."""
    numbers = pd.to_numeric(texts.dropna(), errors="coerce")
    if numbers.isna().any():
        return texts
    return numbers.astype("Int64" if numbers.dtype == "int64" else "float64").reindex(texts.index)


def _digest_of(row: Row) -> str:
    """Return a digest of all settings, except the seed and paths of stores and caches."""
    idle = NOT_DECISIVE if row.get("finetune_epochs") else (*NOT_DECISIVE, FINETUNE)
    digests = {name: row.get(name) for name in DIGESTS}
    subjects = digests if all(digests.values()) else {name: row[name] for name in row if is_content(name)}
    others = {name: row[name] for name in row if is_setting(name) and not is_content(name)}
    asked = sorted(f"{name}={value}" for name, value in {**subjects, **others}.items() if not name.startswith(idle))
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]


def _varied(table: pd.DataFrame) -> list[str]:
    """Return the settings that differ between runs, within the same strategy or within the same task."""
    hidden = FILES if (table[NAMED] == "").all() else ()  # with digests, names are enough
    settings = [name for name in table.columns if is_setting(name) and not name.startswith((*NOT_DECISIVE, *hidden))]
    of_all = [name for name in settings if not name.startswith(STRATEGY) and not name.endswith(".epochs")]
    further = [name for name in of_all if name.startswith(FINETUNE)]
    trained = table[table["finetune_epochs"].fillna(0) > 0]
    varied = {
        *_differing(table, ["strategy", *(name for name in SETTINGS if name != "seed")], settings),
        *_differing(table, list(SUBJECTS), [name for name in of_all if name not in further]),
        *_differing(trained, list(SUBJECTS), further),
    }
    return [name for name in settings if name in varied and not _follows(table, name)]


def _differing(table: pd.DataFrame, alike: list[str], settings: list[str]) -> list[str]:
    values = table.groupby(alike, dropna=False)[settings].nunique(dropna=False)
    return [name for name in settings if (values[name] > 1).any()]


def _follows(table: pd.DataFrame, name: str) -> bool:
    """Whether a setting of further training always equals that of the baseline, which is the default."""
    leading = f"training.{name.removeprefix(FINETUNE)}"
    return name.startswith(FINETUNE) and leading in table.columns and bool((table[name] == table[leading]).all())


def cell_of(table: pd.DataFrame) -> list[str]:
    """Return the columns that identify a run except for its seed."""
    return [*CELL, *(name for name in table.columns if is_setting(name) and not is_content(name))]


def epochs_in_all(table: pd.DataFrame) -> pd.Series:
    """Return the total number of epochs: of the baseline and of all trainings of the strategy."""
    return table["epochs_trained"] + table["epochs_reused"]


def further_epochs(table: pd.DataFrame) -> pd.Series:
    """Return the number of epochs after the baseline, over all trainings of the strategy; Int64."""
    in_all = epochs_in_all(table).astype("Float64").round().astype("Int64") - table["epochs"]
    return in_all.where(in_all > table["finetune_epochs"], table["finetune_epochs"])


def key_of(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return settings for comparison; missing values are equal to each other."""
    return tuple(None if pd.isna(value) else value for value in values)


def as_typed(value: Any) -> str:
    """Return a setting as it is typed; empty if the run does not have it."""
    if pd.isna(value):
        return ""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def same_file(run: pd.Series, other: pd.Series) -> bool:
    """Whether the TFLite files of two runs are identical, byte for byte."""
    files = (run["tflite_sha256"], other["tflite_sha256"])
    return bool(pd.notna(files[0]) and pd.notna(files[1]) and files[0] == files[1])


def has_verdict(verdict: object, word: str) -> bool:
    """Whether a verdict equals a word: stores have text, CSV files booleans, and failed runs nothing."""
    return str(verdict).lower() == word


def may_be_shipped(table: pd.DataFrame) -> pd.Series:
    """Return which rows may be shipped: finished and verified ones."""
    return (table["status"] == "FINISHED") & ~table["verified"].map(lambda verified: has_verdict(verified, "false"))


def several_machines(table: pd.DataFrame) -> bool:
    """Whether the rows were measured on different machines."""
    return bool(table["machine"].nunique() > 1)


def of_one_float_file(table: pd.DataFrame) -> bool:
    """Whether speedups can be ranked: over float files with the same ops, timed alike on one machine."""
    decisive = [*TASK, NAMED, *(name for name in table.columns if name.startswith("latency."))]
    return not several_machines(table) and not (table[decisive].nunique(dropna=False) > 1).any()


def in_rounds(run: pd.Series) -> bool:
    """Whether a row is a run whose timing has several rounds."""
    rounds = run.get("latency_rounds")
    return bool(pd.notna(rounds) and rounds > 1) and not is_group(run)


def timed(column: str) -> bool:
    """Whether a column has latencies or ratios of them."""
    return column in SCHEMA and SCHEMA[column].timing


def check_comparable(table: pd.DataFrame, column: str, option: str, prefix: str = OPTION) -> None:
    """Check that latencies are compared only within one machine.

    Raises:
        UserError: the column has latencies, and the rows come from several machines.
    """
    if timed(column) and several_machines(table):
        raise UserError(
            f"{option} {column}: requires runs of one machine; latencies of different machines are not comparable. "
            f"Select one with {prefix}where \"machine == '...'\"."
        )


def is_group(run: Mapping[str, Any] | pd.Series) -> bool:
    """Whether a row combines several runs."""
    return "runs" in run and bool(run["runs"] > 1)


def label(run: Mapping[str, Any] | pd.Series, *subjects: str) -> str:
    """Return a short label of a run with the start of its id, or of a group; `subjects` name its model and data set."""
    named = " ".join([str(run["strategy"]), *subjects, f"epochs={run['epochs']}"])
    if is_group(run):
        return f"{named} ({run['runs']} runs)"
    return f"{named} seed={run['seed']} ({str(run['run_id'])[:8]})"
