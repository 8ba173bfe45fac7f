"""Drawn shapes with their boxes, for trying out object detection: no download, and the same images on every machine."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.system.options import OPTION

EDGE = 64
MOST = 3  # shapes in an image
TRAIN, TEST = 4000, 1000
SMALLEST, LARGEST = 12, 28  # pixels of a shape


@option(frozen=True, config=OPTION, kw_only=True)
class DrawnShapes(Source):
    """Images (64, 64, 3) with one to three shapes: circles (class 0), squares (1) and triangles (2).

    Targets are (n, 3, 5): class, x1, y1, x2, y2 as shares of width and height; class -1 stands for no shape.
    """

    classes: ClassVar[tuple[str, ...]] = ("circle", "square", "triangle")

    def read(self) -> Raw:
        """Return the images; the first ones, if there are fewer samples."""
        train = _drawn(min(self.train_samples or TRAIN, TRAIN), 0)
        test = _drawn(min(self.test_samples or TEST, TEST), 1)
        return Raw(*train, *test)


def _drawn(images: int, part: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    x = np.empty((images, EDGE, EDGE, 3), np.uint8)
    y = np.zeros((images, MOST, 5), np.float32)
    y[..., 0] = -1
    for number in range(images):
        rng = np.random.default_rng([part, number])
        image = rng.normal(rng.uniform(60, 190, 3), 12, (EDGE, EDGE, 3))
        taken: list[tuple[int, int, int]] = []
        for _ in range(int(rng.integers(1, MOST + 1))):
            size = int(rng.integers(SMALLEST, LARGEST + 1))
            left, top = (int(each) for each in rng.integers(0, EDGE - size + 1, 2))
            if any(abs(left - a) < (size + s) * 0.4 and abs(top - b) < (size + s) * 0.4 for a, b, s in taken):
                continue  # it would cover another one
            kind = int(rng.integers(3))
            y[number, len(taken)] = [kind, *(np.array([left, top, left + size, top + size]) / EDGE)]
            taken.append((left, top, size))
            image[top : top + size, left : left + size][_shape(kind, size)] = rng.uniform(0, 255, 3)
        x[number] = np.clip(image, 0, 255)
    return x, y


def _shape(kind: int, size: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of a shape that fills its box, (size, size)."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    if kind == 0:
        return np.asarray((x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25)
    return np.ones((size, size), bool) if kind == 1 else np.asarray(np.abs(x - 0.5) <= y / 2)
