"""The TFLite file of a run as an MLflow model, which needs neither TensorFlow nor this package."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Images
from experiments.measure.accuracy import dequantize, quantize, tflite_logits
from experiments.record.identity import Identity
from experiments.record.run_record import Data, Setting
from experiments.system.errors import UserError
from experiments.tflite.conversion import TFLiteModel
from experiments.tracking import litert_model
from experiments.tracking.litert_model import LiteRTModel
from experiments.tracking.model import data_inputs, write_model
from experiments.tracking.registry import register
from tests.conftest import bare
from tests.tiny import dense_file, int8_interface

IMAGES: Images = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
ANSWER = (
    "import sys, mlflow, numpy\n"
    "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
    "numpy.save('answers.npy', model.predict(numpy.load('images.npy')))\n"
    "assert model.input_example.tobytes() == numpy.load('images.npy')[:1].tobytes()\n"
)


def record_of(file: TFLiteModel) -> Any:
    """As much of a record as a model's folder needs."""
    setting = Setting("qat", "mlp", "npz", epochs=1, finetune_epochs=1, seed=0)
    data = Data(80, 20, len(IMAGES), 4, IMAGES[:1], "training" * 8, "testing!" * 8, "all" * 21)
    identity = Identity("mlp", "flowers", "model", "training", "test")
    return SimpleNamespace(setting=setting, identity=identity, tflite=file, data=data)


def written(folder: Path, file: TFLiteModel) -> Path:
    logged: Any = SimpleNamespace(model_id="m-1", source_run_id="a run", artifact_location="somewhere")
    folder.mkdir()
    write_model(folder, record_of(file), logged)
    return folder


@pytest.mark.parametrize("file", [dense_file(), int8_interface(dense_file())], ids=["float", "int8"])
def test_loaded_model_is_bit_identical_to_the_interpreter(tmp_path: Path, file: TFLiteModel) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    model = written(tmp_path / "model", file)
    command = [sys.executable, "-c", ANSWER, str(model)]
    done = subprocess.run(command, cwd=tmp_path, env=bare(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "answers.npy").tobytes() == tflite_logits(file, IMAGES, threads=1).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int16])
def test_copied_loader_quantizes_like_the_evaluation(dtype: Any) -> None:
    tensor = {"dtype": dtype, "quantization": (0.037, -5)}
    values = 10 * IMAGES
    integers = quantize(values, tensor)
    assert np.array_equal(litert_model._quantized(values, tensor), integers)
    assert np.array_equal(litert_model._dequantized(integers, tensor), dequantize(integers, tensor))


def test_int8_interface_takes_float_images() -> None:
    steps = tflite_logits(int8_interface(dense_file()), IMAGES, threads=1) * 32
    assert np.array_equal(steps, np.round(steps))


def test_images_of_another_shape_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(dense_file().content)
    with pytest.raises(ValueError, match=r"shape \(n, 16\), not \(5, 8\)"):
        LiteRTModel(str(tmp_path / "model.tflite")).predict(IMAGES[:, :8])


def test_model_folder_has_requirements_and_an_input_example(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", dense_file())
    needed = [line.split("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
    assert needed == ["mlflow", "ai-edge-litert", "numpy"]
    sent = json.loads((folder / "serving_input_example.json").read_text())
    assert np.array_equal(np.array(sent["inputs"], np.float32), IMAGES[:1])


def test_data_sets_have_their_context() -> None:
    training, testing = data_inputs(record_of(dense_file()))
    assert [tag.value for use in (training, testing) for tag in use.tags] == ["training", "testing"]
    assert (training.dataset.digest, testing.dataset.digest) == ("training", "testing!")
    assert json.loads(testing.dataset.profile or "")["images"] == {"test": 5}


def run_with(*models: str) -> Any:
    outputs = SimpleNamespace(model_outputs=[SimpleNamespace(model_id=model) for model in models])
    return SimpleNamespace(info=SimpleNamespace(run_id="a run"), outputs=outputs)


class WithoutRegistry:
    """A client of a store that has no model registry."""

    def get_logged_model(self, _: str) -> None:
        from mlflow.exceptions import MlflowException

        raise MlflowException("no such endpoint")


@pytest.mark.parametrize(
    ("run", "name", "said"),
    [
        (run_with("m-1"), "a/b", "--register a/b: requires a name without the characters"),
        (run_with(), "good", "run a run of an earlier version has no MLflow model"),
        (
            run_with("m-1"),
            "good",
            "rejected by MLflow .no such endpoint.. It requires a run whose model was not deleted",
        ),
    ],
)
def test_failed_registration_causes_one_message(run: Any, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        register(WithoutRegistry(), run, name, "why")  # type: ignore[arg-type]
