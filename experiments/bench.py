"""The suite from Python: run a sweep, look at its table, and save the file to ship.

    from experiments import bench

    result = bench.run(strategy=["none", "ptq_int8", "qat"], epochs=1)
    result.table
    result.best(require=["tflite_accuracy >= 0.95"], minimize="tflite_bytes").save("model.tflite")

A sweep runs in a process of its own, as `python -m experiments.run -m` does, with the same store, cache and resume.
"""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.comparison.choices import answer_lines
from experiments.comparison.columns import without_internal_columns
from experiments.comparison.compared import Comparison, compare_runs
from experiments.comparison.display import display_table
from experiments.comparison.gates import decide, decision_lines, requirement
from experiments.comparison.loading import load_sweep
from experiments.comparison.query import select_rows
from experiments.comparison.recommendation import MARGIN, margin_of_points
from experiments.comparison.saving import Shipped, check_target, recommended_run, save
from experiments.plots import as_png
from experiments.plots.comparison import PLOTS, Pictures, Plot
from experiments.plots.export import draw_pictures
from experiments.report.page import write_report
from experiments.system.errors import ARGUMENT, UserError, suggestion
from experiments.system.files import PACKAGE
from experiments.tracking import Store, Tracking, open_existing

if TYPE_CHECKING:
    from collections.abc import Iterator

    Data = Sequence["npt.ArrayLike | Mapping[str, npt.ArrayLike]"]

    import numpy.typing as npt
    from matplotlib.figure import Figure

__all__ = ["Best", "Result", "RunFailedError", "load", "run"]

Value = str | int | float | bool | Path | None
INPUTS = Path("bench_inputs")  # in the folder of a sweep: models and data that were given in memory
SPLITS = ("x_train", "y_train", "x_test", "y_test")
INTERRUPTED, INVALID = 130, 2  # exit codes of the command


class RunFailedError(UserError):
    """A run of a sweep failed, or its file does not match its strategy; `result` has the others."""

    def __init__(self, message: str, result: "Result") -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, repr=False)
class Result:
    """The runs of a sweep, as `python -m experiments.compare` sees them."""

    store: Store
    comparison: Comparison
    commands: tuple[str, ...] = ()  # that made the runs

    def __repr__(self) -> str:
        """Return the number of runs and the recommendation."""
        return f"<Result of {len(self.comparison.runs)} runs. {self.answer}>"

    @property
    def table(self) -> pd.DataFrame:
        """The runs, one per row, with the columns of the CSV; runs that differ only in their seeds are one row."""
        return without_internal_columns(self.comparison.table)

    @property
    def answer(self) -> str:
        """The recommendation: what to ship, or which settings are tied, for each model and data set."""
        return "\n".join(answer_lines(self.comparison))

    def where(self, condition: str) -> "Result":
        """Return the result of the runs that meet a condition.

        Args:
            condition: A condition such as "model == 'mlp' and epochs >= 5", with the columns of `table`.

        Raises:
            UserError: the condition cannot be read, or no run meets it.
        """
        given = self.comparison
        selected = compare_runs(self.store, select_rows(given.runs, condition, ARGUMENT))
        return replace(self, comparison=replace(selected, margin=given.margin, order=given.order))

    def best(self, require: Sequence[str] = (), *, minimize: str | None = None, maximize: str | None = None) -> "Best":
        """Return the run to ship: the recommended one, or the best of those that meet the requirements.

        Args:
            require: Requirements such as "tflite_accuracy >= 0.98".
            minimize: The column whose lowest value is best; tflite_bytes if only requirements are given.
            maximize: The column whose highest value is best, instead.

        Raises:
            UserError: no run can be shipped or meets the requirements, a column does not exist, or the runs are of
                several models or data sets: select those of one with `where`.
        """
        if isinstance(require, str):
            require = [require]
        if minimize and maximize:
            raise UserError("best: requires minimize or maximize, not both.")
        if not (require or minimize or maximize):
            return self._recommended()
        table, objective = self.comparison.table, maximize or minimize or "tflite_bytes"
        requirements = [requirement(text, table, ARGUMENT) for text in require]
        decision = decide(table, requirements, objective, not maximize, self.comparison, ARGUMENT)
        lines = tuple(decision_lines(decision, objective, not maximize))
        if decision.chosen is None:
            raise UserError(f"best: {lines[-1]} {'; '.join(lines[:-1])}.")
        return Best(self, str(decision.chosen["run_id"]), (*(f"required: {text}" for text in require), *lines))

    def _recommended(self) -> "Best":
        """Return the run that the answer names."""
        found = recommended_run(self.comparison, "best", "Select one first: result.where(\"model == 'mlp'\").best()")
        if found is None:
            raise UserError("best: no run can be shipped: each failed or does not match its strategy.")
        if not found.may_be_shipped:
            raise UserError(f"best: {found.text} To choose a run anyway, give minimize or maximize.")
        return Best(self, found.run_id, (found.text,))

    @cached_property
    def _pictures(self) -> Pictures:
        return draw_pictures(self.store, self.comparison, fewest=1)

    def plot(self, name: Plot = "size") -> "Figure":
        """Return a plot as a figure of Matplotlib, which notebooks show.

        Args:
            name: Accuracy over "size", "download", "latency" or "epochs"; "training" curves, "coverage" by integers,
                distributions of "timings", or the "rounds" of timing.

        Raises:
            UserError: the name is unknown, or these runs do not have what the plot shows.
        """
        if name not in PLOTS:
            raise UserError(f"plot: {name!r} is not the name of a plot. {suggestion(name, PLOTS)}")
        picture, found = PLOTS[name], self._pictures
        if picture in found.left_out:
            raise UserError(f"plot: {name!r} cannot be drawn, since {found.left_out[picture]}.")
        figure = found.drawn[picture]
        # Notebooks look for this method; they know Matplotlib's own figures only after an import of pyplot.
        vars(figure)["_repr_png_"] = partial(as_png, figure)
        return figure

    def report(self, path: str | Path) -> Path:
        """Write the report, a web page in one file, and return its path.

        Raises:
            UserError: the file cannot be written.
        """
        write_report(self.store, self.comparison, draw_pictures(self.store, self.comparison), self.commands, Path(path))
        return Path(path)

    def _repr_html_(self) -> str:
        """Show the formatted table and the recommendation in a notebook."""
        lines = "".join(f"<p>{escape(line)}</p>" for line in answer_lines(self.comparison))
        return f"{display_table(self.comparison.table).to_html(index=False)}{lines}"


@dataclass(frozen=True, repr=False)
class Best:
    """The run to ship, and why."""

    result: Result
    run_id: str
    reasons: tuple[str, ...]

    def __repr__(self) -> str:
        """Return the strategy and the reasons."""
        return f"<Best: {self.row['strategy']}, run {self.run_id}. {' '.join(self.reasons)}>"

    @property
    def row(self) -> pd.Series:
        """The run's measurements."""
        runs = self.result.comparison.runs
        return without_internal_columns(runs[runs["run_id"] == self.run_id]).iloc[0]

    def _repr_html_(self) -> str:
        """Show the strategy and the reasons in a notebook."""
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.reasons)
        return f"<p><b>{escape(str(self.row['strategy']))}</b>, run {self.run_id}</p>{lines}"

    def save(self, path: str | Path, *, overwrite: bool = False, metadata: bool = True) -> Path:
        """Write the file, and beside it a JSON file with its measurements and how to repeat it; return the path.

        Args:
            path: Where to, a name that ends in .tflite.
            overwrite: Replace existing files.
            metadata: Add TFLite metadata with labels and preprocessing; otherwise, write the measured file as it is.

        Raises:
            UserError: the name does not end in .tflite, the file exists already, or cannot be written.
        """
        target, result = Path(path), self.result
        check_target("save", target, overwrite)
        save(result.store, result.comparison, Shipped(self.run_id, target, self.reasons), result.commands, metadata)
        return target


def run(
    *overrides: str,
    folder: str | Path = ".",
    model: Any = None,
    data: "Data | str | None" = None,
    **options: Value | Sequence[Value],
) -> Result:
    """Run a sweep and return its runs; finished runs of the same command are reused.

    Args:
        overrides: Settings as on the command line, such as "training.batch_size=100".
        folder: Where the sweep runs: its store (mlflow.db), cache and outputs.
        model: A Keras model of version 2 or 3 in memory, or the name of an option, such as "ds_cnn".
        data: x_train, y_train, x_test, y_test in memory, or the name of a data set, such as "mnist". For several inputs
            or outputs, x or y is a dictionary of arrays by their names.
        options: Settings by name; a list sweeps over its values: strategy=["none", "qat"], epochs=1, seed=[0, 1, 2].

    Raises:
        RunFailedError: a run failed, or its file does not match its strategy; the error holds the other runs.
        UserError: a setting is invalid, and nothing was run.
        KeyboardInterrupt: the sweep was interrupted; the same call continues it.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    settings = [
        *_model_settings(model, place),
        *_data_settings(data, place),
        *(f"{name}={_as_override(value)}" for name, value in options.items()),
        *overrides,
    ]
    command = [sys.executable, "-m", "experiments.run", "-m", *settings]
    code, lines = _streamed(command, place)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code == INVALID:
        raise UserError(lines[-1] if lines else f"{shlex.join(command)} ended with {code}.")
    uri, experiment = (_setting(settings, f"tracking.{name}") for name in ("uri", "experiment"))
    try:
        result = load(uri, experiment, folder=place)
    except UserError as error:
        if code != 0:  # no run was recorded; why is in the last lines of the command
            raise UserError("\n".join(lines[-2:]) or f"{shlex.join(command)} ended with {code}.") from error
        raise
    if code != 0:
        said = lines[-1] if lines else f"{shlex.join(command)} ended with {code}."
        raise RunFailedError(_why_failed(result.comparison.runs) or said, result)
    return result


def _why_failed(runs: pd.DataFrame) -> str:
    """Return why runs failed, or what their strategy requires of their files; empty if all succeeded."""
    failed, broken = runs[runs["status"] != "FINISHED"], runs["broken_promise"].astype(object)
    reasons = failed["error"].where(failed["error"].notna(), failed["status"])
    reasons = pd.concat([reasons, broken[broken.notna() & (broken != "") & ~runs.index.isin(failed.index)]])
    if reasons.empty:
        return ""
    named = "; ".join(f"{runs.loc[place, 'strategy']}: {reason}" for place, reason in reasons.items())
    return f"{len(reasons)} of {len(runs)} runs failed. {named}"


def load(
    uri: str | None = None,
    experiment: str | None = None,
    sweep: str = "latest",
    *,
    folder: str | Path = ".",
    margin: float | None = None,
) -> Result:
    """Return the runs of a sweep in a store: `latest`, `all`, or its id.

    Args:
        uri: MLflow's tracking address; by default mlflow.db in `folder`.
        experiment: MLflow's experiment.
        sweep: Which runs.
        folder: Where the sweep ran.
        margin: Accuracy that a file may give up for size or speed, in points; 0.5 by default.

    Raises:
        UserError: there is no such store, experiment or sweep, no run in it, or the margin is not between 0 and 100.
    """
    share = MARGIN if margin is None else margin_of_points(margin, ARGUMENT)
    address = uri or f"sqlite:///{Path(folder).absolute() / 'mlflow.db'}"
    store = open_existing(address, experiment or Tracking.experiment)
    comparison = replace(compare_runs(store, load_sweep(store, sweep)), margin=share)
    return Result(store, comparison, tuple(store.commands(comparison.runs["run_id"])))


def _setting(settings: Sequence[str], name: str) -> str | None:
    """Return the last value of a setting; None if it is not given."""
    values = [text.partition("=")[2] for text in settings if text.lstrip("+").startswith(f"{name}=")]
    return values[-1].strip("'\"") if values else None


def _as_override(value: Value | Sequence[Value]) -> str:
    """Return a value as Hydra's command line reads it; a sequence is swept over."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(_as_override(each) for each in value)
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Path():
            return json.dumps(str(value.absolute()))
        case _:
            return str(value)


def _streamed(command: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    """Run a command, print what it says line by line, and return its exit code and the lines."""
    lines: list[str] = []
    importable = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": importable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        held = ""  # the first line: if it is the only one, it is why nothing was run, and becomes an exception
        try:
            for line in process.stdout:
                if held or lines:
                    print(held + line, end="", flush=True)
                held = "" if held or lines else line
                if line.strip():
                    lines.append(line.strip())
        except KeyboardInterrupt:  # of a notebook or a debugger, it does not reach the command
            process.send_signal(signal.SIGINT)
            print(held + process.stdout.read(), end="", flush=True)
            raise
    if process.returncode != INVALID:
        print(held, end="", flush=True)
    return process.returncode, lines


def _model_settings(model: Any, folder: Path) -> "Iterator[str]":
    """Yield the settings for a model; one in memory is saved first, named by its content."""
    if model is None:
        return
    if isinstance(model, str):
        yield f"model={model}"
        return
    if not hasattr(model, "get_weights"):
        raise UserError(f"model: requires a Keras model or the name of an option, not {type(model).__name__}.")
    digest = hashlib.sha256(model.to_json().encode())
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    path = _input(folder, f"{model.name}-{digest.hexdigest()[:12]}.keras")
    if not path.exists():
        model.save(path)
    yield from ("model=keras_file", f"model.path={json.dumps(str(path))}")


def _data_settings(data: "Data | str | None", folder: Path) -> "Iterator[str]":
    """Yield the settings for data; arrays in memory are saved first, named by their content."""
    if data is None:
        return
    if isinstance(data, str):
        yield f"dataset={data}"
        return
    import numpy as np

    if len(data) != len(SPLITS):
        raise UserError(f"data: requires four arrays ({', '.join(SPLITS)}), not {len(data)}.")
    arrays: dict[str, Any] = {
        f"{part}/{name}" if name else part: np.asarray(values)
        for part, given in zip(SPLITS, data, strict=True)
        for name, values in (given.items() if isinstance(given, Mapping) else [("", given)])
    }
    digest = hashlib.sha256()
    for name, values in arrays.items():
        digest.update((name if "/" in name else "").encode())
        digest.update(f"{values.dtype.str}{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    path = _input(folder, f"data-{digest.hexdigest()[:12]}.npz")
    if not path.exists():
        np.savez(path, allow_pickle=False, **arrays)
    yield from ("dataset=npz", f"dataset.path={json.dumps(str(path))}")


def _input(folder: Path, name: str) -> Path:
    path = (folder / INPUTS).absolute()
    path.mkdir(exist_ok=True)
    return path / name
