"""NAME.npz with x_train, y_train, x_test, y_test; x_val and y_val, where there, are left alone."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from expunge.data.classes import described, stem
from expunge.data.layout import EXPECTED
from expunge.data.pair import pair
from expunge.data.rows import Rows
from expunge.errors import ExpungeError

KEYS = ("x_train", "y_train", "x_test", "y_test")
BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def read(path: Path) -> tuple[Rows, Rows]:
    """Training and test rows; ids are the positions in the file's arrays.

    Raises:
        ExpungeError: not such a file, arrays missing or of wrong shape or dtype, NaN, labels out of range.
    """
    found = headers(path)
    listing = ", ".join(f"{key} {dtype} {shape}" for key, (shape, dtype) in found.items()) or "nothing"
    expected = f"Expected {', '.join(KEYS)}, x as {EXPECTED}, y as integers (N,). Found {listing}."
    problems = [f"{key} is missing." for key in KEYS if key not in found]
    problems += [f"{key} holds Python objects." for key, (_, dtype) in found.items() if dtype.hasobject]
    if not problems:
        for part in ("train", "test"):
            x, y = found[f"x_{part}"][0], found[f"y_{part}"][0]
            if len(y) != 1 or x[:1] != y:
                problems.append(f"x_{part} and y_{part} must be (N, ...) and (N,), but are {x} and {y}.")
    if problems:
        raise ExpungeError(f"{path}: {' '.join(problems)} {expected}")
    try:
        with np.load(path, allow_pickle=False) as file:
            x_train, y_train, x_test, y_test = (file[key] for key in KEYS)
    except BROKEN as problem:
        raise ExpungeError(f"{path} is damaged: {problem}") from problem
    return pair(stem(path), (x_train, y_train), (x_test, y_test), classes=described(path)[0])


def headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each array in the file; reads a few hundred bytes of each, not the arrays.

    Raises:
        ExpungeError: not an npz file.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read_header = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read_header(file)
                    found[member.removesuffix(".npy")] = (tuple(shape), dtype)
    except BROKEN as problem:
        raise ExpungeError(f"{path} is not a readable npz file: {problem}") from problem
    return found
