"""Test images whose answer is not that of the float model any more, small enough to be looked at in a report."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.dataset import Images

EACH = 12  # images that were lost, and as many that were gained
LONGEST = 96  # pixels of an edge; larger images lose rows and columns

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Changed:
    """Places (n,) in the test split, those lost before those gained; and the images (n, height, width, 1 or 3) uint8.

    There are no images where the data are not pictures.
    """

    places: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]


def changed_images(images: Images, truth: Labels, before: Labels, after: Labels) -> Changed:
    """The first images that quantization has made wrong, and the first that it has made right."""
    lost = np.flatnonzero((before == truth) & (after != truth))[:EACH]
    gained = np.flatnonzero((before != truth) & (after == truth))[:EACH]
    places = np.concatenate([lost, gained])
    return Changed(places, _pictures(images[places]))


def _pictures(images: Images) -> npt.NDArray[np.uint8]:
    """Values of 0 to 1 become 0 to 255, others are stretched to that."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        return np.empty((0, 0, 0, 1), np.uint8)
    step = -(-max(images.shape[1:3]) // LONGEST)
    small = images[:, ::step, ::step]
    low, high = (float(small.min()), float(small.max())) if small.size else (0.0, 1.0)
    if low < 0 or high > 1:
        small = (small - low) / (high - low)
    return np.asarray(np.round(small * 255), np.uint8)
