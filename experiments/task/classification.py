"""Classification: the meaning of a classifier's outputs, the predicted class, and the loss that fits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Images
from experiments.dataset.arrays import by_parts
from experiments.dataset.named import as_inputs
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.metrics import BalancedAccuracy, MacroF1, Metric, TopFive

if TYPE_CHECKING:
    from tf_keras import Model

Outputs = npt.NDArray[np.float32]  # (n, outputs)
Meaning = Literal["logits", "softmax", "sigmoid"]

SAMPLE = 64  # examples to infer the meaning of outputs from, if the layers do not show it
ROUNDING = 1e-2  # tolerance for probabilities and their sums, which is enough for float16
SOFTMAX = ("softmax", "softmax_v2", "Softmax")
SIGMOID = ("sigmoid", "hard_sigmoid")
OTHER = (
    "linear",
    "relu",
    "relu6",
    "tanh",
    "log_softmax",
    "log_softmax_v2",
    "softplus",
    "softsign",
    "elu",
    "exponential",
)
# Layers and ops that change the shape or the type of values, or nothing at all outside of training.
KEEPING = (
    "Reshape", "Flatten", "Permute", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "Identity",
    "ActivityRegularization", "QuantizeLayer", "SlicingOpLambda", "reshape", "squeeze", "squeeze_v2", "identity",
    "cast", "expand_dims", "expand_dims_v2", "flatten", "clip_by_value",
)  # fmt: skip


@dataclass(frozen=True)
class ClassHead(Head):
    """A classifier's outputs: their number and their meaning.

    `softmax`: probabilities that sum to 1; `sigmoid`: independent outputs in 0..1; `logits`: any numbers. A single
    output distinguishes two classes.
    """

    task: ClassVar[str] = "classification"
    meaning: Meaning

    @property
    def metric(self) -> Metric | None:
        """Accuracy, which is judged by correct and wrong predictions."""
        return None

    @property
    def further(self) -> tuple[Metric, ...]:
        """Metrics that weigh all classes alike and, of many classes, the accuracy of five guesses."""
        of_classes = BalancedAccuracy(self.threshold), MacroF1(self.threshold)
        return (TopFive(), *of_classes) if self.outputs > 5 else of_classes

    @property
    def classes(self) -> int:
        """Number of classes that the outputs distinguish."""
        return max(self.outputs, 2)

    @property
    def threshold(self) -> float:
        """Threshold of a single output for class 1."""
        return 0.0 if self.meaning == "logits" else 0.5

    def predict(self, outputs: Outputs) -> npt.NDArray[np.int64]:
        """Return the predicted class (n,) of outputs (n, outputs): the largest, or for one output by threshold."""
        if self.outputs == 1:
            return (outputs[:, 0] > self.threshold).astype(np.int64)
        return by_parts(lambda part: np.asarray(part.argmax(axis=1), np.int64), outputs)

    def loss(self, keras: Any) -> Any:
        """See loss_of."""
        return loss_of(self, keras)

    def training_metrics(self, keras: Any) -> list[Any]:
        """See accuracy_of."""
        return [accuracy_of(self, keras)]


@option(frozen=True, config=OPTION, kw_only=True)
class Classification(Task):
    """One class for each example, judged by accuracy."""

    name: ClassVar[str] = "classification"
    kind: ClassVar[Kind | None] = "classes"

    def head(self, model: "Model", data: Dataset) -> ClassHead:
        """See Task.head."""
        shape = tuple(model.outputs[0].shape)
        if len(shape) != 2:
            raise UserError(
                f"task=classification: requires a model with outputs of shape (n, classes), not {shape}. If the other "
                "axes are 1: keras.Sequential([model, keras.layers.Flatten()]).save('flat.keras')"
            )
        return head_of(model, data.train.sample(SAMPLE).x[:])


def head_of(model: "Model", images: Images | None = None) -> ClassHead:
    """Infer the head of a classifier with outputs (n, outputs) from its layers, and from its outputs for images.

    The output is traced back through layers that keep values. If this ends at an unknown layer or a softmax, the
    outputs for a sample of images show whether they are probabilities.
    """
    function = _last_function(model.outputs[0])
    outputs = int(model.outputs[0].shape[-1])
    if function in SIGMOID:
        return ClassHead(outputs, "sigmoid")
    if function in OTHER or (images is None and function not in SOFTMAX):
        return ClassHead(outputs, "logits")
    if images is None:
        return ClassHead(outputs, "softmax" if outputs > 1 else "sigmoid")
    return ClassHead(outputs, _meaning(np.asarray(model(as_inputs(images[:SAMPLE]), training=False))))


def _meaning(outputs: Outputs) -> Meaning:
    """Infer the meaning of outputs from their values."""
    if outputs.min() < -ROUNDING or outputs.max() > 1 + ROUNDING:
        return "logits"
    return "softmax" if outputs.shape[1] > 1 and np.allclose(outputs.sum(axis=1), 1, atol=ROUNDING) else "sigmoid"


def _last_function(tensor: Any) -> str:
    """Return the name of the last function that changed the values of a symbolic output; empty if unknown."""
    from experiments.system.tensorflow import keras_of

    while True:
        history = getattr(tensor, "_keras_history", None)
        if history is None:
            return ""
        layer, node_index, tensor_index = history  # in Keras 3, an operation, which may not be a layer
        node = (layer.inbound_nodes if hasattr(layer, "inbound_nodes") else layer._inbound_nodes)[node_index]
        inner = _unwrapped(layer)
        if isinstance(inner, keras_of(inner).Model):
            tensor = inner.outputs[tensor_index]
            continue
        name = function_of(inner)
        if name not in KEEPING and not (name == "linear" and type(inner).__name__ == "Activation"):
            return name if name in (*SOFTMAX, *SIGMOID, *OTHER) else ""
        inputs = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
        if len(inputs) != 1:
            return ""
        tensor = inputs[0]


def _unwrapped(layer: Any) -> Any:
    """Return the layer inside wrappers of TFMOT or Keras."""
    while hasattr(layer, "layer"):
        layer = layer.layer
    return layer


def function_of(layer: Any) -> str:
    """Return the name of the last function of a layer: its activation, its op, or its class."""
    if hasattr(layer, "function") and type(layer).__name__ == "TFOpLambda":
        return str(layer.function.__name__)
    activation = getattr(layer, "activation", None)
    activation = getattr(activation, "activation", activation)  # within TFMOT's
    if activation is None:
        return type(layer).__name__
    return str(getattr(activation, "__name__", type(activation).__name__))


def loss_of(head: ClassHead, keras: Any) -> Any:
    """Return the loss for class numbers (n,): cross-entropy, or binary cross-entropy of each output.

    `keras` is the Keras package of the model.
    """
    from experiments.system.tensorflow import tf

    if head.outputs == 1:
        return keras.losses.BinaryCrossentropy(from_logits=head.meaning == "logits")
    if head.meaning != "sigmoid":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=head.meaning == "logits")

    def binary_crossentropy_of_classes(labels: Any, outputs: Any) -> Any:
        targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), head.outputs, dtype=outputs.dtype)
        return keras.losses.binary_crossentropy(targets, outputs)

    return binary_crossentropy_of_classes


def accuracy_of(head: ClassHead, keras: Any) -> Any:
    """Return the metric `accuracy` for training, at half; Keras chooses it, except for a single logit."""
    if head.outputs == 1 and head.meaning == "logits":
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    return "accuracy"
