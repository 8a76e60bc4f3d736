"""Ids of rows, and sets of their numbers in the index as a few bytes each, many of them decoded at once.

A set is stored as one byte, the width of a gap (1, 2, 4 or 8), and the gaps between its sorted numbers, the first from
0; an empty set as nothing. A batch of 128 of 50,000 rows takes 257 bytes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.data.ids import number
from expunge.errors import ExpungeError

Id = int | str
Integers = npt.NDArray[np.int64]
WIDTHS: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


def plain(ids: Iterable[Any]) -> list[Id]:
    """Ids as plain integers and strings: 7 and "7" are two ids, NumPy's and PyTorch's integers are integers.

    Raises:
        ExpungeError: other things than strings and whole numbers of 64 bits.
    """
    if isinstance(ids, (str, bytes)):
        raise ExpungeError(f"Ids are given as a list or an array; got {ids!r}.")
    listed = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind == "i":  # at every step of a training
        return list(listed)
    return [_plain(i) for i in (listed if isinstance(listed, Iterable) else [listed])]


def _plain(i: Any) -> Id:
    try:
        if isinstance(i, str):
            i.encode()
            return str(i)
        number = operator.index(i)
        if not isinstance(i, (bool, np.bool_)) and -(1 << 63) <= number < 1 << 63:
            return number
    except (TypeError, UnicodeEncodeError):
        pass
    raise ExpungeError(f"Ids of rows are strings or whole numbers of 64 bits; got {i!r}, a {type(i).__name__}.")


def spelled(ids: Iterable[Id]) -> frozenset[Id]:
    """These ids, and the whole numbers that texts among them spell."""
    listed = frozenset(ids)
    return listed | {number(i) for i in listed}


def pack(numbers: Iterable[int] | Integers) -> bytes:
    """A set of numbers, 0 or more each, as bytes; a number given twice counts once."""
    sorted_n = np.unique(np.fromiter(numbers, np.int64))
    if not len(sorted_n):
        return b""
    gaps: Integers = np.diff(sorted_n, prepend=0)
    width = next(w for w in WIDTHS if gaps.max() < 1 << 8 * w)
    return bytes([width]) + gaps.astype(WIDTHS[width]).tobytes()


def unpack(sets: Sequence[bytes]) -> tuple[Integers, Integers]:
    """All numbers of several sets and, for each number, the position of its set; sorted inside a set.

    Cost: a few operations on arrays for each width, so a million numbers take milliseconds.
    """
    numbers, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for width, dtype in WIDTHS.items():
        chosen = [i for i, data in enumerate(sets) if data and data[0] == width]
        if not chosen:
            continue
        counts = np.array([(len(sets[i]) - 1) // width for i in chosen])
        sums = np.cumsum(np.frombuffer(b"".join([sets[i][1:] for i in chosen]), dtype).astype(np.int64))
        before = np.concatenate([[0], sums[np.cumsum(counts)[:-1] - 1]])  # what earlier sets added to the sums
        numbers.append(sums - np.repeat(before, counts))
        owners.append(np.repeat(np.array(chosen), counts))
    return np.concatenate(numbers), np.concatenate(owners)
