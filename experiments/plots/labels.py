"""Place labels near their points without overlaps, within the axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.plots import INK, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Boxes = npt.NDArray[np.float64]  # (n, 4): left, bottom, right, top
STEPS = (9, 15, 24, 36, 52, 72, 96, 124)  # from a point to its label, in units of the screen
DIRECTIONS = np.deg2rad(np.arange(0, 360, 15))
LEADER = 14.0  # minimum distance for a leader line
POINT = 5.0  # radius of a point


@dataclass(frozen=True)
class Label:
    """A text for a data point."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool = False


def place(axes: "Axes", labels: Sequence[Label], taken: Boxes) -> None:
    """Place each label at the nearest free position, starting at the top; avoids `taken`, in display units.

    Requires a settled figure. If no position is free, the one with the least overlap is used.
    """
    if not labels:
        return
    anchors = _on_screen(axes, labels)
    frame = np.array(axes.bbox.extents)
    soft = taken
    hard = np.concatenate([anchors - POINT, anchors + POINT], axis=1)
    for number in sorted(range(len(labels)), key=lambda n: (-anchors[n, 1], anchors[n, 0])):
        label, anchor = labels[number], anchors[number]
        written = axes.annotate(
            short(label.text), (label.x, label.y), (0, 0), textcoords="offset points", color=INK, fontsize=8,
            fontweight="bold" if label.bold else "normal", va="center", ha="center", annotation_clip=False, zorder=6,
        )  # fmt: skip
        extent = written.get_window_extent()
        boxes, leaders = _candidates(anchor, extent.width, extent.height)
        best = int(np.argmin(_costs(boxes, leaders, frame, hard, soft)))
        centre = (boxes[best, :2] + boxes[best, 2:]) / 2
        points_a_unit = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
        written.set_position(tuple((centre - anchor) * points_a_unit))
        written.set_horizontalalignment("center")
        hard = np.concatenate([hard, boxes[best : best + 1]])
        if np.linalg.norm(leaders[best, -1] - anchor) > LEADER:
            ends = axes.transData.inverted().transform(leaders[best, [0, -1]])
            axes.plot(*ends.T, color=label.colour, linewidth=0.7, zorder=2, scalex=False, scaley=False)
            soft = np.concatenate([soft, np.concatenate([leaders[best] - 1, leaders[best] + 1], axis=1)])


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
    costs = 100 * outside + 10 * _overlaps(boxes, hard) + 2 * _overlaps(boxes, soft) + length
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
