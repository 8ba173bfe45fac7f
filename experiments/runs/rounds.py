"""Rounds of timing for finished runs: their files are timed together, and the rounds added to their records.

The runs need not be of the same sweep or process. A round that is measured is stored at once, so a command that was
stopped continues with the rounds that are missing. Rounds that another process has added meanwhile are kept.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from experiments.measure.latency import Delegate, LatencyProtocol, Session, time_together
from experiments.measure.rounds import Round, Rounds, moments
from experiments.record.artifacts import (
    CONFIGURATION,
    FLOAT,
    MODEL,
    RECORD,
    ROUNDS,
    read_artifact,
    read_or_none,
    read_rounds,
    save_rounds,
    with_timing,
)
from experiments.record.identity import DIGITS, SHOWN
from experiments.system.errors import UserError
from experiments.system.machine import recording_lock
from experiments.system.progress import say
from experiments.system.stamp import is_this_machine, stamp, this_machine
from experiments.system.temporary import temporary_folder
from experiments.task.auto import kind_of_task
from experiments.tracking import Row, Store

LOCAL = ("basic", "joblib")  # launchers whose jobs run on this machine, so that a sweep can time them together

if TYPE_CHECKING:
    from experiments.dataset import Dataset, Examples, Images, Source
    from experiments.dataset.rows import Rows
    from experiments.dataset.shapes import Entries
    from experiments.dataset.targets import Kind
    from experiments.tflite.conversion import TFLiteModel


@dataclass(frozen=True)
class RecordedRun:
    """A finished run with the files of its timing, the test images, and the rounds so far."""

    row: Row
    model: "TFLiteModel"
    reference: "TFLiteModel"  # the float file of its baseline
    images: "Images"
    rounds: Rounds

    @property
    def run_id(self) -> str:
        """MLflow's run id."""
        return str(self.row["run_id"])


def complete_rounds(
    store: Store,
    rows: Sequence[Row],
    protocol: LatencyProtocol,
    modules: Collection[str] = (),
    seed: int = 0,
    reuse: bool = True,
) -> None:
    """Time the files of finished runs together, until all runs share `protocol.rounds` rounds.

    Runs of another machine are omitted. `modules` are those that recorded data sets may name. With `reuse`, the rounds
    that earlier runs of the same files have are reused first.
    """
    groups: dict[tuple[int, Delegate], list[tuple[Row, Rounds]]] = {}  # by interpreter threads and kernels
    for row in rows:
        if row["status"] == "FINISHED" and row["machine"] == stamp()["machine"]:
            rounds = read_artifact(store, row["run_id"], ROUNDS, read_rounds)
            if rounds is not None and measured_here(rounds):
                groups.setdefault(rounds.conditions, []).append((row, rounds))
    for (threads, delegate), timed in sorted(groups.items(), key=lambda item: item[0]):
        alike = replace(protocol, threads=threads, delegate=delegate)
        group = _reuse_rounds(store, timed, alike) if reuse else timed
        if len(_shared([rounds for _, rounds in group])) < protocol.rounds:
            runs = list(load_runs(store, [row for row, _ in group], modules))
            _add_rounds(store, runs, alike, seed)
        else:
            for row, rounds in group:
                if row.get("latency_rounds") != rounds.metrics()["latency_rounds"]:  # a kill came before the metrics
                    log_rounds(store, row["run_id"], rounds)


def _reuse_rounds(
    store: Store, group: Sequence[tuple[Row, Rounds]], protocol: LatencyProtocol
) -> list[tuple[Row, Rounds]]:
    """Add the rounds that earlier runs of this machine have of the same file and the same float file.

    A round has both, so no time of one moment is divided by that of another.
    """
    taken: set[str] = set()
    found = []
    for row, rounds in group:
        known = {each.id for each in rounds.rounds}
        new = [each for each in _reusable_rounds(store, row, rounds, protocol) if each.id not in known]
        found.append((row, add_rounds(store, row["run_id"], rounds, new) if new else rounds))
        if new:
            log_rounds(store, row["run_id"], found[-1][1])
            taken |= {each.id for each in new}
    if taken:
        what = f"{_count(len(taken))} of timing reused from earlier runs of the same files"
        say(f"{what}; resume=false measures new ones")
    return found


def _reusable_rounds(store: Store, row: Row, rounds: Rounds, protocol: LatencyProtocol) -> Iterator[Round]:
    """Yield the rounds of other runs with the files of this one."""
    for other in store.find_by_file(rounds.own):
        if other["run_id"] != row["run_id"] and other["machine"] == row["machine"]:
            found = read_artifact(store, other["run_id"], ROUNDS, read_rounds)
            if found is not None and (found.own, found.reference) == (rounds.own, rounds.reference):
                for each in found.rounds:
                    if each.serves(protocol) and is_this_machine(each.machine):
                        yield replace(each, source=each.source or str(other["run_id"]))


def _shared(timings: Sequence[Rounds]) -> set[str]:
    """Return the ids of the undisturbed rounds in which the files of all runs were timed."""
    return set.intersection(*({each.id for each in timing.undisturbed} for timing in timings)) if timings else set()


def _add_rounds(store: Store, runs: Sequence[RecordedRun], protocol: LatencyProtocol, seed: int) -> None:
    missing = protocol.rounds - len(_shared([run.rounds for run in runs]))
    if not runs or missing <= 0:
        return
    files = files_of(runs)
    span = protocol.span_seconds * missing / protocol.rounds
    together = f"{len(runs)} runs together" if len(runs) > 1 else "the run"
    say(f"timing {together} ({len(files)} files): {_count(missing)} over {span:.0f} s")
    records = {run.run_id: run.rounds for run in runs}
    wanted, protocol = protocol.rounds, protocol.of_round(len(files) + 1)
    try:
        for number in moments(missing, span):
            session = time_round(runs, protocol, seed + len(records[runs[0].run_id].rounds) + number)
            for run in runs:
                own = Round.of(session, run.rounds.own, run.rounds.reference, this_machine())
                records[run.run_id] = add_rounds(store, run.run_id, records[run.run_id], [own])
        disturbed = wanted - len(_shared(list(records.values())))
        if disturbed > 0:
            say(_disturbed(disturbed, list(records.values())))
    finally:
        for run in runs:
            if records[run.run_id] is not run.rounds:
                log_rounds(store, run.run_id, records[run.run_id])


def _disturbed(rounds: int, timings: Sequence[Rounds]) -> str:
    count = any(each.disturbance for timing in timings for each in timing.valid)
    return (
        f"Other processes used the cores of this machine during {_count(rounds)}. "
        + ("They count, so the intervals are wider. " if count else "They do not count. ")
        + "To add rounds, type the same command, if possible when the machine is less busy."
    )


def _count(rounds: int) -> str:
    return f"{rounds} round{'s' * (rounds != 1)}"


def files_of(runs: Sequence[RecordedRun]) -> dict[str, tuple["TFLiteModel", "Images"]]:
    """Return the files of these runs and their float references, each once, by digest."""
    named = [(file, run.images) for run in runs for file in (run.reference, run.model)]
    return {file.digest: (file, images) for file, images in reversed(named)}


def time_round(runs: Sequence[RecordedRun], protocol: LatencyProtocol, seed: int) -> Session:
    """Time the files of these runs together; the session has them by digest."""
    files = files_of(runs)
    pairs = {(run.reference.digest, run.model.digest) for run in runs if run.rounds.own != run.rounds.reference}
    return time_together(
        {digest: file for digest, (file, _) in files.items()},
        {digest: images for digest, (_, images) in files.items()},
        protocol,
        sorted(pairs),
        seed,
    )


def measured_here(rounds: Rounds) -> bool:
    """Whether all rounds are of this machine, so that a round that is measured now may be added to them."""
    return all(is_this_machine(each.machine) for each in rounds.rounds)


def add_rounds(store: Store, run_id: str, rounds: Rounds, further: Sequence[Round]) -> Rounds:
    """Store further rounds of a run's timing; returns all, with those that another process has stored meanwhile."""
    with recording_lock(), temporary_folder("rounds") as folder:
        every = _stored(store, run_id, rounds).adding(further)
        save_rounds(folder / ROUNDS, every)
        store.attach(run_id, folder)
    return every


def log_rounds(store: Store, run_id: str, rounds: Rounds) -> None:
    """Update what a run records of its timing, which is over all of its rounds."""
    with recording_lock():
        every = _stored(store, run_id, rounds)
        content = store.content(run_id, RECORD)
        record = None if content is None else with_timing(content, every)
        if record is not None:
            with temporary_folder("record") as folder:
                (folder / RECORD).write_text(record)
                store.attach(run_id, folder)
        store.update_timing(run_id, every)


def _stored(store: Store, run_id: str, known: Rounds) -> Rounds:
    """Return the known rounds of a run, and those that another process has stored since they were read."""
    stored = read_artifact(store, run_id, ROUNDS, read_rounds)
    return known if stored is None else known.adding(stored.rounds)


def load_runs(store: Store, rows: Sequence[Row], modules: Collection[str] = ()) -> Iterator[RecordedRun]:
    """Yield the runs that can be timed again; others are omitted with a warning. Runs without rounds are skipped."""
    tests_of = load_tests_once()
    for row in rows:
        if (found := read_or_none(partial(load_run, store, row, modules, tests_of))) is not None:
            yield found


def load_run(store: Store, row: Row, modules: Collection[str], tests_of: "TestsOf") -> RecordedRun | None:
    """Load the files and the rounds of a run; None for a run of an earlier version, which has no rounds.

    Raises:
        UserError: a file is missing or damaged, or the test examples have changed since the run.
    """
    from experiments.tflite.conversion import TFLiteModel

    run_id = row["run_id"]
    content = store.content(run_id, ROUNDS)
    if content is None:
        return None
    rounds = read_rounds(content, run_id)
    model, images = load_file(store, row, modules, tests_of)
    reference = model
    if rounds.own != rounds.reference:
        found = store.content(run_id, FLOAT)
        if not found:
            raise UserError(f"Run {run_id}: the artifact {FLOAT} is missing or empty.")
        reference = TFLiteModel(found)
    for file, digest in ((model, rounds.own), (reference, rounds.reference)):
        if file.digest != digest:
            raise UserError(f"Run {run_id}: the artifacts {MODEL} and {FLOAT} are not the files of its {ROUNDS}.")
    return RecordedRun(row, model, reference, images, rounds)


def load_file(store: Store, row: Row, modules: Collection[str], tests_of: "TestsOf") -> "tuple[TFLiteModel, Images]":
    """Return the file of a run, and test images of its data set in the shape of its input.

    Raises:
        UserError: a file is missing or damaged, or the test examples have changed since the run.
    """
    from experiments.runs.configuration import judged_output, read_dataset
    from experiments.tflite.conversion import TFLiteModel

    run_id = row["run_id"]
    content, configuration = (store.content(run_id, name) for name in (MODEL, CONFIGURATION))
    if not content or not configuration:
        raise UserError(f"Run {run_id}: the artifact {CONFIGURATION if content else MODEL} is missing or empty.")
    try:
        text = configuration.decode(errors="replace")
        source = read_dataset(text, modules)
        model = TFLiteModel(content)
        tests = tests_of(source, model, kind_of_task(row.get("task")), judged_output(text))
        check_unchanged(source, tests, row["test_digest"])
        images = reshape(model, tests.images)
        check_shape(row["strategy"], model, images)
    except UserError as error:
        raise UserError(f"Run {run_id}: {error}") from error
    return model, images


@dataclass(frozen=True)
class Tests:
    """Test images of a data set, in their stored shape.

    `digests` are all digests that a run may have recorded for these test examples: a digest depends on the image shape
    and label numbering of the model.
    """

    images: "Images"
    digests: frozenset[str]


class TestsOf(Protocol):
    """Returns test images for a file; `kind` is that of the targets, None: what they show.

    `output` is the judged one of several.
    """

    def __call__(
        self, source: "Source", model: "TFLiteModel", kind: "Kind | None" = None, output: str | None = None
    ) -> Tests:
        """See load_tests_once."""


def load_tests_once() -> TestsOf:
    """Return a function that loads test images for a file; a data set is read once for all files of the same shape."""
    from experiments.dataset.rows import at_once
    from experiments.measure.latency import IMAGES

    loaded: dict[str, Tests] = {}  # by repr, since users' options may have lists, which are not hashable

    def few(tests: "Rows") -> "Images":
        return tests[: at_once(tests, IMAGES)].copy()  # a view would keep all of them

    def tests_of(
        source: "Source", model: "TFLiteModel", kind: "Kind | None" = None, output: str | None = None
    ) -> Tests:
        entries = entries_in(model)
        name = f"{source!r} {entries} {kind} {output}"
        if name not in loaded:
            examples = source.examples(kind, output)
            if len(entries) > 1 or len(outputs_in(model)) > 1:
                data = examples.for_model(entries, outputs_in(model))
                loaded[name] = Tests(few(data.test.x), frozenset([data.test_fingerprint[:DIGITS]]))
            else:
                shape = tuple(length or 0 for length in next(iter(entries.values())).shape)
                loaded[name] = Tests(few(examples.test.x), frozenset(test_digests(examples, shape)))
        return loaded[name]

    return tests_of


def entries_in(model: "TFLiteModel") -> "Entries":
    """Return the inputs of a file, as the model had them before its inputs were quantized."""
    from experiments.dataset.shapes import Entry
    from experiments.tflite.graph import inputs_of

    return {
        name: Entry(tuple(each["shape"][1:]), np.dtype(each["dtype"]).name if _holds_integers(each) else "float32")
        for name, each in inputs_of(model.content).items()
    }


def _holds_integers(tensor: Mapping[str, Any]) -> bool:
    """Whether a tensor holds integers that are not quantized floats."""
    return np.dtype(tensor["dtype"]).kind in "iu" and not tensor["quantization"][0]


def outputs_in(model: "TFLiteModel") -> dict[str, int]:
    """Return the number of values for an example in each output of a file, by name."""
    from experiments.tflite.graph import outputs_of

    return {name: int(each["shape"][-1]) for name, each in outputs_of(model.content).items()}


def test_digests(examples: "Examples", input_shape: tuple[int, ...]) -> Iterator[str]:
    """Yield the digests of the test examples in all forms: for new models, and for model files with this input shape.

    The label numbering for a model file depends on its number of outputs.
    """
    integers = [label for label in examples.labels if isinstance(label, int)]
    outputs = {examples.classes, *(number for label in integers[-1:] for number in (label, label + 1))}
    shapes = (input_shape, examples.input_shape)
    for_files = [partial(examples.for_model, shape, count) for shape, count in product(shapes, outputs)]
    forms: list[Callable[[], Dataset]] = [examples.for_new_model, *for_files]
    for data in forms:
        with suppress(UserError):  # not a valid form of these examples
            yield data().test_fingerprint[:DIGITS]


def check_unchanged(source: "Source", tests: Tests, recorded: str | None) -> None:
    """Check that a data set still has the test examples of a run; runs of earlier versions recorded no digest.

    Raises:
        UserError: the test examples have changed.
    """
    if recorded and recorded not in tests.digests:
        file = getattr(source, "path", None)
        raise UserError(
            f"the test examples of {f'dataset.path={file}' if file else 'its data set'} have changed since the run "
            f"(digest {recorded[:SHOWN]} then). Restore them, or repeat the run."
        )


def reshape(model: "TFLiteModel", images: "Images") -> "Images":
    """Reshape stored images for a file; if no shape fits, use the shape for the bundled architectures."""
    from experiments.dataset.named import is_named
    from experiments.dataset.shapes import fitting, image_shape
    from experiments.measure.accuracy import input_of

    if is_named(images):
        return images
    stored = images.shape[1:]
    shape = fitting(tuple(int(length) for length in input_of(model)["shape"][1:]), stored)
    return images.reshape(-1, *(image_shape(stored) if shape is None else shape))


def check_shape(name: str, model: "TFLiteModel", images: "Images") -> None:
    """Check that images have the shape of a file's input.

    Raises:
        UserError: they do not.
    """
    from experiments.dataset.named import is_named
    from experiments.measure.accuracy import input_of

    if is_named(images):
        return  # checked when they were read
    expected = tuple(input_of(model)["shape"][1:])
    if images.shape[1:] != expected:
        raise UserError(
            f"{name}: requires examples of shape {expected}, not {images.shape[1:]}. Use another --dataset, or omit it "
            "for random images."
        )
