"""What runs are called beside one another: their strategy, and no more settings than tell them apart."""

from collections.abc import Iterable, Sequence

import pandas as pd

from experiments.comparison.columns import TASK, as_typed, further_epochs
from experiments.record import is_setting


def epochs_told(epochs: object) -> str:
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
    models = [name for name in TASK if name not in told and runs[name].nunique() > 1]
    seeds = "seed" not in told and runs["seed"].nunique() > 1
    found = []
    for run, own_epochs in zip(runs.to_dict("records"), further, strict=True):
        parts = [str(run["strategy"]), *(str(run[name]) for name in models)]
        trained = str(run["epochs"]) if epochs else ""
        trained += f"+{own_epochs}" if own and own_epochs else ""
        parts += [epochs_told(trained)] if trained else []
        parts += [f"{told_as}={value}" for name, told_as in varied.items() if (value := as_typed(run[name]))]
        parts += [f"seed {run['seed']}"] if seeds and pd.notna(run["seed"]) else []
        found.append(", ".join(parts))
    return found


def _told(settings: Sequence[str]) -> dict[str, str]:
    """What settings are called: by their last part, where no other ends alike."""
    last = {name: name.rpartition(".")[2] for name in settings}
    return {name: part if list(last.values()).count(part) == 1 else name for name, part in last.items()}


def varies_by_itself(runs: pd.DataFrame) -> bool:
    """Whether a strategy has trained for several numbers of epochs after one and the same baseline."""
    return bool((runs.groupby(["strategy", "epochs"])["finetune_epochs"].nunique() > 1).any())
