"""What runs are called beside one another: their strategy, and no more settings than tell them apart."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd

from experiments.comparison.columns import FILES, NOUNS, SUBJECTS, TASK, as_typed, further_epochs, is_content, label
from experiments.record.identity import SHOWN, with_digest
from experiments.record.run_record import is_setting


def epochs_text(epochs: object) -> str:
    """1 epoch, 5 epochs, 1+5 epochs."""
    return f"{epochs} epoch" if str(epochs) in ("1", "+1") else f"{epochs} epochs"


def names(runs: pd.DataFrame, without: Iterable[str] = ()) -> list[str]:
    """Each run or group as its strategy and the settings in which these vary, but for those in `without`."""
    told = set(without)
    settings = [name for name in runs.columns if is_setting(name) and not name.endswith(".epochs")]  # told anyway
    varied = _told([name for name in settings if runs[name].nunique(dropna=False) > 1])
    epochs = "epochs" not in told and runs["epochs"].nunique() > 1
    further = further_epochs(runs)
    several_trainings = bool((further > runs["finetune_epochs"]).any())
    own = "finetune_epochs" not in told and (several_trainings or varies_by_itself(runs))
    subjects = [titled(runs, kind) for kind in SUBJECTS if kind not in told]
    models = [title.tolist() for title in subjects if title.nunique() > 1]
    seeds = "seed" not in told and runs["seed"].nunique() > 1
    found = []
    for place, (run, own_epochs) in enumerate(zip(runs.to_dict("records"), further, strict=True)):
        parts = [str(run["strategy"]), *(titles[place] for titles in models if titles[place])]
        trained = str(run["epochs"]) if epochs else ""
        trained += f"+{own_epochs}" if own and own_epochs else ""
        parts += [epochs_text(trained)] if trained else []
        parts += [f"{told_as}={value}" for name, told_as in varied.items() if (value := as_typed(run[name]))]
        parts += [f"seed {run['seed']}"] if seeds and pd.notna(run["seed"]) else []
        found.append(", ".join(parts))
    return found


def labels(table: pd.DataFrame) -> pd.Series:
    """Each run or group in a few words, with its model and data set where the table holds several."""
    rows = zip(table.iterrows(), several_subjects(table), strict=True)
    return pd.Series([label(run, *titles) for (_, run), titles in rows], table.index, object)


def several_subjects(table: pd.DataFrame) -> list[list[str]]:
    """What the model and the data set of each row are called, where the table holds several."""
    titles = [found for kind in SUBJECTS if (found := titled(table, kind)).nunique() > 1]
    return [[each[place] for each in titles if each[place]] for place in table.index]


def titled(table: pd.DataFrame, kind: str) -> pd.Series:
    """What each row's model or data set is called: its name, with a digest where another one has the same.

    Where a setting that has a column tells them apart, as dataset.train_samples does, no digest is needed.
    """
    digests = ["model_digest"] if kind == "model" else ["test_digest", "training_digest"]
    settings = [name for name in table.columns if is_content(name) and name.startswith(kind) and name not in FILES]
    contents = [None if any(map(pd.isna, each)) else each for each in _values(table, digests)]
    first: dict[Any, str] = {}  # copies of a file have one name
    names = ["" if pd.isna(name) else str(name) for name in table[f"{kind}_name"]]
    names = [first.setdefault(each, name) if each else name for each, name in zip(contents, names, strict=True)]
    called = [(name, *map(as_typed, told)) for name, told in zip(names, _values(table, settings), strict=True)]
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
    """The values of each row in these columns, of which there may be none."""
    return list(zip(*(table[name] for name in columns), strict=True)) if columns else [()] * len(table)


def _distinguished(own: tuple[str, ...], others: Collection[tuple[str, ...]]) -> str:
    """The first of its digests that tells a content from these, or all of them; empty where there are no others."""
    if len(others) < 2:
        return ""
    for place, digest in enumerate(own):
        if len({each[place] for each in others}) == len(others):
            return digest
    return "/".join(digest[:SHOWN] for digest in own)


def task_titles(table: pd.DataFrame) -> pd.Series:
    """What the task of each row is called: mlp on flowers; with the settings that tell tasks of one name apart."""
    tasks = table.groupby(TASK, dropna=False, sort=False)
    number = tasks.ngroup()
    model, dataset = (titled(table, kind).groupby(number).transform("first") for kind in SUBJECTS)
    titles: pd.Series = model + " on " + dataset
    settings = [name for name in table.columns if is_content(name) and name not in FILES]
    varied = [name for name in settings if table[name].nunique(dropna=False) > 1]
    for name, told_as in _told([name for name in varied if (tasks[name].nunique(dropna=False) == 1).all()]).items():
        shared = number.groupby(titles).transform("nunique") > 1
        values = pd.Series([f", {told_as}={as_typed(value)}" for value in table[name]], table.index, object)
        titles = titles.where(~shared, titles + values)
    return titles


def subjects_of(runs: pd.DataFrame) -> str:
    """What all of these runs are about: article_cnn on mnist; of several, how many."""
    titles = ((NOUNS[kind], titled(runs, kind).unique()) for kind in SUBJECTS)
    return " on ".join(" and ".join(found) if len(found) < 3 else f"{len(found)} {kind}" for kind, found in titles)


def _told(settings: Sequence[str]) -> dict[str, str]:
    """What settings are called: by their last part, where no other ends alike."""
    last = {name: name.rpartition(".")[2] for name in settings}
    return {name: part if list(last.values()).count(part) == 1 else name for name, part in last.items()}


def varies_by_itself(runs: pd.DataFrame) -> bool:
    """Whether a strategy has trained for several numbers of epochs after one and the same baseline."""
    return bool((runs.groupby(["strategy", "epochs"])["finetune_epochs"].nunique() > 1).any())
