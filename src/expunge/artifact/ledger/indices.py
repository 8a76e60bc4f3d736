"""Indices: sorted positions in a few bits each.

A position is stored as the gap to the one before it, and a gap in two pieces (Golomb-Rice): its low `width` bits as
they are, and the rest in unary, as so many zeros before a one. `width` follows from the size and the count alone. Where
every third entry or more is kept it is 0, and the unary bits are the bitmap of what is kept. A random set takes
about 3 % more than log2 C(size, count) bits, and no set more than (width + 3) bits for each index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.errors import ExpungeError

Integers = npt.NDArray[Any]
LARGEST = 1 << 40  # entries of a tensor


def pack(sizes: Sequence[int], positions: Sequence[Integers]) -> bytes:
    """The positions kept in each of several tensors, as one string of bytes.

    Args:
        sizes: entries of each tensor.
        positions: for each tensor at least one position, strictly rising, from 0 to below its size.

    Raises:
        ExpungeError: positions that are not so.

    Cost: a few passes over the positions; 20 to 40 ns for each.
    """
    if not sizes:
        return b""
    order, counts, widths = _layout(sizes, [len(p) for p in positions])
    flat = np.concatenate([positions[i] for i in order])
    first = np.cumsum(counts) - counts
    gaps = np.empty(len(flat), np.int64)
    np.subtract(flat[1:], flat[:-1], out=gaps[1:])
    gaps -= 1
    gaps[first] = flat[first]
    if gaps.min() < 0 or (flat[first + counts - 1] >= np.array(sizes)[order]).any():
        raise ExpungeError("Positions must rise strictly, from 0 to below the size of their tensor.")
    width = widths[0] if widths[0] == widths[-1] else np.repeat(widths, counts)
    quotients = gaps >> width
    ones = np.cumsum(quotients + 1)
    unary = np.zeros(ones[-1], np.uint8)
    unary[ones - 1] = 1
    low = _pack_bits(gaps - (quotients << width), _planes(counts, widths))
    return low + np.packbits(unary, bitorder="little").tobytes()


def unpack(sizes: Sequence[int], counts: Sequence[int], payload: memoryview) -> list[Integers]:
    """The positions that `pack` made `payload` of.

    Raises:
        ExpungeError: a payload that is not of these sizes and counts.

    Cost: memory for the counts and for 8 times the payload, whatever the payload says; 5 to 10 ns for each position.
    """
    if not sizes:
        _check(not payload)
        return []
    order, count, widths = _layout(sizes, counts)
    planes = _planes(count, widths)
    middle = (sum(planes) + 7) // 8
    _check(len(payload) - middle >= (sum(counts) + 7) // 8)
    unary = np.unpackbits(np.frombuffer(payload[middle:], np.uint8), bitorder="little")
    (ones,) = unary.view(bool).nonzero()
    _check(len(ones) == sum(counts) and len(unary) - ones[-1] <= 8)
    low = _unpack_bits(payload[:middle], planes, len(ones))
    sums = np.empty(int(count.max()), np.int64)
    found: list[Integers] = [ones] * len(order)
    start = before = 0
    for i, width, k in zip(order, widths.tolist(), count.tolist()):
        # The one of the n-th index is where n ones and the rests of its gap and those before it have come.
        places = found[i] = ones[start : start + k]
        after = int(places[-1]) + 1
        _check((after - before - k) <= sizes[i] >> width)  # before anything is shifted, so that nothing overflows
        places -= before
        if width:
            places <<= width
            lows = low[start : start + k].astype(np.int32 if width <= 30 else np.int64)
            lows[1:] -= (1 << width) - 1
            places += lows.cumsum(out=sums[:k])
        _check(int(places[-1]) < sizes[i])
        start, before = start + k, after
    return found


def _layout(sizes: Sequence[int], counts: Sequence[int]) -> tuple[list[int], Integers, Integers]:
    """The order of the tensors, widest low bits first, and their counts and widths in that order."""
    widths = [_width(n, k) for n, k in zip(sizes, counts)]
    order = sorted(range(len(sizes)), key=lambda i: -widths[i])
    return order, np.array([counts[i] for i in order]), np.array([widths[i] for i in order])


def _width(size: int, count: int) -> int:
    """The low bits of a gap: floor(log2(mean gap)), within 0.1 bit of the best choice for a random set."""
    return max(0, ((size - count) // count).bit_length() - 1)


def _planes(counts: Integers, widths: Integers) -> list[int]:
    """How many gaps have a low bit 0, 1, …; as the widest come first, these are the first so many."""
    return [int(counts[widths > bit].sum()) for bit in range(int(widths[0]))]


def _pack_bits(values: Integers, planes: Sequence[int]) -> bytes:
    bits = np.empty(sum(planes), np.uint8)
    start = 0
    for bit, count in enumerate(planes):
        np.bitwise_and(values[:count] >> bit, 1, out=bits[start : start + count], casting="unsafe")
        start += count
    return np.packbits(bits, bitorder="little").tobytes()


def _unpack_bits(payload: memoryview, planes: Sequence[int], length: int) -> Integers:
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
    values = np.zeros(length, np.uint8 if len(planes) <= 8 else np.int32 if len(planes) <= 30 else np.int64)
    start = 0
    for bit, count in enumerate(planes):
        values[:count] |= bits[start : start + count].astype(values.dtype, copy=False) << bit
        start += count
    return values


def _check(sound: bool) -> None:
    if not sound:
        raise ExpungeError("the positions do not fit the sizes and counts")
