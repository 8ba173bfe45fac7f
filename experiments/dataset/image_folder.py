"""A folder of images by class, decoded by Pillow to 8 bits per channel."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.decoding import BrokenFileError, Decoded, Decoder, Form
from experiments.dataset.folder import KEY, Folder
from experiments.system.errors import UserError, first_line
from experiments.system.options import OPTION

Fit = Literal["stretch", "crop", "pad"]
Bytes = npt.NDArray[np.uint8]
AHEAD = 2000  # files; smaller folders are decoded before anything is run


@option(frozen=True, config=OPTION, kw_only=True)
class ImageFolder(Folder):
    """Images (height, width, 1 or 3) uint8; resized as Keras' image_dataset_from_directory does."""

    suffixes: ClassVar[tuple[str, ...]] = (
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
    )
    kind: ClassVar[str] = "images"
    shaped_by: ClassVar[str] = "Type dataset.size=[HEIGHT,WIDTH] and dataset.color=grey or dataset.color=rgb."

    size: tuple[PositiveInt, PositiveInt] | None = None  # height, width; null: that of all images
    color: Literal["auto", "grey", "rgb"] = "auto"
    fit: Fit = "stretch"  # how images of another shape are brought to the size

    def check_for_new_model(self) -> None:
        """Check the classes, and all images of a small folder."""
        super().check_for_new_model()
        if sum(len(files.paths) for files in self.listed()) <= AHEAD:
            self.read()

    def preprocessing(self, found: Decoded) -> dict[str, Any]:
        """See Folder.preprocessing."""
        height, width, channels = found.arrays["train"].shape[1:]
        resized = {"fit": self.fit, "resize": "bilinear, without averaging"} if self.size else {}
        return {"image": {"height": height, "width": width, "color": "rgb" if channels == 3 else "grey", **resized}}

    def decoder(self, paths: Sequence[Path]) -> Decoder:
        """See Folder.decoder; images require one size and one colour mode, unless both are set."""
        from PIL import __version__

        channels = {"grey": 1, "rgb": 3}.get(self.color)
        if self.size is None or channels is None:
            found = [header for path in paths if (header := _header(path))]
            height, width = self.size or self._common([header[0] for header in found], paths)
            channels = channels or self._channels([header[1] for header in found])
        else:
            height, width = self.size
        settings = {"pillow": __version__, "fit": self.fit, "color": channels, "size": self.size}
        form = Form((height, width, channels), "uint8")
        return Decoder(form, partial(_decode, size=(height, width), channels=channels, fit=self.fit), settings)

    def _common(self, sizes: Sequence[tuple[int, int]], paths: Sequence[Path]) -> tuple[int, int]:
        counts = Counter(sizes)
        if not counts:
            raise UserError(f"{KEY}={self.path}: none of {len(paths)} images can be read, such as {paths[0]}.")
        (common, _), *others = counts.most_common()
        if others:
            listed = ", ".join(f"{h} x {w} ({count})" for (h, w), count in counts.most_common(5))
            raise UserError(
                f"{KEY}={self.path}: has images of {len(counts)} sizes (height x width): {listed}"
                f"{', ...' if len(counts) > 5 else ''}. A model requires one. To resize them: "
                f"dataset.size=[{common[0]},{common[1]}]"
            )
        return common

    def _channels(self, modes: Sequence[str]) -> int:
        counts = Counter("grey" if mode in GREY else "rgb" for mode in modes)
        if len(counts) > 1:
            raise UserError(
                f"{KEY}={self.path}: has {counts['grey']} grey images and {counts['rgb']} in colour. A model requires "
                "one kind. To convert them: dataset.color=rgb or dataset.color=grey"
            )
        return 1 if "grey" in counts else 3


GREY = ("1", "L", "LA", "La")
ORIENTATION = 0x0112  # the number of this tag in EXIF
DEEP = ("I", "F")  # the first letters of modes with more than 8 bits


def _header(path: Path) -> tuple[tuple[int, int], str] | None:
    """Return (height, width) and Pillow's mode of an image; None if it cannot be read, which decoding reports."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return (image.height, image.width), image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _decode(path: Path, size: tuple[int, int], channels: int, fit: Fit) -> tuple[Bytes, Sequence[str]]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(DEEP):
                raise BrokenFileError(f"has more than 8 bits per channel, mode {image.mode}; use dataset=npz")
            remarks = ["have several frames, of which the first is used"] if _is_animated(image) else []
            plain = image.convert("L" if channels == 1 else "RGB")
            if image.getexif().get(ORIENTATION, 1) not in (0, 1):
                remarks.append("have an orientation in EXIF, which is not applied, as Keras does not")
            pixels = np.asarray(plain, np.uint8).reshape(plain.height, plain.width, channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenFileError("not an image" if "cannot identify" in str(error) else first_line(error)) from error
    return resized(pixels, size, fit), remarks


def _is_animated(image: Any) -> bool:
    """Whether an image has several frames; the previews in a JPEG file are none."""
    return image.format != "MPO" and getattr(image, "is_animated", False)


def resized(image: Bytes, size: tuple[int, int], fit: Fit) -> Bytes:
    """Return an image (height, width, channels) in another size: tf.image.resize, bilinear, rounded.

    As in keras.utils.image_dataset_from_directory, `crop` first cuts the largest centered window of the target's
    aspect ratio, `pad` adds black borders of (almost, if their sum is odd) equal width, and `stretch` changes the
    aspect ratio.
    """
    if image.shape[:2] == size:
        return image
    if fit == "crop":
        height, width = (min(have, other) for have, other in zip(image.shape, _same_aspect(image, size), strict=False))
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        image = image[top : top + height, left : left + width]
    elif fit == "pad":
        height, width = (max(have, other) for have, other in zip(image.shape, _same_aspect(image, size), strict=False))
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        borders = ((top, height - image.shape[0] - top), (left, width - image.shape[1] - left), (0, 0))
        image = np.pad(image, borders)
    return np.rint(_along(_along(image.astype(np.float32), size[1], 1), size[0], 0)).astype(np.uint8)


def _same_aspect(image: Bytes, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height that suits the image's width, and the width that suits its height."""
    return int(image.shape[1] * size[0] / size[1]), int(image.shape[0] * size[1] / size[0])


def _along(image: npt.NDArray[np.float32], length: int, axis: int) -> npt.NDArray[np.float32]:
    """Interpolate linearly along an axis; pixels are at half-integers, and none is averaged when an image shrinks."""
    have = image.shape[axis]
    at = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(have / length) - np.float32(0.5)
    below = np.floor(at)
    weight = (at - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    lower, upper = (np.clip(place, 0, have - 1).astype(np.int64) for place in (below, below + 1))
    first = np.take(image, lower, axis)
    return np.asarray(first + (np.take(image, upper, axis) - first) * weight, np.float32)
