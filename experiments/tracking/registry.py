"""MLflow's model registry: register the model of a run, with the reasons in its description."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from experiments.record.identity import DIGESTS
from experiments.record.run_record import Setting
from experiments.system.errors import UserError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

# Metrics of the run that a version has as searchable tags, in addition to the setting.
EVIDENCE = (
    "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high", "accuracy_change", "tflite_score",
    "tflite_score_low", "tflite_score_high", "score_change", "tflite_bytes", "size_ratio", "latency_p50_us", "speedup",
    "speedup_low", "speedup_high",
)  # fmt: skip
COPIED_TAGS = (
    "task",
    "metric",
    "speed",
    "arithmetic",
    "git_commit",
    *(field.name for field in fields(Setting)),
    *DIGESTS,
)
DESCRIPTION = "mlflow.note.content"  # tag with the description that MLflow shows above a run
FORBIDDEN = "/:'\""  # characters that MLflow rejects in names, or in a search for them
VERSIONS = "mlflow.modelVersions"  # tag of a model with its registered versions


@dataclass(frozen=True)
class Registered:
    """A version of a model in the registry."""

    name: str
    version: int
    new: bool  # created by this command

    @property
    def uri(self) -> str:
        """The address by which MLflow loads and serves it."""
        return f"models:/{self.name}/{self.version}"


def register(client: "MlflowClient", run: "Run", name: str, reasons: str) -> Registered:
    """Register the model of a run under a name, which is created if missing.

    A run has one version per name: if it exists, only its description is updated to `reasons`.

    Raises:
        UserError: the name is invalid, the run has no model, or the store has no registry.
    """
    from mlflow.exceptions import MlflowException

    if not name.strip() or any(character in name for character in FORBIDDEN):
        raise UserError(f"--register {name}: requires a name without the characters {' '.join(FORBIDDEN)}")
    run_id = run.info.run_id
    if run.outputs is None or not run.outputs.model_outputs:
        raise UserError(
            f"--register {name}: run {run_id} of an earlier version has no MLflow model. Run its command again with "
            "this version."
        )
    try:
        model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
        existing = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        version = existing[0] if existing else _new_version(client, name, model)
        description = f"{reasons}\n\n{run.data.tags.get(DESCRIPTION, '')}"
        client.update_model_version(name, version.version, description=description)
        for key, value in _tags(run).items():
            client.set_model_version_tag(name, version.version, key, value)
    except MlflowException as error:
        raise UserError(
            f"--register {name}: rejected by MLflow ({first_line(error)}). It requires a run whose model was not "
            "deleted, and a store with a model registry, such as --uri sqlite:///mlflow.db."
        ) from error
    return Registered(name, int(version.version), new=not existing)


def _new_version(client: "MlflowClient", name: str, model: "LoggedModel") -> "ModelVersion":
    with _ignoring_existing():
        client.create_registered_model(name)
    # The source is the path of the files: MLflow's client would search models:/ID in its default store.
    version = client.create_model_version(
        name, model.artifact_location, model.source_run_id, model_id=model.model_id, await_creation_for=0
    )
    # The tag lets the page of the model list its versions; MLflow's server sets it, but its client does not.
    own = {"name": name, "version": version.version}
    versions = [each for each in json.loads(model.tags.get(VERSIONS, "[]")) if each != own]
    client.set_logged_model_tags(model.model_id, {VERSIONS: json.dumps([*versions, own])})
    return version


@contextmanager
def _ignoring_existing() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(run: "Run") -> dict[str, str]:
    texts = {name: run.data.tags[name] for name in COPIED_TAGS if name in run.data.tags}
    return texts | {name: f"{run.data.metrics[name]:.6g}" for name in EVIDENCE if name in run.data.metrics}
