"""Object detection: boxes with classes, judged by mean average precision."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.boxes import Decoding, Form, Layout, to_corners
from experiments.task.metrics import MeanAveragePrecision, MeanAveragePrecision50, Metric

if TYPE_CHECKING:
    from tf_keras import Model

Coordinates = Literal["normalized", "pixels"]
POSITIVE = 9  # boxes of the model that learn each box of the targets
AXES = 3  # of outputs and targets
DETECTION = 6  # numbers of a detection: box, score, class
LARGEST = 1.5  # of a normalized coordinate; a box may exceed its image


@dataclass(frozen=True)
class BoxHead(Head):
    """Boxes with scores of classes, or with one score and one class."""

    task: ClassVar[str] = "detection"
    by_place: ClassVar[bool] = True
    judging: ClassVar[tuple[str, ...]] = ("judged_by",)
    decoding: Decoding
    judged_by: Literal["map", "map50"] = "map"

    @property
    def metric(self) -> Metric:
        """The metric that judges the model."""
        return self.further[0 if self.judged_by == "map" else 1]

    @property
    def further(self) -> tuple[Metric, ...]:
        """The mean over ten overlaps, and that for an overlap of half."""
        return MeanAveragePrecision(self.decoding), MeanAveragePrecision50(self.decoding)

    @property
    def identity(self) -> dict[str, Any]:
        """See Head.identity; what removes boxes of the outputs is no part of the loss."""
        found = super().identity
        return {**found, "decoding": {k: v for k, v in found["decoding"].items() if k not in ("suppressed", "least")}}

    def loss(self, keras: Any) -> Any:
        """See detection_loss.

        Raises:
            UserError: the outputs are detections, through which nothing can be learned.
        """
        if self.decoding.layout == "detections":
            raise UserError(
                "task.outputs=detections: the choice of boxes has no gradient, so that such a model cannot be trained. "
                "Quantize it after training, with epochs=0 and strategy=ptq_int8 or another ptq_..., or train a model "
                "with task.outputs=scores."
            )
        return detection_loss(self.decoding)


@option(frozen=True, config=OPTION, kw_only=True)
class Detection(Task):
    """Boxes with classes: y is (n, most boxes, 5) of class and box, with class -1 for no box."""

    name: ClassVar[str] = "detection"
    kind: ClassVar[Kind | None] = "boxes"
    extras: ClassVar[tuple[str, ...]] = ("detection",)
    judging: ClassVar[tuple[str, ...]] = ("nms", "min_score", "metric")

    outputs: Layout = "scores"
    boxes: Form = "xyxy"
    coordinates: Coordinates = "normalized"
    target_boxes: Form | None = None  # None: like those of the outputs
    target_coordinates: Coordinates | None = None
    nms: Annotated[float, Field(gt=0, le=1)] | None = 0.6
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.001
    metric: Literal["map", "map50"] = "map"

    def head(self, model: "Model", data: Dataset) -> BoxHead:
        """See Task.head."""
        given = tuple(model.outputs[0].shape[1:])
        self._check_targets(data)
        self._check_outputs(given, data)
        height, width = data.input_shape[:2]
        same = self.target_coordinates in (None, self.coordinates)
        to_normalized = self.coordinates == "pixels"
        scale = (1.0, 1.0) if same else (1 / width, 1 / height) if to_normalized else (float(width), float(height))
        decoding = Decoding(self.outputs, self.boxes, self.target_boxes or self.boxes, scale, self.nms, self.min_score)
        return BoxHead(prod(length or 1 for length in given), decoding, self.metric)

    def _check_outputs(self, given: tuple[int | None, ...], data: Dataset) -> None:
        numbers = DETECTION if self.outputs == "detections" else 4 + data.classes
        wanted = f"(n, {numbers}, boxes)" if self.outputs == "scores_first" else f"(n, boxes, {numbers})"
        found = given[0 if self.outputs == "scores_first" else -1] if len(given) == AXES - 1 else None
        if found is not None and (found == numbers or (self.outputs != "detections" and found > numbers)):
            return
        what = "box, score and class" if self.outputs == "detections" else f"a box and {data.classes} scores"
        raise UserError(
            f"task.outputs={self.outputs}: requires a model with one output of shape {wanted}, {what} for each box, "
            f"not (n, {', '.join(map(str, given))}). Other forms: scores (n, boxes, 4 + classes), scores_first (n, 4 + "
            "classes, boxes), detections (n, boxes, 6) of box, score and class. Use model=detector, or your own."
        )

    def _check_targets(self, data: Dataset) -> None:
        if len(data.input_shape) != AXES:
            raise UserError(f"task=detection: requires images, not examples of the shape {data.input_shape}.")
        form = self.target_boxes or self.boxes
        for name, y in (("y_train", data.train.y), ("y_test", data.test.y)):
            boxes = y[y[..., 0] >= 0][:, 1:]
            if not len(boxes):
                raise UserError(f"{name}: has no boxes; each is a row of class and box, with a class from 0 on.")
            corners = boxes.astype(np.float64) @ to_corners(form)
            empty = int(((corners[:, 2:] - corners[:, :2]) <= 0).any(axis=1).sum())
            if empty:
                raise UserError(
                    f"{name}: {empty:,} of {len(boxes):,} boxes have no width or no height if they are {form}. Type "
                    "task.target_boxes=xyxy, yxyx, xywh or cxcywh, as the boxes are stored, or remove these boxes."
                )
            largest = float(corners.max())
            normalized = (self.target_coordinates or self.coordinates) == "normalized"
            if normalized and largest > LARGEST:
                raise UserError(
                    f"{name}: has coordinates up to {largest:g}; task.target_coordinates=normalized requires shares of "
                    "width and height, from 0 to 1. Type task.target_coordinates=pixels, or divide them."
                )
            height, width = (1, 1) if normalized else data.input_shape[:2]
            if not normalized and largest <= LARGEST and min(height, width) > LARGEST:
                raise UserError(
                    f"{name}: has coordinates up to {largest:g}, which are shares of width and height, not pixels. "
                    "Type task.target_coordinates=normalized."
                )
            limits = np.array([width, height], np.float64)
            outside = int(((corners[:, :2] >= limits) | (corners[:, 2:] <= 0)).any(axis=1).sum())
            if outside:
                raise UserError(
                    f"{name}: {outside:,} of {len(boxes):,} boxes are outside of their image of {width} x {height} if "
                    f"they are {form}. Remove them, or set their form: task.target_boxes, task.target_coordinates."
                )


def detection_loss(decoding: Decoding) -> Any:
    """Return a loss for targets (n, most boxes, 5) and outputs (n, boxes, 4 + classes), which are probabilities.

    Each box of the targets is learned by the POSITIVE boxes of the model that overlap it most, whatever the
    architecture. Their scores learn the overlap, relative to that of the best of them, by the quality focal loss (Li et
    al., arXiv:2006.04388); all other scores learn 0. Their boxes learn the generalized intersection over union
    (Rezatofighi et al., arXiv:1902.09630), with the same weights.
    """
    from experiments.system.tensorflow import tf

    to_outputs = np.asarray(to_corners(decoding.form, decoding.scale), np.float32)
    to_targets = np.asarray(to_corners(decoding.target_form), np.float32)
    tiny = 1e-7

    def generalized_overlap(one: Any, other: Any) -> tuple[Any, Any]:
        """Return the intersection over union of boxes (..., 4), and its generalization."""
        inside = tf.maximum(tf.minimum(one[..., 2:], other[..., 2:]) - tf.maximum(one[..., :2], other[..., :2]), 0.0)
        around = tf.maximum(one[..., 2:], other[..., 2:]) - tf.minimum(one[..., :2], other[..., :2])
        areas = [tf.reduce_prod(tf.maximum(each[..., 2:] - each[..., :2], 0.0), axis=-1) for each in (one, other)]
        common, hull = tf.reduce_prod(inside, axis=-1), tf.reduce_prod(tf.maximum(around, 0.0), axis=-1)
        union = areas[0] + areas[1] - common
        return common / (union + tiny), common / (union + tiny) - (hull - union) / (hull + tiny)

    def overlap_and_quality_focal(targets: Any, outputs: Any) -> Any:
        values = tf.linalg.matrix_transpose(outputs) if decoding.layout == "scores_first" else outputs
        targets = tf.cast(targets, values.dtype)
        boxes = tf.tensordot(values[..., :4], tf.cast(to_outputs, values.dtype), 1)
        scores = tf.clip_by_value(values[..., 4:], tiny, 1 - tiny)
        true = tf.tensordot(targets[..., 1:], tf.cast(to_targets, values.dtype), 1)
        real = tf.cast(targets[..., 0] >= 0, values.dtype)[:, tf.newaxis]  # (n, 1, most)
        overlap, generalized = generalized_overlap(boxes[:, :, tf.newaxis], true[:, tf.newaxis])  # (n, boxes, most)
        ranked = tf.stop_gradient(generalized)
        count = tf.minimum(POSITIVE, tf.shape(ranked)[1])
        least = tf.math.top_k(tf.linalg.matrix_transpose(ranked), count).values[..., -1]  # (n, most)
        near = tf.cast(ranked >= least[:, tf.newaxis], values.dtype) * real
        # A box of the model learns one box of the targets, the one that it overlaps most.
        first = tf.one_hot(tf.argmax(ranked - 9 * (1 - near), axis=-1), tf.shape(ranked)[-1], dtype=values.dtype)
        own = near * first
        quality = own * (tf.stop_gradient(overlap) + tiny)
        weights = quality / (tf.reduce_max(quality, axis=1, keepdims=True) + tiny * tf.cast(own == 0, values.dtype))
        of_class = tf.one_hot(tf.cast(targets[..., 0], tf.int32), tf.shape(scores)[-1], dtype=values.dtype)
        wanted = tf.matmul(weights, of_class)  # (n, boxes, classes)
        entropy = -wanted * tf.math.log(scores) - (1 - wanted) * tf.math.log(1 - scores)
        total = tf.maximum(tf.reduce_sum(weights, axis=(1, 2)), 1.0)
        classes = tf.reduce_sum(tf.square(wanted - scores) * entropy, axis=(1, 2)) / total
        return classes + tf.reduce_sum(weights * (1 - generalized), axis=(1, 2)) / total

    return overlap_and_quality_focal
