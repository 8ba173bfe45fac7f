"""The file to ship, written beside a JSON file that describes it: `compare --save FILE.tflite`."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.comparison.choices import Choice, drawbacks, headline, join_names
from experiments.comparison.columns import WORDS, is_content, may_be_shipped
from experiments.comparison.compared import Comparison
from experiments.comparison.names import names
from experiments.comparison.tasks import tasks
from experiments.record.artifacts import CONFIGURATION, MODEL, RECORD
from experiments.record.identity import DIGESTS
from experiments.record.run_record import is_setting
from experiments.system.disk import explain_os_error
from experiments.system.errors import UserError, first_line, redact
from experiments.system.program import program
from experiments.system.progress import say
from experiments.system.result import to_json_value
from experiments.tflite.flatbuffer import DAMAGE
from experiments.tflite.graph import tensors
from experiments.tflite.metadata import Description, with_metadata
from experiments.tracking import Store, Tracking
from experiments.tracking.schema import SCHEMA
from experiments.tracking.schema import names as columns_of

SCHEMA_VERSION = 2  # of the JSON file; higher if a key is renamed, removed, or means something else
ENDING = ".tflite"
UNKNOWN = "???"  # label of an output for which the data have no class; readers drop empty lines
MOST_LABELS = 2**20
LONGEST = 200  # bytes of the name of a file, without its ending; file systems allow 255
SETTINGS = ("strategy", "model_name", "dataset_name", "epochs", "finetune_epochs", "seed")
STANDARDIZED = "x = (stored - mean) / deviation, both of each column over the training rows (dataset.standardize=true)"
QUANTIZE = "q = round(x / scale) + zero_point, limited to the range of the dtype"
# What decides the input of the model: x = stored / divisor, and if symmetric 2 x - 1.
SCALED = {False: "x = stored / {divisor:g}", True: "x = 2 * stored / {divisor:g} - 1"}


@dataclass(frozen=True)
class Shipped:
    """A run to write: its id, where to, and why it was chosen, in lines."""

    run_id: str
    path: Path
    reasons: tuple[str, ...] = ()

    @property
    def beside(self) -> Path:
        """The JSON file beside the model."""
        return self.path.with_suffix(".json")


def check_target(option: str, path: Path, overwrite: bool) -> None:
    """Check that a model can be written to a path, before anything else is done.

    Raises:
        UserError: the name does not end in .tflite, its folder does not exist, or there is such a file already.
    """
    if path.suffix != ENDING:
        raise UserError(f"{option} {path}: requires a name that ends in {ENDING}, such as {option} model{ENDING}.")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: the folder {path.parent} does not exist. Create it: mkdir -p {path.parent}")
    _check_new(option, Shipped("", path), overwrite)


def _check_new(option: str, shipped: Shipped, overwrite: bool) -> None:
    for path in (shipped.path, shipped.beside):
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:  # such as a name that is too long
            raise UserError(f"{option} {path}: cannot be written ({error.strerror}). Give another name.") from error
        if is_folder:
            raise UserError(f"{option}: {path} is a folder. Give another name.")
        if exists and not overwrite:
            replacing = "Add --overwrite" if option.startswith("--") else "Give overwrite=True"
            raise UserError(f"{option}: {path} exists already. {replacing} to replace it, or give another name.")


def command_to_save(address: Tracking) -> str:
    """Return the command that writes the recommended file of the latest sweep in a store."""
    options = (("--uri", address.shown, Tracking.uri), ("--experiment", address.experiment, Tracking.experiment))
    others = [each for name, value, default in options if value != default for each in (name, value)]
    return shlex.join([*program("compare").split(), "--save", f"model{ENDING}", *others])


def list_files(comparison: Comparison, folder: Path, overwrite: bool) -> list[Shipped]:
    """Return all files that may be shipped, each named after its run.

    Raises:
        UserError: one of them exists already.
    """
    runs = comparison.runs[may_be_shipped(comparison.runs) & comparison.runs["tflite_bytes"].notna()]
    called = [_as_file_name(name) for name in names(runs)]
    found = [
        Shipped(
            run_id, folder / f"{name if called.count(name) == 1 else f'{name}_{_as_file_name(run_id[:8])}'}{ENDING}"
        )
        for run_id, name in zip(runs["run_id"], called, strict=True)
    ]
    for shipped in found:
        _check_new("--save-all", shipped, overwrite)
    return found


def _as_file_name(text: str) -> str:
    """Return a text as the name of a file; a run is named by its settings, and a list of layers may be long."""
    name = re.sub(r"[^\w.=+-]+", "_", text).strip("_")
    return name.encode()[:LONGEST].decode(errors="ignore")


def recommended_run(comparison: Comparison, asked: str, remedy: str) -> Choice | None:
    """Return the run that the headline names; None where no run can be shipped. `asked` and `remedy` are for messages.

    Raises:
        UserError: there are several tasks.
    """
    found = tasks(comparison)
    if len(found) > 1:
        titles = join_names([each.title for each in found])
        raise UserError(f"{asked}: requires runs of one model and data set, not of several ({titles}). {remedy}")
    return headline(found[0]) if found else None


def save(
    store: Store, comparison: Comparison, shipped: Shipped, commands: Sequence[str], metadata: bool = True
) -> None:
    """Write the file of a run, with TFLite metadata unless `metadata` is false, and the JSON file beside it.

    Raises:
        UserError: the file is missing in the store, is not the one that was measured, or cannot be written.
    """
    content, record = _content(store, shipped.run_id, MODEL), _record(store, shipped.run_id)
    row = comparison.runs.loc[comparison.runs["run_id"] == shipped.run_id].iloc[0]
    digest = hashlib.sha256(content).hexdigest()
    if digest != record["tflite_sha256"]:
        raise UserError(
            f"Run {shipped.run_id}: its {MODEL} is not the file that was measured (SHA-256 {digest}, recorded "
            f"{record['tflite_sha256']}). Type the command of its sweep again, which repeats it."
        )
    configuration = _content(store, shipped.run_id, CONFIGURATION).decode("utf-8", "replace")
    described = description(row, record, content, shipped, [*map(redact, commands)], redact(configuration))
    if metadata:
        try:
            content = with_metadata(content, _metadata(described, record))
        except DAMAGE as error:
            raise UserError(
                f"Run {shipped.run_id}: its {MODEL} is not a valid TFLite file ({first_line(error)})."
            ) from error
        described |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "metadata": True}
    try:
        text = json.dumps(to_json_value(described), indent=2, ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise UserError(f"Run {shipped.run_id}: its {RECORD} cannot be read (it is nested too deeply).") from error
    _write({shipped.path: content, shipped.beside: f"{text}\n".encode(errors="replace")})
    say(f"wrote {shipped.path} ({len(content):,} bytes) and {shipped.beside}")


def _write(files: Mapping[Path, bytes]) -> None:
    """Write all files or none: what they replace is kept until all are written.

    Raises:
        UserError: one cannot be written.
    """
    parts = {path: path.with_name(f".{path.name}.part") for path in files}
    first = next(iter(files))
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise UserError(f"{first}: cannot be written ({explain_os_error(error, first.parent)}).") from error
    finally:
        for part in parts.values():
            with suppress(OSError):  # it was not written
                part.unlink()


def _metadata(described: Mapping[str, Any], record: Mapping[str, Any]) -> Description:
    """Return the metadata of the file itself: a part of the description beside it."""
    settings = described["settings"]
    return Description(
        name=f"{settings['model_name']} on {settings['dataset_name']}, {settings['strategy']}",
        text=f"Run {described['run_id']}; SHA-256 of the measured file, without these metadata: "
        f"{described['measured_sha256']}",
        normalization=_normalization(record, described["repeat"]["configuration"]),
        # of several outputs, the metadata would give the labels to the first
        labels=() if record.get("output") else tuple(" ".join(str(label).split()) for label in described["labels"]),
    )


def _normalization(record: Mapping[str, Any], configuration: str) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return mean and deviation of the stored values, one for all or one for each column; None if they are unknown."""
    if _standardizes(configuration):
        columns = _source(record).get("table", {})
        return (columns["mean"], columns["deviation"]) if "mean" in columns else None
    if not (scaling := record.get("scaling")) or record.get("scalings"):
        return None
    half = float(scaling["divisor"]) / 2
    return ([half], [half]) if scaling["symmetric"] else ([0.0], [2 * half])


def _source(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the source of the data prepared its files, such as an audio front end; unknown for earlier runs."""
    found = record.get("preprocessing")
    return dict(found) if isinstance(found, Mapping) else {}


def _content(store: Store, run_id: str, artifact: str) -> bytes:
    found = store.content(run_id, artifact)
    if found is None:
        raise UserError(
            f"Run {run_id}: its {artifact} is missing. Type the command of its sweep again, which repeats it."
        )
    return found


def _record(store: Store, run_id: str) -> Mapping[str, Any]:
    try:
        record = json.loads(_content(store, run_id, RECORD))
        labels = {
            int(number): str(label).encode(errors="replace").decode()
            for number, label in record.get("labels", {}).items()
        }
        _check_used(labels, [record.get("scaling"), *record.get("scalings", {}).values()])
        return {**record, "tflite_sha256": str(record["tflite_sha256"]), "labels": labels}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"Run {run_id}: its {RECORD} cannot be read ({first_line(error)}).") from error


def _check_used(labels: Mapping[int, str], scalings: Sequence[Any]) -> None:
    """Check what the description uses of a record, which may come from anyone; raises any of several errors."""
    if labels and not 0 <= min(labels) <= max(labels) < MOST_LABELS:
        raise ValueError("the number of a label is invalid")
    if not all(isfinite(each["divisor"]) and each["symmetric"] in (True, False) for each in scalings if each):
        raise ValueError("a scaling is invalid")


def description(
    row: pd.Series,
    record: Mapping[str, Any],
    content: bytes,
    shipped: Shipped,
    commands: Sequence[str],
    configuration: str,
) -> dict[str, Any]:
    """Return the description of a file: interface, measurements, why it was chosen and how to repeat it.

    Raises:
        UserError: the content is not a TFLite file.
    """
    inputs, outputs = tensors(content)
    labels = record["labels"]
    quantized = {"quantization": QUANTIZE} if any(each["scale"] for each in inputs) else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "file": shipped.path.name,
        "bytes": len(content),
        "sha256": record["tflite_sha256"],
        "measured_sha256": record["tflite_sha256"],
        "metadata": False,
        "run_id": shipped.run_id,
        "settings": {
            name: _plain(row[name])
            for name in (*SETTINGS, *(each for each in row.index if is_setting(each) and not is_content(each)))
        },
        "inputs": inputs,
        "outputs": outputs,
        "labels": [labels.get(number, UNKNOWN) for number in range(1 + max(labels, default=-1))],
        "preprocessing": {**_source(record), **_preprocessing(record, configuration), **quantized},
        "metrics": _metrics(row),
        "findings": {name: _plain(row[name]) for name in columns_of("verdict") if name in row.index},
        "reasons": list(shipped.reasons),
        "drawbacks": list(drawbacks(row)),
        "digests": {name: _plain(row[name]) for name in (*DIGESTS, "settings")},
        "repeat": {"commands": list(commands), "configuration": configuration},
        "stamp": record.get("stamp", {}),
    }


def _standardizes(configuration: str) -> bool:
    """Whether the data set of a run standardized its columns."""
    return re.search(r"^ +standardize: true$", configuration, re.MULTILINE) is not None


def _preprocessing(record: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return how stored values become the model's input; for runs of earlier versions, only the setting."""
    setting = re.search(r"^ +scale: (\w+)$", configuration, re.MULTILINE)
    found: dict[str, Any] = {"dataset.scale": setting[1] if setting else None}
    if several := record.get("scalings"):
        return found | {
            "inputs": {
                name: {**each, "formula": SCALED[bool(each["symmetric"])].format(divisor=each["divisor"])}
                for name, each in several.items()
            }
        }
    if scaling := record.get("scaling"):
        scaled = SCALED[bool(scaling["symmetric"])].format(divisor=scaling["divisor"])
        formula = STANDARDIZED if _standardizes(configuration) else scaled
        found |= {"divisor": scaling["divisor"], "symmetric": scaling["symmetric"], "formula": formula}
    return found


def _metrics(row: pd.Series) -> dict[str, Any]:
    """Return each number that was measured, with its unit and, where it has one, its 95 % interval."""
    found: dict[str, Any] = {}
    for name in columns_of("metric"):
        column = SCHEMA[name]
        if column.of or name in WORDS or pd.isna(row[name]):
            continue
        found[name] = {"value": _plain(row[name]), **({"unit": column.unit} if column.unit else {})}
        for end in ("low", "high", "p"):
            if f"{name}_{end}" in row.index and pd.notna(row[f"{name}_{end}"]):
                found[name][end] = _plain(row[f"{name}_{end}"])
    return found


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it: null where there is none."""
    if pd.isna(value):
        return None
    if isinstance(value, str):
        return value
    number = float(value)
    if not isfinite(number):
        return None
    return int(number) if number.is_integer() else number
