"""Runs as rows of a table: its columns, and what each holds."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.record.identity import DIGESTS, name_of
from experiments.record.run_record import is_setting
from experiments.system.errors import UserError
from experiments.tracking import Row
from experiments.tracking.schema import SCHEMA, names

# What a file holds, in this order; what a store holds beyond it is left out.
COLUMNS = names("setting", "metric", "verdict", "tag", "run", "derived")
# Further columns of a table that is held against the runs of one strategy, and of one whose rows are groups of runs.
AGAINST, GROUPED = names("comparison"), names("group")
STRATEGY, FINETUNE = "strategy.", "finetune."  # settings of the strategy's option, and of its training
# Settings that say where a run is kept, not what it is.
NOT_DECISIVE = ("tracking.", "cache.")
FILES = ("model.path", "dataset.path")
WHOLE = tuple(name for name in names(kinds=("count",)) if name in COLUMNS)
WORDS = tuple(name for name in names(kinds=("text",)) if name in COLUMNS)
NUMBERS = tuple(name for name in COLUMNS if name not in (*WHOLE, *WORDS))
VOID, INVALID = "void", "invalid"  # what `speed` says of a timing that does not count, and what people read
# Columns that a table for people shows only where they differ between its rows.
SETTINGS = ("model", "dataset", "epochs", "seed")
NOUNS = {"model": "models", "dataset": "data sets"}
SUBJECTS = ("model", "dataset")  # groups of settings that say what a run is about; digests stand for all of them
# What rows are matched by, in no file: digests, and names where a run has none (an earlier version, an early failure).
# NAMED are the settings of SUBJECTS of a run without digests, and empty for others.
MODEL, TRAINING, TEST, NAMED = KEYS = ("_model", "_training", "_test", "_named")
TASK = [MODEL, TEST]  # what a file has to do: only files of one task compete
# What a run is but for its seed, with the settings of the configuration that vary.
CELL = ("strategy", *KEYS, "epochs", "finetune_epochs")


def names_of(table: pd.DataFrame) -> list[str]:
    """The columns that can be asked for by name: those that a file holds, too."""
    return [str(name) for name in table.columns if name not in KEYS]


def ends(row: Any, name: str) -> tuple[Any, Any, Any]:
    """A value of a row and the ends of its interval."""
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of the store as a table: WHOLE are Int64, NUMBERS float64, WORDS text, and varied settings what they hold.

    A run without a measurement has an empty cell there, never a zero. `settings` stands for all that a run was asked
    for, also where no column says it because no other run differs in it.
    """
    everything = identified(pd.DataFrame([{**row, "settings": _digest_of(row)} for row in rows]))
    varied = {name: _as_numbers(everything[name]) for name in _varied(everything)}
    table = everything.reindex(columns=[*COLUMNS, *KEYS]).assign(**varied)
    return table.astype({**dict.fromkeys(WHOLE, "Int64"), **dict.fromkeys(NUMBERS, "float64")})


def identified(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the names of models and data sets, and KEYS; what older tables lack is taken from what they have.

    A run of which a digest is not known has the name of its option and file instead: it is never matched with a run
    that has one.
    """
    wanted = [*DIGESTS, *FILES, *(f"{kind}_name" for kind in SUBJECTS)]
    known = table.reindex(columns=[*table.columns, *(name for name in wanted if name not in table.columns)])
    unknown = known[list(DIGESTS)].isna().any(axis=1)
    names = {
        f"{kind}_name": [
            str(title) if _given(title) else name_of(str(option), file if _given(file) else None)
            for title, option, file in known[[f"{kind}_name", kind, f"{kind}.path"]].itertuples(index=False)
        ]
        for kind in SUBJECTS
    }
    subjects = dict(zip((MODEL, TRAINING, TEST), ("model", "dataset", "dataset"), strict=True))
    keys = {
        key: known[digest].astype(object).where(~unknown, _joined(known, [kind, f"{kind}.path"], unknown))
        for (key, kind), digest in zip(subjects.items(), DIGESTS, strict=True)
    }
    contents = [name for name in table.columns if is_content(name)]
    found = known.assign(**names, **keys, **{NAMED: _joined(known, contents, unknown)})
    return found.drop(columns=[name for name in FILES if name not in table.columns])


def _given(value: object) -> bool:
    return isinstance(value, str) and value not in ("", "None")


def _joined(table: pd.DataFrame, columns: Sequence[str], where: pd.Series) -> pd.Series:
    """The values of these columns as one text, where that is asked for; empty elsewhere."""
    rows = zip(*(table[name] for name in columns), strict=True)
    texts = [" ".join(str(value) for value in row if not pd.isna(value)) for row in rows] or ""
    return pd.Series(texts, table.index, object).where(where, "")


def is_content(name: str) -> bool:
    """Whether a setting says what a run is about, for which its digests stand: dataset.path, model.units."""
    return name.partition(".")[0] in SUBJECTS and is_setting(name)


def public(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that people and programs are given."""
    return table.drop(columns=[name for name in KEYS if name in table.columns])


def without_digests(table: pd.DataFrame) -> int:
    """How many finished runs were recorded before there were digests, and are known by names only."""
    finished = table["status"] == "FINISHED"
    return int((finished & table.reindex(columns=list(DIGESTS)).isna().any(axis=1)).sum())


def _as_numbers(texts: pd.Series) -> pd.Series:
    """A setting as numbers, Int64 or float64, if every run that has it has one; else the texts."""
    numbers = pd.to_numeric(texts.dropna(), errors="coerce")
    if numbers.isna().any():
        return texts
    return numbers.astype("Int64" if numbers.dtype == "int64" else "float64").reindex(texts.index)


def _digest_of(row: Row) -> str:
    """The same for runs that were asked for the same, but for the seed, and for where they and their files are kept."""
    idle = NOT_DECISIVE if row.get("finetune_epochs") else (*NOT_DECISIVE, FINETUNE)
    digests = {name: row.get(name) for name in DIGESTS}
    subjects = digests if all(digests.values()) else {name: row[name] for name in row if is_content(name)}
    others = {name: row[name] for name in row if is_setting(name) and not is_content(name)}
    asked = sorted(f"{name}={value}" for name, value in {**subjects, **others}.items() if not name.startswith(idle))
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]


def _varied(table: pd.DataFrame) -> list[str]:
    """Settings of the configuration in which runs differ: of one strategy in what it does, such as strategy.layers.

    In any other, such as the images that they are trained on, runs of one task may differ whatever their strategy.
    """
    hidden = FILES if (table[NAMED] == "").all() else ()  # where digests are known, names say enough
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
    """Whether a setting of further training is that of the baseline's in every run, as it is by default."""
    leading = f"training.{name.removeprefix(FINETUNE)}"
    return name.startswith(FINETUNE) and leading in table.columns and bool((table[name] == table[leading]).all())


def cell_of(table: pd.DataFrame) -> list[str]:
    """The columns that say what a run is but for its seed."""
    return [*CELL, *(name for name in table.columns if is_setting(name) and not is_content(name))]


def epochs_in_all(table: pd.DataFrame) -> pd.Series:
    """For how many epochs what was converted was trained: those of the baseline and all of the strategy's trainings."""
    return table["epochs_trained"] + table["epochs_reused"]


def further_epochs(table: pd.DataFrame) -> pd.Series:
    """For how many epochs a strategy trained after the baseline: of two trainings, those of both; Int64."""
    in_all = epochs_in_all(table).astype("Float64").round().astype("Int64") - table["epochs"]
    return in_all.where(in_all > table["finetune_epochs"], table["finetune_epochs"])


def key_of(values: Iterable[Any]) -> tuple[Any, ...]:
    """Settings as they are compared: empty ones are equal to one another."""
    return tuple(None if pd.isna(value) else value for value in values)


def as_typed(value: Any) -> str:
    """A setting as it is typed; empty where a run has none."""
    if pd.isna(value):
        return ""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def same_file(run: pd.Series, other: pd.Series) -> bool:
    """Whether two runs gave the same TFLite file, byte for byte."""
    files = (run["tflite_sha256"], other["tflite_sha256"])
    return bool(pd.notna(files[0]) and pd.notna(files[1]) and files[0] == files[1])


def says(verdict: object, word: str) -> bool:
    """Whether a verdict is true or false: a store has it as a word, a CSV as what it means, a failed run has none."""
    return str(verdict).lower() == word


def sound(table: pd.DataFrame) -> pd.Series:
    """Which rows may be shipped: finished, and verified."""
    return (table["status"] == "FINISHED") & ~table["verified"].map(lambda verified: says(verified, "false"))


def several_machines(table: pd.DataFrame) -> bool:
    """Whether the rows were measured on machines that differ in what decides latencies."""
    return bool(table["machine"].nunique() > 1)


def of_one_float_file(table: pd.DataFrame) -> bool:
    """Whether speedups can be ranked: over float files of the same ops, timed in the same way on one machine."""
    decisive = [*TASK, NAMED, *(name for name in table.columns if name.startswith("latency."))]
    return not several_machines(table) and not (table[decisive].nunique(dropna=False) > 1).any()


def timed(column: str) -> bool:
    """Whether a column holds times of inference, or ratios of them."""
    return column in SCHEMA and SCHEMA[column].timing


def check_comparable(table: pd.DataFrame, column: str, option: str) -> None:
    """Times of different machines say nothing of one another.

    Raises:
        UserError: the column holds times, and the rows come from several machines.
    """
    if timed(column) and several_machines(table):
        raise UserError(
            f"{option} {column}: these runs come from different machines, and their times say nothing of one another. "
            "Choose the runs of one with --where \"machine == '...'\"."
        )


def is_group(run: Mapping[str, Any] | pd.Series) -> bool:
    """Whether a row stands for several runs."""
    return "runs" in run and bool(run["runs"] > 1)


def label(run: Mapping[str, Any] | pd.Series, *subjects: str) -> str:
    """A run in a few words, and the beginning of its id; or a group of runs. `subjects` name its model and data set."""
    named = " ".join([str(run["strategy"]), *subjects, f"epochs={run['epochs']}"])
    if is_group(run):
        return f"{named} ({run['runs']} runs)"
    return f"{named} seed={run['seed']} ({str(run['run_id'])[:8]})"
