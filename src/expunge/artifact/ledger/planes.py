"""Planes: byte i of every value side by side, Huffman coded where that pays.

The byte of sign and exponent has few different values, and so has the lowest of a float32 update, since the difference
of two weights is a multiple of their last bit. The others are noise, and stay as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.artifact.ledger.faster import faster
from expunge.errors import ExpungeError

_SAMPLE = 1024  # values by which it is judged whether a plane can be compressed
_WORTH = 0.9  # compressed only when a sample shrinks at least to this


def pack(values: npt.NDArray[Any]) -> tuple[int, list[bytes]]:
    """The planes of (k, bytes) values, with a bit for each that says whether it is compressed.

    Cost: 1 ns for each byte, and 10 for each that is compressed, while other threads run.
    """
    compressed, planes = 0, []
    for i in range(values.shape[1]):
        plane = values[:, i].tobytes()
        step = len(plane) // _SAMPLE
        if step < 2 or len(_deflated(sample := plane[::step])) < _WORTH * len(sample):
            shorter = _deflated(plane)
            if len(shorter) + 2 < len(plane):  # its length is written down as well
                plane, compressed = shorter, compressed | 1 << i
        planes.append(plane)
    return compressed, planes


def unpack(compressed: int, planes: Sequence[bytes], count: int) -> npt.NDArray[Any]:
    """The values (count, bytes) that `pack` took apart.

    Raises:
        ExpungeError: planes that do not hold `count` bytes each; told before memory is taken for them.

    Cost: 1 ns for each byte, and 5 for each that was compressed; 2 where the extra `ledger` is installed.
    """
    for i, plane in enumerate(planes):
        # A Huffman code has at least one bit for each byte.
        if count > 8 * len(plane) if compressed >> i & 1 else count != len(plane):
            raise ExpungeError("its values are not as many as it says")
    values = np.empty((count, len(planes)), np.uint8)
    for i, plane in enumerate(planes):
        values[:, i] = np.frombuffer(_inflated(plane, count) if compressed >> i & 1 else plane, np.uint8)
    return values


def _deflated(plane: bytes) -> bytes:
    """Huffman coded; no repetitions are sought, as there are none."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return stream.compress(plane) + stream.flush()


def _inflated(plane: bytes, count: int) -> bytes:
    stream = faster.decompressobj(-zlib.MAX_WBITS)
    try:
        found: bytes = stream.decompress(plane, count + 1)
    except faster.error as error:
        raise ExpungeError(f"a compressed plane cannot be read ({error})") from None
    if len(found) != count or not stream.eof or stream.unused_data:
        raise ExpungeError("its values are not as many as it says")
    return found
