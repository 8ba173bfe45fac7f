"""Object detection: mean average precision against pycocotools, boxes in other forms, and what is refused."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from experiments.dataset import Split, arrays
from experiments.dataset.drawn_shapes import DrawnShapes
from experiments.dataset.npz import Npz
from experiments.dataset.rows import rows_of
from experiments.dataset.values import Scaling
from experiments.system.errors import UserError
from experiments.task.boxes import Decoding, Form
from experiments.task.detection import Detection
from experiments.task.metrics import MeanAveragePrecision, MeanAveragePrecision50

Array = npt.NDArray[np.float32]
FOUND = Decoding(layout="detections")


def split(y: Array) -> Split:
    return Split(rows_of(np.zeros((len(y), 8, 8, 3), np.uint8), Scaling()), y)


def by_pycocotools(detections: Array, y: Array) -> tuple[float, float]:
    """Return mAP@[.5:.95] and mAP@.5 of rows of corners, score and class, as pycocotools sums them up."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    boxes = [(image, *row.tolist()) for image, rows in enumerate(y) for row in rows if row[0] >= 0]
    truth.dataset = {
        "images": [{"id": image} for image in range(len(y))],
        "categories": [{"id": each} for each in range(9)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": int(kind), "bbox": [left, top, right - left, low - top],
             "area": (right - left) * (low - top), "iscrowd": 0}
            for number, (image, kind, left, top, right, low) in enumerate(boxes, 1)
        ],
    }  # fmt: skip
    rows = [
        [image, left, top, right - left, low - top, score, kind]
        for image, found in enumerate(detections.astype(np.float64))
        for left, top, right, low, score, kind in found.tolist()
        if kind >= 0
    ]
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        judged = COCOeval(truth, truth.loadRes(np.array(rows)), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0]), float(judged.stats[1])


def random_boxes(images: int, most: int, detections: int, seed: int) -> tuple[Array, Array]:
    """Return targets in pixels, and detections, of which half are near a target; their scores have ties."""
    rng = np.random.default_rng(seed)
    y = np.full((images, most, 5), -1, np.float32)
    found = np.full((images, detections, 6), -1, np.float32)
    for image in range(images):
        count = int(rng.integers(0, most + 1))
        corners = rng.uniform(0, 50, (count, 2))
        y[image, :count] = np.column_stack(
            [rng.integers(0, 3, count), corners, corners + rng.uniform(5, 40, (count, 2))]
        )
        for place in range(int(rng.integers(0, detections + 1))):
            near = count > 0 and rng.random() < 0.5
            row = y[image, rng.integers(count)] if near else np.array([rng.integers(0, 3), 0, 0, 9, 9])
            box = row[1:] + rng.normal(0, 2, 4)
            found[image, place] = [*box[:2], *np.maximum(box[2:], box[:2] + 1), np.round(rng.random(), 1) + 0.1, row[0]]
    return y, found


@pytest.mark.parametrize("sizes", [(1, 1, 2), (7, 4, 6), (40, 6, 130)], ids=str)
def test_map_equals_that_of_pycocotools(sizes: tuple[int, int, int]) -> None:
    for seed in range(3):
        y, found = random_boxes(*sizes, seed)
        if (y[..., 0] < 0).all() or (found[..., 5] < 0).all():
            continue
        values = tuple(each(FOUND).value(found, split(y)) for each in (MeanAveragePrecision, MeanAveragePrecision50))
        assert values == pytest.approx(by_pycocotools(found, y), abs=1e-12)


def test_map_computed_by_hand() -> None:
    # One class, three boxes. By falling score: a hit (IoU 1), a miss, a hit with an IoU of 0.8; one box is not found.
    y = np.array([[[0, 0, 0, 10, 10]], [[0, 0, 0, 10, 10]], [[0, 0, 0, 10, 10]]], np.float32)
    found = np.array([[[0, 0, 10, 10, 0.9, 0]], [[0, 0, 10, 8, 0.5, 0]], [[50, 50, 60, 60, 0.7, 0]]], np.float32)
    # Precision 1 up to a recall of 1/3 (34 of the 101 recalls), and 2/3 up to 2/3 (33 more).
    both, one = (34 + 33 * 2 / 3) / 101, 34 / 101
    assert MeanAveragePrecision50(FOUND).value(found, split(y)) == pytest.approx(both)
    assert MeanAveragePrecision(FOUND).value(found, split(y)) == pytest.approx((7 * both + 3 * one) / 10)


def test_a_resample_is_the_map_of_its_images() -> None:
    y, found = random_boxes(12, 3, 5, 0)
    found[..., 4] = np.random.default_rng(1).random(found.shape[:2])  # without ties, whose order is arbitrary
    metric = MeanAveragePrecision(FOUND)
    weights = np.bincount(np.random.default_rng(2).integers(12, size=12), minlength=12)
    drawn = np.repeat(np.arange(12), weights)
    value = metric.of(metric.prepared(found, split(y)), weights)
    assert value == pytest.approx(by_pycocotools(found[drawn], y[drawn])[0], abs=1e-12)
    assert value != pytest.approx(metric.value(found, split(y)), abs=1e-3)


def test_detections_are_the_same_in_any_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = random_boxes(12, 3, 5, 0)
    whole = FOUND.detections(found)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 5 * found[0].nbytes)
    assert np.array_equal(FOUND.detections(found), whole)


FORMS: dict[Form, list[float]] = {
    "xyxy": [10, 20, 30, 60], "yxyx": [20, 10, 60, 30], "xywh": [10, 20, 20, 40], "cxcywh": [20, 40, 20, 40],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_boxes_may_have_any_form(form: Form) -> None:
    outputs = np.array([[[*FORMS[form], 0.9, 0.2]]], np.float32)
    found = Decoding(form=form, scale=(2, 0.5)).detections(outputs)
    assert found == pytest.approx(np.array([[0, 20, 10, 40, 20, 0.9, 0], [0, 20, 10, 40, 20, 0.2, 1]]))
    transposed = Decoding("scores_first", form, scale=(2, 0.5)).detections(outputs.swapaxes(1, 2))
    assert np.array_equal(found, transposed)
    assert Decoding(target_form=form).targets(np.array([[[1, *FORMS[form]], [-1] * 5]], np.float32)) == pytest.approx(
        np.array([[0, 10, 20, 20, 40, 1]])
    )


def test_of_boxes_that_overlap_the_best_remains() -> None:
    boxes = [[0, 0, 10, 10, 0.5, 0], [0, 0, 10, 9, 0.9, 0], [0, 0, 10, 3, 0.4, 0], [0, 0, 10, 9, 0, 0.3]]
    outputs = np.array([boxes], np.float32)
    kept = Decoding(suppressed=0.6).detections(outputs)
    assert [(round(score, 2), kind) for *_, score, kind in kept.tolist()] == [(0.9, 0), (0.4, 0), (0.3, 1)]
    assert len(Decoding(suppressed=None).detections(outputs)) == 4
    assert len(Decoding(suppressed=None, least=0.45).detections(outputs)) == 2


def saved(folder: Path, y: Any) -> Npz:
    x = np.zeros((len(y), 8, 8, 3), np.uint8)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return Npz(path=folder / "data.npz", validation_split=0)


ROW = [1, 0.1, 0.2, 0.5, 0.6]


def test_targets_of_floats_show_that_they_are_boxes(tmp_path: Path) -> None:
    data = saved(tmp_path, np.array([[ROW, [-1] * 5]] * 4)).examples()
    assert (data.kind, data.classes, data.train.y.shape) == ("boxes", 2, (4, 2, 5))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((4, 5)), r"requires rows of class and box, \(n, most boxes, 5\)"),
        (np.array([[[*ROW[1:], 1]]] * 4), r"it has others, such as 0\.1\. If the class is the last one: np\.roll"),
        (np.array([[[1, np.nan, 0, 1, 1]]] * 4), "boxes with values that are not finite"),
    ],
)
def test_targets_that_are_no_boxes_are_refused(y: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        saved(tmp_path, y).examples("boxes")


@pytest.mark.parametrize(
    ("task", "row", "outputs", "message"),
    [
        (Detection(), ROW, (9, 5), r"requires a model with one output of shape \(n, boxes, 6\), a box and 2 scores"),
        (Detection(outputs="scores_first"), ROW, (5, 9), r"of shape \(n, 6, boxes\)"),
        (Detection(outputs="detections"), ROW, (9, 7), r"of shape \(n, boxes, 6\), box, score and class for each box"),
        (Detection(), ROW, (6,), r"not \(n, 6\)\. Other forms"),
        (Detection(), [1, 0.5, 0.2, 0.3, 0.6], (9, 6), "4 of 4 boxes have no width or no height if they are xyxy"),
        (Detection(), [1, 10, 20, 50, 60], (9, 6), r"coordinates up to 60; .* Type task\.target_coordinates=pixels"),
        (Detection(), [-1] * 5, (9, 5), "y_train: has no boxes"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(
    task: Detection, row: list[float], outputs: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    model: Any = SimpleNamespace(outputs=[SimpleNamespace(shape=(None, *outputs))])
    data = saved(tmp_path, np.array([[row]] * 4)).examples("boxes").for_new_model()
    with pytest.raises(UserError, match=message):
        task.head(model, data)


def test_detections_cannot_be_trained(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(outputs=[SimpleNamespace(shape=(None, 9, 6))])
    data = saved(tmp_path, np.array([[ROW]] * 4)).examples("boxes").for_new_model()
    with pytest.raises(UserError, match=r"has no gradient.* with epochs=0 and strategy=ptq_int8"):
        Detection(outputs="detections").head(model, data).loss(None)


def test_drawn_shapes_fill_their_boxes() -> None:
    first, more = (DrawnShapes(train_samples=count, test_samples=5).read() for count in (5, 20))
    assert np.array_equal(first.x_train, np.asarray(more.x_train)[:5])
    assert not np.array_equal(first.x_train, first.x_test)
    targets = np.asarray(more.y_train, np.float32)
    boxes = targets[targets[..., 0] >= 0]
    assert set(np.unique(boxes[:, 0])) == {0, 1, 2}
    assert (boxes[:, 1:3] >= 0).all()
    assert (boxes[:, 3:] <= 1).all()


@pytest.mark.tensorflow
def test_the_loss_of_right_boxes_is_that_of_no_error() -> None:
    from experiments.task.detection import detection_loss

    y = np.array([[[1, 0.1, 0.2, 0.5, 0.6], [-1, -1, -1, -1, -1]]], np.float32)
    right = np.zeros((1, 9, 6), np.float32)
    right[0, :, :4] = [0.6, 0.6, 0.9, 0.9]
    right[0, 3] = [0.1, 0.2, 0.5, 0.6, 0, 1]
    shifted, unsure, other = right.copy(), right.copy(), right.copy()
    shifted[0, 3, 0] = 0.3
    unsure[0, 3, 5] = 0.3
    other[0, 7, 4] = 0.8
    loss = detection_loss(Decoding())
    least, *more = (float(loss(y, each)[0]) for each in (right, shifted, unsure, other))
    assert least < 1e-3
    assert all(each > 0.1 for each in more)
    swapped = right[..., [1, 0, 3, 2, 4, 5]]
    same = detection_loss(Decoding("scores_first", "yxyx", "xyxy", (1, 1)))
    assert float(same(y, swapped.swapaxes(1, 2))[0]) == pytest.approx(least, abs=1e-5)
