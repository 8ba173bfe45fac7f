"""The tasks of MLPerf Tiny: the reference's layers and sizes, quantized after and in training."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.io import wavfile

from benchmarks.sizes import DIFFERS_AT_MOST, REFERENCES, Reference, essential
from experiments.compare import load
from experiments.dataset import Images
from experiments.model.configuration import layer_names
from experiments.runs.trial import constants_varied
from experiments.strategy import Strategy
from experiments.strategy.post_training import PTQInt8
from experiments.strategy.qat import QAT
from experiments.system.files import PACKAGE
from experiments.system.options import CONF
from experiments.tflite.conversion import convert
from experiments.tflite.graph import read_ops
from tests.conftest import run

# Of the reference's trained models: pretrainedResnet.h5, vww_96.h5; of its keyword model by its layers.
PARAMETERS = {"autoencoder": 269_992, "resnet8": 78_666, "ds_cnn": 24_908, "mobilenet_v1": 221_794}
SUITES = {"ad": "autoencoder", "ic": "resnet8", "kws": "ds_cnn", "vww": "mobilenet_v1"}


def images(count: int, shape: tuple[int, ...]) -> Images:
    return np.random.default_rng(0).random((min(count, 10), *shape)).astype(np.float32)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        # ds_cnn has the kinds of layers of mobilenet_v1.
        pytest.param(name, strategy, id=f"{name}-{type(strategy).__name__}",
                     marks=pytest.mark.nightly if (name, type(strategy)) == ("mobilenet_v1", QAT) else ())
        for name in REFERENCES
        for strategy in (PTQInt8(interface="int8"), QAT(interface="int8"))
    ],
)  # fmt: skip
def test_a_reference_model_has_the_reference_s_parameters_and_bytes(name: str, strategy: Strategy) -> None:
    from experiments.system.tensorflow import clear_session

    clear_session()
    reference: Reference = REFERENCES[name]
    calibration: Callable[[int], Images] = partial(images, shape=reference.input_shape)
    model = reference.architecture.build(reference.input_shape, reference.classes)
    assert model.count_params() == PARAMETERS[name]

    scheme = strategy.scheme(model)
    with constants_varied(model):  # equal biases would share their bytes
        file = convert(strategy.prepare_untrained(scheme, model, calibration), scheme, calibration)

    assert {op.types for op in read_ops(file.content, layer_names(model)) if op.computes} == {"int8"}
    # The converter of 2020 had one scale for all weights of a dense layer; today's has one for each of its outputs, and
    # for each of their biases: 4 bytes and 8 for the zero point.
    dense = sum(layer.units for layer in model.layers if name == "autoencoder" and hasattr(layer, "units"))
    added = 2 * 12 * dense if isinstance(strategy, PTQInt8) else 0
    assert len(essential(file.content)) == pytest.approx(reference.essential_bytes + added, rel=DIFFERS_AT_MOST)


@pytest.mark.parametrize("task", SUITES)
def test_a_suite_trains_the_reference_model(task: str) -> None:
    suite = yaml.safe_load((CONF / "suite" / f"mlperf_tiny_{task}.yaml").read_text())
    reference = REFERENCES[SUITES[task]].architecture
    assert {"override /model": SUITES[task]} in suite["defaults"]
    assert suite["keras"] == 3
    for name, value in suite["model"].items():
        expected = {"batchnorm_momentum": 0.99}.get(name, getattr(reference, name))
        assert value == (list(expected) if isinstance(expected, tuple) else expected)


SNIPPETS = re.findall(r"```python\n(.*?)```", (PACKAGE.parent / "docs/how-to/mlperf-tiny.md").read_text(), re.DOTALL)
KEYWORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
FILES = 6  # recordings of each word, two of them for the test


@pytest.fixture(scope="module")
def keywords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones in the layout of Speech Commands, and the folder that the script of the page makes of them."""
    folder = tmp_path_factory.mktemp("speech")
    rng, listed = np.random.default_rng(0), []
    for number, word in enumerate((*KEYWORDS, "bed", "cat")):
        (folder / "source" / word).mkdir(parents=True)
        for take in range(FILES):
            tone = np.sin(np.arange(16_000) / 16_000 * 2 * np.pi * (200 + 150 * number)) + rng.normal(0, 0.1, 16_000)
            wavfile.write(folder / "source" / word / f"{take}.wav", 16_000, (tone * 8_000).astype(np.int16))
        listed += [f"{word}/{take}.wav" for take in range(2)]
    (folder / "source" / "_background_noise_").mkdir()
    noise = rng.normal(0, 500, 16_000 * 20).astype(np.int16)
    wavfile.write(folder / "source" / "_background_noise_" / "hum.wav", 16_000, noise)
    (folder / "source" / "testing_list.txt").write_text("\n".join(listed))
    (folder / "keywords.py").write_text(SNIPPETS[0])
    subprocess.run([sys.executable, "keywords.py", "source", "keywords"], cwd=folder, check=True)
    return folder / "keywords"


def test_the_script_of_the_page_makes_twelve_classes_of_speech_commands(keywords: Path) -> None:
    for part, count in (("train", FILES - 2), ("test", 2)):
        found = {folder.name: len(list(folder.iterdir())) for folder in (keywords / part).iterdir()}
        assert found == dict.fromkeys((*KEYWORDS, "unknown", "silence"), count)


@pytest.mark.endtoend
def test_the_suite_for_keywords_quantizes_after_and_in_training(keywords: Path) -> None:
    small = ["training.epochs=1", "finetune.epochs=1", "latency.seconds=0.2", "training.batch_size=20"]
    chosen = ["+suite=mlperf_tiny_kws", f"dataset.path={keywords}", "strategy=ptq_int8,qat", *small]
    done = run(keywords.parent, "experiments.run", *chosen, measured=False)
    assert done.returncode == 0, done
    runs = load(f"sqlite:///{keywords.parent / 'mlflow.db'}")
    assert set(runs["strategy"]) == {"ptq_int8", "qat"}
    assert set(runs["verified"]) == {"true"}
    assert (runs["coverage_ops"] == 1).all()


@pytest.fixture(scope="module")
def toycar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the script of the page makes of hums, of which the anomalous ones have another tone as well."""
    folder = tmp_path_factory.mktemp("toycar")
    rng = np.random.default_rng(0)
    seconds = np.arange(16_000 * 9) / 16_000
    for part, names in (("train", ["normal"] * 4), ("test", ["normal"] * 3 + ["anomaly"] * 3)):
        (folder / "ToyCar" / part).mkdir(parents=True)
        for number, name in enumerate(names):
            tones = (200, 950) if name == "normal" else (200, 950, 2_900)
            samples = sum(np.sin(2 * np.pi * tone * seconds) for tone in tones) + rng.normal(0, 0.3, len(seconds))
            path = folder / "ToyCar" / part / f"{name}_id_01_{number:08d}.wav"
            wavfile.write(path, 16_000, (samples * 5_000).astype(np.int16))
    (folder / "toycar.py").write_text(SNIPPETS[1])
    subprocess.run([sys.executable, "toycar.py", "ToyCar", "toycar.npz"], cwd=folder, check=True)
    return folder / "toycar.npz"


def test_the_script_of_the_page_makes_windows_of_log_mel_frames(toycar: Path) -> None:
    with np.load(toycar) as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
        assert arrays["x_train"].shape == (4 * 196, 640)
    assert y.reshape(6, 196).tolist() == [[1] * 196] * 3 + [[0] * 196] * 3  # in the order of their names
    recordings = x.reshape(6, 196, 5, 128)
    assert np.array_equal(recordings[:, 1:, :-1], recordings[:, :-1, 1:])  # each window is one frame later
    loudest = recordings.mean(axis=(1, 2)).argmax(axis=1)
    assert set(loudest.tolist()) == {40}  # the band of 950 Hz, which are 14.25 of 45.25 mel


@pytest.mark.tensorflow
@pytest.mark.usefixtures("unmeasured")
def test_the_suite_for_anomalies_judges_recordings(toycar: Path, tmp_path: Path) -> None:
    from experiments.runs.configuration import compose_request
    from experiments.runs.pipeline import run as run_experiment

    small = ["training.epochs=1", "finetune.epochs=1", "training.batch_size=64", "latency.seconds=0.2"]
    chosen = ["+suite=mlperf_tiny_ad", f"dataset.path={toycar}", "strategy=ptq_int8", f"cache.dir={tmp_path}", *small]
    record = run_experiment(compose_request(chosen).experiment)
    assert (record.task, record.metric, record.broken, record.evidence.examples) == ("reconstruction", "auc", (), 6)
    assert record.metrics()["coverage_ops"] == 1
    assert record.metrics()["tflite_score_low"] <= record.metrics()["tflite_score"] <= 1  # a few steps learn little
