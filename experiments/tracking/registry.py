"""MLflow's model registry: the model of a run as a version of a registered one, with the reasons for it."""

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

# What a version says of its run beside its setting, as tags that can be searched for.
EVIDENCE = (
    "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high", "accuracy_change", "tflite_bytes", "size_ratio",
    "latency_p50_us", "speedup", "speedup_low", "speedup_high",
)  # fmt: skip
IN_WORDS = ("speed", "arithmetic", "git_commit", *(field.name for field in fields(Setting)), *DIGESTS)
DESCRIPTION = "mlflow.note.content"  # tag: what MLflow shows above a run
FORBIDDEN = "/:'\""  # characters that MLflow takes in no name, or not in a search for it
VERSIONS = "mlflow.modelVersions"  # tag of a model: the versions of registered models that it is


@dataclass(frozen=True)
class Registered:
    """A version of a model in the registry."""

    name: str
    version: int
    new: bool  # made now, and not found there

    @property
    def uri(self) -> str:
        """What MLflow loads and serves it by."""
        return f"models:/{self.name}/{self.version}"


def register(client: "MlflowClient", run: "Run", name: str, why: str) -> Registered:
    """Make the model of a run a version of a registered one, which is made where it is missing.

    A run has one version under a name: where it is there already, only its description becomes `why`.

    Raises:
        UserError: the name cannot be used, the run has no model, or the store has no registry.
    """
    from mlflow.exceptions import MlflowException

    if not name.strip() or any(character in name for character in FORBIDDEN):
        raise UserError(f"--register {name}: a name has one or more characters, and none of {' '.join(FORBIDDEN)}")
    run_id = run.info.run_id
    if run.outputs is None or not run.outputs.model_outputs:
        raise UserError(
            f"--register {name}: run {run_id} has no MLflow model, as an earlier version recorded it. Run its command "
            "again with this one."
        )
    try:
        model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
        known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        version = known[0] if known else _new_version(client, name, model)
        description = f"{why}\n\n{run.data.tags.get(DESCRIPTION, '')}"
        client.update_model_version(name, version.version, description=description)
        for key, value in _tags(run).items():
            client.set_model_version_tag(name, version.version, key, value)
    except MlflowException as error:
        raise UserError(
            f"--register {name}: refused by MLflow ({first_line(error)}). It takes a run whose model was not deleted, "
            "and a store with a model registry, such as --uri sqlite:///mlflow.db."
        ) from error
    return Registered(name, int(version.version), new=not known)


def _new_version(client: "MlflowClient", name: str, model: "LoggedModel") -> "ModelVersion":
    with _already_there_is_well():
        client.create_registered_model(name)
    # Its source is where the files are: MLflow's client would look for models:/ID in the store of its environment.
    version = client.create_model_version(
        name, model.artifact_location, model.source_run_id, model_id=model.model_id, await_creation_for=0
    )
    # MLflow's server does so by itself, its client does not: then the page of the model names its versions.
    own = {"name": name, "version": version.version}
    versions = [each for each in json.loads(model.tags.get(VERSIONS, "[]")) if each != own]
    client.set_logged_model_tags(model.model_id, {VERSIONS: json.dumps([*versions, own])})
    return version


@contextmanager
def _already_there_is_well() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(run: "Run") -> dict[str, str]:
    words = {name: run.data.tags[name] for name in IN_WORDS if name in run.data.tags}
    return words | {name: f"{run.data.metrics[name]:.6g}" for name in EVIDENCE if name in run.data.metrics}
