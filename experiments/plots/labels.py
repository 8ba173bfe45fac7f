"""Labels beside what they name: none on another, none on a point, none outside."""

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
LEADER = 14.0  # from so far on a line leads to the label
POINT = 5.0  # half of what a point takes


@dataclass(frozen=True)
class Label:
    """A text that belongs to a point of the data."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool = False


def place(axes: "Axes", labels: Sequence[Label], taken: Boxes) -> None:
    """Put each label to the nearest free place, the uppermost first; `taken`, in display units, is kept free.

    The figure has to be settled. Where no place is free, the one is taken on which the least lies.
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
    """Places for a label around its point, the nearest first, and points (n, 12, 2) of the lines that lead there."""
    directions = np.stack([np.cos(DIRECTIONS), np.sin(DIRECTIONS)], axis=1)
    # A label touches its direction with the side that looks at the point.
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
    return np.asarray(costs + 8 * _crossed(leaders, hard) + 16 * _crossed(leaders, soft))  # on a bar none is seen


def _crossed(leaders: npt.NDArray[np.float64], boxes: Boxes) -> npt.NDArray[np.int64]:
    """How many points of each line lie in boxes, but for those beside its own point."""
    inside = (leaders[:, 2:, None, :] > boxes[:, :2]) & (leaders[:, 2:, None, :] < boxes[:, 2:])
    return np.asarray(inside.all(axis=3).sum(axis=(1, 2)))


def _overlaps(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """By how much each box overlaps with others: square roots of areas, added up, with a little for touching."""
    if not len(others):
        return np.zeros(len(boxes))
    size = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    areas = np.clip(size + 1, 0, None).prod(axis=2)
    return np.asarray(np.sqrt(areas).sum(axis=1))


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved apart as little as is needed: in the same order, `gap` between neighbours, within the bounds."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    blocks: list[tuple[float, int]] = []  # mean of where its members, side by side, would begin; how many they are
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
