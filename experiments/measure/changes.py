"""Test images whose prediction differs from the float model's, reduced for a report."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.dataset import ImageRows, Images

EACH = 12  # of those that became wrong, and of those that became correct
LONGEST = 96  # of an edge; larger images are subsampled

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Changed:
    """Indices (n,) in the test split, first those that became wrong; and the images (n, height, width, 1 or 3) uint8.

    There are no images if the data are not images.
    """

    places: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]


def changed_images(images: ImageRows, truth: Labels, before: Labels, after: Labels) -> Changed:
    """Return the first images that quantization made wrong, and the first that it made correct."""
    lost = np.flatnonzero((before == truth) & (after != truth))[:EACH]
    gained = np.flatnonzero((before != truth) & (after == truth))[:EACH]
    places = np.concatenate([lost, gained])
    return Changed(places, _to_bytes(images[places]))


def _to_bytes(images: Images) -> npt.NDArray[np.uint8]:
    """Convert values in 0..1 to 0..255; other ranges are stretched to it."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        return np.empty((0, 0, 0, 1), np.uint8)
    step = -(-max(images.shape[1:3]) // LONGEST)
    small = images[:, ::step, ::step]
    low, high = (float(small.min()), float(small.max())) if small.size else (0.0, 1.0)
    if low < 0 or high > 1:
        small = (small - low) / (high - low)
    return np.asarray(np.round(small * 255), np.uint8)
