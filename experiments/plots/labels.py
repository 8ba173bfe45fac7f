"""Place labels near their points without overlaps, within the axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.plots import INK, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

Boxes = npt.NDArray[np.float64]  # (n, 4): left, bottom, right, top
STEPS = (9, 15, 24, 36, 52, 72, 96, 124)  # from a point to its label, in units of the screen
DIRECTIONS = np.deg2rad(np.arange(0, 360, 15))
LEADER = 14.0  # minimum distance for a leader line
POINT = 5.0  # radius of a point
REFINEMENTS = 3  # of all positions, after each label has one


@dataclass(frozen=True)
class Label:
    """A text for a data point."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool = False


def place(axes: "Axes", labels: Sequence[Label], taken: Boxes) -> None:
    """Place labels near their points, without overlaps if possible; avoids `taken`, in display units.

    Each label takes the position of least cost, starting at the top; then each is moved again in turn, now that the
    positions of all others are known. Requires a settled figure.
    """
    if not labels:
        return
    anchors, frame = _on_screen(axes, labels), np.array(axes.bbox.extents)
    points = np.concatenate([anchors - POINT, anchors + POINT], axis=1)
    texts = [_written(axes, label) for label in labels]
    extents = [text.get_window_extent() for text in texts]
    found = [_candidates(anchor, of.width, of.height) for anchor, of in zip(anchors, extents, strict=True)]
    order = sorted(range(len(labels)), key=lambda n: (-anchors[n, 1], anchors[n, 0]))
    chosen: dict[int, int] = {}
    for number in order * (1 + REFINEMENTS):
        others = [each for each in chosen if each != number]
        hard = np.concatenate([points, *(found[each][0][chosen[each]][None] for each in others)])
        soft = np.concatenate([taken, *(_along(found[each][1][chosen[each]]) for each in others)])
        chosen[number] = int(np.argmin(_costs(*found[number], frame, hard, soft)))
    points_a_unit = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    for number in order:
        boxes, leaders = found[number]
        box, leader, anchor = boxes[chosen[number]], leaders[chosen[number]], anchors[number]
        texts[number].set_position(tuple(((box[:2] + box[2:]) / 2 - anchor) * points_a_unit))
        if np.linalg.norm(leader[-1] - anchor) > LEADER:
            ends = axes.transData.inverted().transform(leader[[0, -1]])
            colour = labels[number].colour
            axes.plot(*ends.T, color=colour, linewidth=0.7, zorder=2, scalex=False, scaley=False)


def _written(axes: "Axes", label: Label) -> "Annotation":
    return axes.annotate(
        shorten(label.text), (label.x, label.y), (0, 0), textcoords="offset points", color=INK, fontsize=8,
        fontweight="bold" if label.bold else "normal", va="center", ha="center", annotation_clip=False, zorder=6,
    )  # fmt: skip


def _along(leader: npt.NDArray[np.float64]) -> Boxes:
    """Return small boxes along a leader line."""
    return np.concatenate([leader - 1, leader + 1], axis=1)


def _on_screen(axes: "Axes", labels: Sequence[Label]) -> npt.NDArray[np.float64]:
    return np.asarray(axes.transData.transform([(label.x, label.y) for label in labels])).reshape(-1, 2)


def _candidates(anchor: npt.NDArray[np.float64], width: float, height: float) -> tuple[Boxes, npt.NDArray[np.float64]]:
    """Return positions for a label around its point, nearest first, and points (n, 12, 2) of their leader lines."""
    directions = np.stack([np.cos(DIRECTIONS), np.sin(DIRECTIONS)], axis=1)
    # The side of the label that faces the point touches the direction.
    centres = np.concatenate([anchor + directions * (step + np.array([width, height]) / 2) for step in STEPS])
    half = np.array([width, height]) / 2
    boxes = np.concatenate([centres - half, centres + half], axis=1)
    nearest = np.clip(anchor, boxes[:, :2], boxes[:, 2:])
    share = np.linspace(0, 1, 12)[None, :, None]
    return boxes, np.asarray(anchor + share * (nearest - anchor)[:, None, :])


def _costs(
    boxes: Boxes, leaders: npt.NDArray[np.float64], frame: npt.NDArray[np.float64], hard: Boxes, soft: Boxes
) -> npt.NDArray[np.float64]:
    outside = np.maximum(frame[:2] - boxes[:, :2], 0).sum(axis=1) + np.maximum(boxes[:, 2:] - frame[2:], 0).sum(axis=1)
    length = np.linalg.norm(leaders[:, -1] - leaders[:, 0], axis=1)
    costs = 100 * outside + 10 * _overlaps(boxes, hard) + 4 * _overlaps(boxes, soft) + length
    return np.asarray(
        costs + 8 * _crossed(leaders, hard) + 16 * _crossed(leaders, soft)
    )  # leader lines are invisible on bars


def _crossed(leaders: npt.NDArray[np.float64], boxes: Boxes) -> npt.NDArray[np.int64]:
    """Count the points of each line inside boxes, except those next to its own point."""
    inside = (leaders[:, 2:, None, :] > boxes[:, :2]) & (leaders[:, 2:, None, :] < boxes[:, 2:])
    return np.asarray(inside.all(axis=3).sum(axis=(1, 2)))


def _overlaps(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """Return the overlap of each box with others: sum of the square roots of areas, positive for contact."""
    if not len(others):
        return np.zeros(len(boxes))
    size = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    areas = np.clip(size + 1, 0, None).prod(axis=2)
    return np.asarray(np.sqrt(areas).sum(axis=1))


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart as little as necessary, in the same order, `gap` apart, within bounds."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    blocks: list[tuple[float, int]] = []  # mean start of its members, and their number
    for rank, number in enumerate(order):
        mean, size = places[number] - gap * rank, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    last = max(low, high - gap * (len(places) - 1))
    begins = [min(max(mean, low), last) for mean, size in blocks for _ in range(size)]
    moved = [0.0] * len(places)
    for rank, number in enumerate(order):
        moved[number] = begins[rank] + gap * rank
    return moved
