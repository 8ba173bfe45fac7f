"""Pruning and clustering on a little of real MNIST: what is promised of the weights is in the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.model import Architecture
from experiments.model.ds_cnn import DSCNN
from experiments.model.mlp import MLP
from experiments.strategy import Strategy
from experiments.strategy.cluster import Cluster
from experiments.strategy.cluster_qat import ClusterQAT
from experiments.strategy.none import Nothing
from experiments.strategy.prune import Prune
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.strategy.prune_qat import PruneQAT
from experiments.strategy.qat import QAT
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.expectation import Expectation, broken
from experiments.tflite.graph import Op, read_ops
from experiments.training import loop
from experiments.training.loop import Fit, Trained, Training, fit, trajectory_key

pytestmark = pytest.mark.tensorflow

COMPRESSING: dict[str, Strategy] = {
    "prune": Prune(),
    "prune, then dynamic": Prune(quantization="dynamic"),
    "prune, then int8": Prune(quantization="int8"),
    "cluster": Cluster(),
    "cluster, then int8": Cluster(quantization="int8"),
    "prune_qat": PruneQAT(),
    "cluster_qat": ClusterQAT(),
    "prune_cluster_qat": PruneClusterQAT(),
}


@cache
def data() -> Dataset:
    return Mnist(train_samples=300, test_samples=50).load()


def built(architecture: Architecture) -> Any:
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return architecture.build(data().input_shape, data().classes)


SETTINGS = Training(epochs=1, batch_size=50)


def file_of(strategy: Strategy, model: Any, cache: Path | None = None) -> tuple[TFLiteModel, tuple[Op, ...]]:
    """The file and its ops after one epoch of training, as in production if there is a cache for it."""
    training: Fit = train_eagerly
    if cache:
        training = partial(fit, data=data(), settings=SETTINGS, seed=0, cache=Cache(dir=cache), title="training")
    calibration = partial(data().calibration, seed=0)
    trained = strategy.prepare(model, training, lambda count: calibration(min(count, 20)))
    file = convert(trained.model, strategy.scheme(model), lambda count: calibration(min(count, 20)))
    return file, read_ops(file.content, [layer.name for layer in model.layers])


def train_eagerly(model: Any, callbacks: Sequence[Any] = ()) -> Trained:
    """Train without the graphs of production: the few steps here take less time than the tracing of one."""
    loop._compile(model, SETTINGS)
    model.run_eagerly = True
    train = data().train
    model.fit(train.x[:], train.y[:], SETTINGS.batch_size, verbose=0, callbacks=list(callbacks))
    return Trained.untouched(model)


@dataclass(frozen=True)
class Small(Architecture):
    """A convolution and a dense layer: most of the time of these tests goes into tracing and convolutions."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Any:
        from experiments.system.tensorflow import keras

        layers = keras.layers
        image, conv = layers.InputLayer(input_shape), layers.Conv2D(16, 3, strides=2, activation="relu", name="conv")
        return keras.Sequential([image, conv, layers.Flatten(), layers.Dense(classes, name="dense")])


FileOf = Callable[[Strategy, Architecture], tuple[TFLiteModel, tuple[Op, ...]]]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of trainings, which strategies share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def file(trainings: Path) -> FileOf:
    """The file of a strategy and an architecture and its ops, made once.

    Of each wrapper of TFMOT, one is trained in graphs.
    """

    def made(strategy: Strategy, architecture: Architecture) -> tuple[TFLiteModel, tuple[Op, ...]]:
        graph = isinstance(architecture, Small) and isinstance(strategy, Prune | Cluster | PruneClusterQAT)
        return file_of(strategy, built(architecture), trainings if graph else None)

    return cache(made)


# With depthwise kernels and BatchNorm, each way to compress is tried at each change, and what follows it every night.
EACH_TIME = ("prune", "cluster", "prune_cluster_qat")
FILES = [pytest.param(name, Small(), id=f"{name}-Small") for name in COMPRESSING] + [
    pytest.param(
        name,
        DSCNN(filters=16, blocks=1),
        id=f"{name}-DSCNN",
        marks=[] if name in EACH_TIME else pytest.mark.nightly,
    )
    for name in COMPRESSING
]


@pytest.mark.parametrize(("name", "architecture"), FILES)
def test_the_file_keeps_the_expected_zeros_and_clusters(name: str, architecture: Architecture, file: FileOf) -> None:
    strategy = COMPRESSING[name]
    assert broken(strategy.expectation(built(architecture)), file(strategy, architecture)[1]) == ()


@pytest.mark.parametrize(
    ("strategy", "plain"),
    [(Prune(), Nothing()), (Cluster(), Nothing()), (PruneQAT(), QAT()), (ClusterQAT(), QAT())],
    ids=lambda strategy: type(strategy).__name__,
)
def test_compression_makes_a_smaller_download_of_a_file_of_the_same_size(
    strategy: Strategy, plain: Strategy, file: FileOf
) -> None:
    (compressed, _), (ordinary, _) = file(strategy, Small()), file(plain, Small())
    assert compressed.bytes == pytest.approx(ordinary.bytes, rel=0.01)
    assert compressed.gzip_bytes < 0.7 * ordinary.gzip_bytes


def test_both_together_are_the_smallest_download(file: FileOf) -> None:
    both, pruned, clustered = (
        file(strategy, Small())[0].gzip_bytes for strategy in (PruneClusterQAT(), PruneQAT(), ClusterQAT())
    )
    assert both < min(pruned, clustered)


def test_plain_qat_of_a_pruned_model_loses_the_zeros_and_the_gate_says_so(trainings: Path) -> None:
    model = built(Small())
    training = partial(fit, data=data(), settings=SETTINGS, seed=0, cache=Cache(dir=trainings), title="training")
    sparse = Prune().prepare(model, training, partial(data().calibration, seed=0)).model
    (difference,) = broken(Expectation("int8", sparsity=0.8), file_of(QAT(), sparse)[1])
    assert difference.endswith("of the weights are zero instead of 80.0%")


@pytest.mark.parametrize("keep", [["zeros"], ["clusters"], ["zeros", "clusters"]], ids="+".join)
def test_training_that_preserves_compression_has_a_key_of_its_own(keep: list[str]) -> None:
    from experiments.quantization.tfmot import engine

    model = built(Small())
    copies = engine.annotated(model, None), engine.to_quantize(model, keep)
    plain, keeping = (trajectory_key(copy, data(), Training(epochs=1), seed=0) for copy in copies)
    assert plain != keeping


def test_another_version_of_an_engine_trains_anew_and_leaves_float_trainings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from experiments.quantization.tfmot import engine

    model = built(MLP())
    models = model, engine.annotated(model, None), engine.to_prune(model, 0.5)

    def keys() -> list[str]:
        return [trajectory_key(each, data(), Training(epochs=1), seed=0) for each in models]

    before = keys()
    (tmp_path / "engine.py").write_text("# another version")
    monkeypatch.setattr(loop, "ENGINES", (tmp_path / "engine.py",))
    assert [one == other for one, other in zip(before, keys(), strict=True)] == [True, False, False]


@pytest.mark.parametrize(("keep_zeros", "most"), [(True, 6), (False, 12)])
def test_a_kernel_with_fewer_weights_than_clusters_gets_fewer_clusters(keep_zeros: bool, most: int) -> None:
    from experiments.quantization.tfmot import engine
    from experiments.system.tensorflow import keras

    model = keras.Sequential([keras.layers.InputLayer((4,)), keras.layers.Dense(3, name="dense")])
    kernel = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    if keep_zeros:
        kernel *= np.arange(12).reshape(4, 3) >= 7  # as pruning leaves a small layer
    model.set_weights([kernel, np.zeros(3, np.float32)])
    (wrapper,) = engine.to_cluster(model, 16, keep_zeros).layers[-1:]
    assert wrapper.cluster_centroids["kernel"].shape[0] == most


def test_trainings_one_after_the_other_count_as_one(trainings: Path) -> None:
    training = partial(fit, data=data(), settings=SETTINGS, seed=0, cache=Cache(dir=trainings), title="training")
    trained = PruneClusterQAT().prepare(built(Small()), training, partial(data().calibration, seed=0))
    assert (trained.epochs_trained + trained.epochs_reused, len(trained.history["loss"])) == (3, 3)


@pytest.mark.parametrize("strategy", [Prune(), Cluster()], ids=lambda strategy: type(strategy).__name__)
def test_layers_without_kernels_that_are_unknown_are_left_alone(strategy: Strategy) -> None:
    from experiments.system.tensorflow import keras

    layers = keras.layers
    model = keras.Sequential(
        [layers.InputLayer((28, 28, 1)), layers.Rescaling(2.0), layers.Flatten(), layers.PReLU(), layers.Dense(10)]
    )
    assert broken(strategy.expectation(model), file_of(strategy, model)[1]) == ()


@pytest.mark.parametrize(
    ("strategy", "way"), [(Prune(), "pruned"), (Cluster(), "clustered"), (PruneQAT(), "pruned")], ids=str
)
def test_layers_whose_kernels_cannot_be_compressed_are_refused_by_name(strategy: Strategy, way: str) -> None:
    from experiments.system.tensorflow import keras

    class Own(keras.layers.Dense):  # type: ignore[misc]
        pass

    model = keras.Sequential([keras.layers.InputLayer((8,)), Own(4, name="mine")])
    with pytest.raises(UserError, match=f"Layers that cannot be {way}: mine"):
        strategy.expectation(model)


def test_layers_that_cannot_be_quantized_are_refused_by_name() -> None:
    from experiments.system.tensorflow import keras

    layers = keras.layers
    model = keras.Sequential([layers.InputLayer((8, 8, 1)), layers.Flatten(), layers.LayerNormalization(name="norm")])
    with pytest.raises(UserError, match=r"norm \(LayerNormalization is not supported\)"):
        PruneQAT().expectation(model)
