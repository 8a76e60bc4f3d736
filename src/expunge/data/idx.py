"""A folder with the four IDX files of MNIST and of the sets that share its format, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from expunge.data.pair import pair
from expunge.data.rows import Rows
from expunge.errors import ExpungeError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def is_idx(folder: Path) -> bool:
    """Whether the folder holds at least one of the files, so that it is meant to be read as IDX."""
    return any(_find(folder, file) for file in FILES)


def read(folder: Path) -> tuple[Rows, Rows]:
    """Training and test rows; ids are the positions in the files, classes the labels as text.

    Raises:
        ExpungeError: files missing, cut short, or not unsigned bytes in IDX format.
    """
    paths = [_find(folder, file) for file in FILES]
    missing = [file for file, path in zip(FILES, paths) if path is None]
    if missing:
        raise ExpungeError(f"{folder} lacks {', '.join(missing)} (with .gz or without).")
    x_train, y_train, x_test, y_test = (array(path) for path in paths if path is not None)
    return pair(folder.resolve().name, (x_train, y_train), (x_test, y_test))


def array(path: Path) -> np.ndarray:
    """The uint8 array of one IDX file: two zero bytes, a type, the number of axes, their sizes, the values.

    Source: the format note on the MNIST page (LeCun, Cortes, Burges).

    Raises:
        ExpungeError: another magic number, or more or fewer bytes than the sizes say.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as problem:
        raise ExpungeError(f"{path} cannot be read: {problem}") from problem
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ExpungeError(
            f"{path} starts with {content[:4].hex(' ')}; IDX files of unsigned bytes start with 00 00 08."
        )
    start = 4 + 4 * content[3]
    shape: tuple[int, ...] = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ExpungeError(
            f"{path} says it has shape {shape}, {math.prod(shape):,} bytes, "
            f"but holds {len(content) - start:,}; it was cut short or altered."
        )
    values: np.ndarray = np.frombuffer(content, np.uint8, offset=start).copy()
    return values.reshape(shape)


def _find(folder: Path, file: str) -> Path | None:
    for name in (file, file.replace("-idx", ".idx")):  # some unpackers write a dot
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None
