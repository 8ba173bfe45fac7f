"""Display names of runs: the strategy, and only the settings that distinguish them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd

from experiments.comparison.columns import (
    FILES,
    JUDGED_BY,
    NOUNS,
    SUBJECTS,
    TASK,
    as_typed,
    further_epochs,
    is_content,
    label,
)
from experiments.record.identity import SHOWN, with_digest
from experiments.record.run_record import is_setting


def epochs_text(epochs: object) -> str:
    """Format epochs: 1 epoch, 5 epochs, 1+5 epochs."""
    return f"{epochs} epoch" if str(epochs) in ("1", "+1") else f"{epochs} epochs"


def names(runs: pd.DataFrame, without: Iterable[str] = ()) -> list[str]:
    """Return a name for each run or group: its strategy, and the settings that vary, except those in `without`."""
    hidden = set(without)
    settings = [name for name in runs.columns if is_setting(name) and not name.endswith(".epochs")]  # shown below
    varied = _short_names([name for name in settings if runs[name].nunique(dropna=False) > 1])
    epochs = "epochs" not in hidden and runs["epochs"].nunique() > 1
    further = further_epochs(runs)
    several_trainings = bool((further > runs["finetune_epochs"]).any())
    own = "finetune_epochs" not in hidden and (several_trainings or varies_by_itself(runs))
    subjects = [display_names(runs, kind) for kind in SUBJECTS if kind not in hidden]
    models = [title.tolist() for title in subjects if title.nunique() > 1]
    seeds = "seed" not in hidden and runs["seed"].nunique() > 1
    found = []
    for place, (run, own_epochs) in enumerate(zip(runs.to_dict("records"), further, strict=True)):
        parts = [str(run["strategy"]), *(titles[place] for titles in models if titles[place])]
        trained = str(run["epochs"]) if epochs else ""
        trained += f"+{own_epochs}" if own and own_epochs else ""
        parts += [epochs_text(trained)] if trained else []
        parts += [f"{short}={value}" for name, short in varied.items() if (value := as_typed(run[name]))]
        parts += [f"seed {run['seed']}"] if seeds and pd.notna(run["seed"]) else []
        found.append(", ".join(parts))
    return found


def labels(table: pd.DataFrame) -> pd.Series:
    """Return a short label for each run or group, with model and data set if the table has several."""
    rows = zip(table.iterrows(), several_subjects(table), strict=True)
    return pd.Series([label(run, *titles) for (_, run), titles in rows], table.index, object)


def several_subjects(table: pd.DataFrame) -> list[list[str]]:
    """Return the names of model and data set of each row, if the table has several."""
    titles = [found for kind in SUBJECTS if (found := display_names(table, kind)).nunique() > 1]
    return [[each[place] for each in titles if each[place]] for place in table.index]


def display_names(table: pd.DataFrame, kind: str) -> pd.Series:
    """Return the name of each row's model or data set, with a digest if another one has the same name.

    No digest is added if a setting with a column, such as dataset.train_samples, distinguishes them.
    """
    digests = ["model_digest"] if kind == "model" else ["test_digest", "training_digest"]
    settings = [name for name in table.columns if is_content(name) and name.startswith(kind) and name not in FILES]
    contents = [None if any(map(pd.isna, each)) else each for each in _values(table, digests)]
    first: dict[Any, str] = {}  # copies of a file have one name
    names = ["" if pd.isna(name) else str(name) for name in table[f"{kind}_name"]]
    names = [first.setdefault(each, name) if each else name for each, name in zip(contents, names, strict=True)]
    called = [(name, *map(as_typed, values)) for name, values in zip(names, _values(table, settings), strict=True)]
    sharing: defaultdict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for each, own in zip(contents, called, strict=True):
        if each:
            sharing[own].add(each)
    titles = [
        with_digest(name, _distinguished(each, sharing[own])) if each else name
        for name, each, own in zip(names, contents, called, strict=True)
    ]
    return pd.Series(titles, table.index, object)


def _values(table: pd.DataFrame, columns: list[str]) -> list[tuple[Any, ...]]:
    """Return the values of each row in these columns, which may be none."""
    return list(zip(*(table[name] for name in columns), strict=True)) if columns else [()] * len(table)


def _distinguished(own: tuple[str, ...], others: Collection[tuple[str, ...]]) -> str:
    """Return the first digest that distinguishes a content from the others, or all of them; empty without others."""
    if len(others) < 2:
        return ""
    for place, digest in enumerate(own):
        if len({each[place] for each in others}) == len(others):
            return digest
    return "/".join(digest[:SHOWN] for digest in own)


def task_titles(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's task, such as mlp on flowers, with settings that distinguish equal names."""
    tasks = table.groupby(TASK, dropna=False, sort=False)
    number = tasks.ngroup()
    model, dataset = (display_names(table, kind).groupby(number).transform("first") for kind in SUBJECTS)
    titles: pd.Series = model + " on " + dataset
    settings = [name for name in table.columns if is_content(name) and name not in FILES]
    varied = [name for name in settings if table[name].nunique(dropna=False) > 1]
    for name, short in _short_names(
        [name for name in varied if (tasks[name].nunique(dropna=False) == 1).all()]
    ).items():
        shared = number.groupby(titles).transform("nunique") > 1
        values = pd.Series([f", {short}={as_typed(value)}" for value in table[name]], table.index, object)
        titles = titles.where(~shared, titles + values)
    shared = number.groupby(titles).transform("nunique") > 1
    return titles.where(~shared | (table[JUDGED_BY] == ""), titles + ", " + table[JUDGED_BY])


def subjects_of(runs: pd.DataFrame) -> str:
    """Return the models and data sets of these runs, such as article_cnn on mnist, or how many there are."""
    titles = ((NOUNS[kind], display_names(runs, kind).unique()) for kind in SUBJECTS)
    return " on ".join(" and ".join(found) if len(found) < 3 else f"{len(found)} {kind}" for kind, found in titles)


def _short_names(settings: Sequence[str]) -> dict[str, str]:
    """Return short names of settings: the last part, unless another one ends with the same part."""
    last = {name: name.rpartition(".")[2] for name in settings}
    return {name: part if list(last.values()).count(part) == 1 else name for name, part in last.items()}


def varies_by_itself(runs: pd.DataFrame) -> bool:
    """Whether a strategy was trained for several numbers of epochs after the same baseline."""
    return bool((runs.groupby(["strategy", "epochs"])["finetune_epochs"].nunique() > 1).any())
