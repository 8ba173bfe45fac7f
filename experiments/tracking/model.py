"""A run's TFLite file as an MLflow model, and its data as MLflow data sets."""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset import Images
from experiments.dataset.named import apart, fields, is_named
from experiments.dataset.values import FLOAT
from experiments.record.identity import Identity, with_digest
from experiments.record.run_record import RunRecord, Setting

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, LoggedModel
    from mlflow.types import Schema

FLAVOR = Path(__file__).with_name("litert_model.py")
NEEDED = ("mlflow", "ai-edge-litert", "numpy")  # packages to load the model
DIGEST = 8  # characters, as in MLflow's own digests of data sets; MLflow allows 36


def run_name(setting: Setting, identity: Identity) -> str:
    """Return the display name of a run; model and data files have their digest, if known."""
    extra = f"+{setting.finetune_epochs}" if setting.finetune_epochs else ""
    model, dataset = identity.model_name, identity.dataset_name
    if model != setting.model:
        model = with_digest(model, identity.model)
    if dataset != setting.dataset:
        dataset = with_digest(dataset, identity.test)
    return f"{setting.strategy} {model} {dataset} epochs={setting.epochs}{extra} seed={setting.seed}"


def model_name(record: RunRecord) -> str:
    """Return the name of a run's model in MLflow, such as qat_mlp_mnist_epochs_1_1_seed_0; it is part of addresses."""
    return re.sub(r"\W+", "_", run_name(record.setting, record.identity), flags=re.ASCII).strip("_")


def model_parameters(record: RunRecord) -> dict[str, object]:
    """Return the setting of a run with display names of model and data, and their digests."""
    names = {"model": record.identity.model_name, "dataset": record.identity.dataset_name}
    return {**asdict(record.setting), **names, **record.identity.tags()}


def write_model(folder: Path, record: RunRecord, logged: "LoggedModel") -> None:
    """Write the folder of an MLflow model; MLflow's save_model would load the model to find its imports."""
    from mlflow.models import Model, ModelSignature

    images = record.data.example
    example = {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json"}
    model = Model(
        model_id=logged.model_id,
        run_id=logged.source_run_id,
        artifact_path=logged.artifact_location,
        signature=ModelSignature(_images(record), _outputs(record)),
        saved_input_example_info={
            **example,
            "type": "ndarray",
            **({"format": "tf-serving"} if is_named(images) else {}),
        },
        metadata={**model_parameters(record), "tflite_sha256": record.tflite.digest},
        model_size_bytes=record.tflite.bytes,
    )
    model.add_flavor(
        "python_function",
        loader_module=FLAVOR.stem,
        code="code",
        data="model.tflite",
        env={"virtualenv": "python_env.yaml"},
        python_version=platform.python_version(),
    )
    model.save(folder / "MLmodel")
    (folder / "model.tflite").write_bytes(record.tflite.content)
    (folder / "code").mkdir()
    copyfile(FLAVOR, folder / "code" / FLAVOR.name)
    (folder / "requirements.txt").write_text("".join(f"{package}=={version(package)}\n" for package in NEEDED))
    # JSON is YAML.
    env = {"python": platform.python_version(), "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(env))
    parts = {name: _short_decimals(values) for name, values in apart(images).items()}
    written = json.dumps(parts if is_named(images) else parts[""])
    (folder / example["artifact_path"]).write_text(written)
    (folder / example["serving_input_path"]).write_text(f'{{"inputs": {written}}}')


def _outputs(record: RunRecord) -> "Schema":
    if record.data.exits:
        return _named_schema({name: (FLOAT, shape) for name, shape in record.data.exits.items()})
    return _batch_schema(np.float32, *(record.data.output_shape or (record.data.width,)))


def _images(record: RunRecord) -> "Schema":
    example = record.data.example
    if is_named(example):
        return _named_schema(dict(zip(apart(example), fields(example), strict=True)))
    return _batch_schema(np.float32, *example.shape[1:])


def _named_schema(ends: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> "Schema":
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(dtype, (-1, *shape), name) for name, (dtype, shape) in ends.items()])


def _batch_schema(dtype: type, *shape: int) -> "Schema":
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(np.dtype(dtype), (-1, *shape))])


def _short_decimals(images: Images) -> list[object]:
    """Return float32 values as nested lists with the shortest exact decimals."""
    values = [float(str(value)) if images.dtype.kind == "f" else int(value) for value in images.ravel()]
    nested: list[object] = np.array(values).reshape(images.shape).tolist()
    return nested


def _shape(example: Images) -> object:
    """Return the shape of an example; for several inputs, by name."""
    shapes = {name: list(values.shape[1:]) for name, values in apart(example).items()}
    return shapes if is_named(example) else shapes[""]


def data_inputs(record: RunRecord) -> "list[DatasetInput]":
    """Return the run's training and test data as MLflow data sets."""
    data = record.data
    return [
        _input(
            record, "training", data.training_fingerprint, {"training": data.training, "validation": data.validation}
        ),
        _input(record, "testing", data.test_fingerprint, {"test": data.test}),
    ]


def metric_dataset(record: RunRecord) -> dict[str, str]:
    """Return the fields of MLflow's metrics that name the data set they were measured on."""
    return {"dataset_name": record.identity.dataset_name, "dataset_digest": record.data.test_fingerprint[:DIGEST]}


def _input(record: RunRecord, context: str, fingerprint: str, images: dict[str, int]) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = record.data
    targets = _batch_schema(np.dtype(data.target_dtype).type, *data.target_shape)
    schema = {
        "features": _images(record).to_json(),
        "targets": targets.to_json(),
    }
    source = {"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": f"dataset={record.setting.dataset}"}}
    profile = {"images": images, "shape": _shape(data.example), "classes": data.classes, "sha256": fingerprint}
    dataset = Dataset(
        name=record.identity.dataset_name,
        digest=fingerprint[:DIGEST],
        source_type="code",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_tensorspec": schema}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
