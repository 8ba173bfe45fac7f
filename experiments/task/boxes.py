"""Boxes: what outputs and targets mean, and their average precision, as COCO defines it.

Matches within an image do not depend on other images, so that pycocotools finds them once. A resample only weights
them: an image that is drawn twice counts like two images with the same boxes and detections.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import parts_of

Form = Literal["xyxy", "yxyx", "xywh", "cxcywh"]  # corners, corners with y first, corner and size, center and size
Layout = Literal["scores", "scores_first", "detections"]
Outputs = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# A box (4,) times this matrix is (x1, y1, x2, y2).
_TO_CORNERS: dict[Form, Sequence[Sequence[float]]] = {
    "xyxy": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
    "yxyx": ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)),
    "xywh": ((1, 0, 1, 0), (0, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 1)),
    "cxcywh": ((1, 0, 1, 0), (0, 1, 0, 1), (-0.5, 0, 0.5, 0), (0, -0.5, 0, 0.5)),
}
_RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union, from which on a box is found
CANDIDATES = 1000  # boxes of a class in an image that non-maximum suppression takes, those with the highest scores


def to_corners(form: Form, scale: tuple[float, float] = (1, 1)) -> Floats:
    """Return the matrix (4, 4) from boxes of a form to corners (x1, y1, x2, y2), times a scale of x and y."""
    return np.asarray(np.array(_TO_CORNERS[form], np.float64) * np.array([*scale, *scale]))


@dataclass(frozen=True)
class Decoding:
    """What the numbers of outputs and targets mean; boxes are compared in the coordinates of the targets."""

    layout: Layout = "scores"
    form: Form = "xyxy"
    target_form: Form = "xyxy"
    scale: tuple[float, float] = (1, 1)  # of x and y, from the coordinates of the outputs to those of the targets
    suppressed: float | None = 0.6  # overlap above which the box with the lower score is removed; None: never
    least: float = 0.001  # score

    def detections(self, outputs: Outputs) -> Floats:
        """Return the detections of all images: (k, 7) of image, x, y, width, height, score, class."""
        found: list[Floats] = []
        rows = self._given if self.layout == "detections" else self._chosen
        for part in parts_of(outputs):
            values = part.swapaxes(1, 2) if self.layout == "scores_first" else part
            corners = values[..., :4].astype(np.float64) @ to_corners(self.form, self.scale)
            sizes = np.maximum(corners[..., 2:] - corners[..., :2], 0)
            boxes = np.concatenate([corners[..., :2], sizes], axis=-1)
            for place in range(len(values)):
                own = rows(boxes[place], values[place, :, 4:].astype(np.float64))
                found.append(np.concatenate([np.full((len(own), 1), len(found)), own], axis=1))
        return np.concatenate(found)

    def _given(self, boxes: Floats, rest: Floats) -> Floats:
        """Return the detections (k, 6) of an image, from outputs that have a score and a class for each box."""
        real = (rest[:, 0] >= self.least) & (rest[:, 1] >= 0)
        return np.concatenate([boxes, rest[:, :1], np.round(rest[:, 1:2])], axis=1)[real]

    def _chosen(self, boxes: Floats, scores: Floats) -> Floats:
        """Return the detections (k, 6) of an image, from a score for each box and class."""
        found = [np.empty((0, 6))]
        for number in range(scores.shape[1]):
            order = np.argsort(-scores[:, number], kind="stable")
            order = order[scores[order, number] >= self.least][:CANDIDATES]
            if self.suppressed is not None:
                order = order[_kept(boxes[order], self.suppressed)]
            if len(order):
                of_class = np.full(len(order), number)
                found.append(np.column_stack([boxes[order], scores[order, number], of_class]))
        return np.concatenate(found)

    def targets(self, y: npt.NDArray[np.float32]) -> Floats:
        """Return the boxes of all images: (k, 6) of image, x, y, width, height, class."""
        images, places = np.nonzero(y[..., 0] >= 0)
        rows = y[images, places].astype(np.float64)
        corners = rows[:, 1:] @ to_corners(self.target_form)
        return np.column_stack([images, corners[:, :2], corners[:, 2:] - corners[:, :2], rows[:, 0]])


def _kept(boxes: Floats, overlap: float) -> npt.NDArray[np.int64]:
    """Return the positions of boxes that non-maximum suppression keeps; boxes are sorted by falling score."""
    from pycocotools import mask

    overlaps = mask.iou(boxes, boxes, np.zeros(len(boxes), np.uint8)) if len(boxes) else np.empty((0, 0))
    free, kept = np.ones(len(boxes), bool), []
    for place in range(len(boxes)):
        if free[place]:
            kept.append(place)
            free &= overlaps[place] <= overlap
    return np.array(kept, np.int64)


@dataclass(frozen=True)
class Matches:
    """The detections of a class, by falling score, and which of them found a box."""

    images: npt.NDArray[np.int64]  # (k,)
    hits: tuple[npt.NDArray[np.int64], ...]  # for each threshold, the positions of detections that found a box
    boxes: npt.NDArray[np.int64]  # (images,): how many there are to find


def matches(detections: Floats, targets: Floats, images: int, thresholds: Floats) -> list[Matches]:
    """Match detections (k, 7) to targets (k, 6) within each image, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    classes = np.unique(targets[:, 5]).astype(int).tolist()
    described = {"images": [{"id": each} for each in range(images)], "categories": [{"id": each} for each in classes]}
    truth, found = COCO(), COCO()
    truth.dataset = {
        **described,
        "annotations": [
            {"id": number, "image_id": int(image), "category_id": int(of_class), "bbox": box, "area": box[2] * box[3],
             "iscrowd": 0}
            for number, (image, *box, of_class) in enumerate(targets.tolist(), 1)
        ],
    }  # fmt: skip
    found.dataset = {
        **described,
        "annotations": [
            {"id": number, "image_id": int(image), "category_id": int(of_class), "bbox": box, "area": box[2] * box[3],
             "iscrowd": 0, "score": score}
            for number, (image, *box, score, of_class) in enumerate(detections.tolist(), 1)
        ],
    }  # fmt: skip
    with redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        for each in (truth, found):
            each.createIndex()
        judged = COCOeval(truth, found, "bbox")
        judged.params.iouThrs = thresholds
        judged.params.areaRng, judged.params.areaRngLbl = judged.params.areaRng[:1], ["all"]
        judged.evaluate()
    by_class = np.array(judged.evalImgs, object).reshape(len(classes), images)
    return [_sorted([each for each in row if each is not None], images) for row in by_class]


def _sorted(judged: Sequence[Any], images: int) -> Matches:
    """Return the matches of a class, from those of its images."""
    scores = np.concatenate([each["dtScores"] for each in judged])
    order = np.argsort(-scores, kind="stable")  # that of pycocotools
    hit = np.concatenate([each["dtMatches"] for each in judged], axis=1)[:, order] > 0
    sources = np.repeat([each["image_id"] for each in judged], [len(each["dtScores"]) for each in judged])
    boxes = np.zeros(images, np.int64)
    for each in judged:
        boxes[each["image_id"]] = len(each["gtIds"])
    return Matches(sources[order].astype(np.int64), tuple(np.flatnonzero(row) for row in hit), boxes)


def average_precisions(matched: Matches, weights: npt.NDArray[np.int64]) -> Floats:
    """Return the average precision of a class by threshold, (sets, thresholds), of sets of images.

    `weights` (sets, images) is how often each image counts; without boxes, the precision is NaN. Between two hits,
    precision only falls at the same recall, so that it is needed at hits alone. Each recall that COCO reads takes the
    highest precision from the first hit on that reaches it.
    """
    boxes = weights @ matched.boxes
    found = np.full((len(weights), len(matched.hits)), np.nan)
    some = boxes > 0
    counts = weights[some][:, matched.images]
    total = np.cumsum(counts, axis=1)
    for number, hits in enumerate(matched.hits):
        true = np.cumsum(counts[:, hits], axis=1)
        precision = true / (total[:, hits] + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(_RECALLS, true / boxes[some, np.newaxis], side="right")
        found[some, number] = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)
    return found
