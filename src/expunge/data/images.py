"""Pillow images into one uint8 array; the only place that knows Pillow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import ExpungeError, MissingExtra

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def opened(paths: Iterable[Path]) -> Iterable[tuple[str, Any]]:
    """Name and Pillow image of each file, one at a time.

    Raises:
        MissingExtra: Pillow is not installed.
        ExpungeError: a file that Pillow cannot read.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Pillow", "vision", "Reading images") from None
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
                yield str(path), image
        except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
            raise ExpungeError(f"{path} cannot be read as an image: {problem}") from problem


def stack(images: Iterable[tuple[str, Any]]) -> np.ndarray:
    """The images as uint8, (N, H, W, 1) when all are gray, otherwise (N, H, W, 3); alpha is dropped.

    Args:
        images: name (for errors) and Pillow image.

    Raises:
        ExpungeError: no images, images of two sizes (both are named), or more than eight bits a channel.
    """
    arrays: list[np.ndarray] = []
    first = ("", (0, 0))
    for name, image in images:
        if not arrays:
            first = (name, image.size)
        if image.size != first[1]:
            raise ExpungeError(
                f"All images must have one size; {first[0]} is {first[1][0]}x{first[1][1]}, "
                f"{name} is {image.size[0]}x{image.size[1]}. Resize them first."
            )
        arrays.append(pixels(image, name))
    if not arrays:
        raise ExpungeError("There are no images to read.")
    channels = max(a.shape[-1] for a in arrays)
    x_NHWC = np.empty((len(arrays), *arrays[0].shape[:2], channels), np.uint8)
    for i, a in enumerate(arrays):
        x_NHWC[i] = a  # a gray image among colour ones fills all three channels
    return x_NHWC


def pixels(image: Any, name: str = "an image") -> np.ndarray:
    """One Pillow image as uint8, (H, W, 1) if gray, otherwise (H, W, 3).

    Raises:
        ExpungeError: more than eight bits a channel.
    """
    if image.mode.startswith(("I", "F")):
        raise ExpungeError(f"{name} has mode {image.mode!r}, more than eight bits a channel; convert it first.")
    gray = image.mode in ("1", "L", "LA")
    a = np.asarray(image.convert("L" if gray else "RGB"))
    return a[:, :, None] if gray else a


def is_image(x: Any) -> bool:
    """Whether this is a Pillow image, without importing Pillow."""
    return hasattr(x, "convert") and hasattr(x, "getbands")
