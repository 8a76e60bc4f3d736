"""Codec: one ledger record, the kept entries of several tensors, as bytes and back.

Layout, all numbers little-endian, `v` a number in 7 bits a byte:

    version (1 byte), values (1 byte: the codec, and whether sizes and counts are listed), parts (v),
    sizes (v each, unless the reader knows them),
    counts (v each, or one: that of the largest part, when the others hold the same share of their entries),
    planes (1 byte: which are compressed), their lengths (v each), planes, positions (see `indices`)

Plane i holds byte i of every value of every part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.artifact.ledger import indices, planes
from expunge.errors import ExpungeError, UnknownName

Array = npt.NDArray[Any]

CODECS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
# The order is part of the format.
_VERSION = 1
_COUNTS, _SIZES = 0x80, 0x40  # they are listed


@dataclass
class Part:
    """The kept entries of one tensor.

    Args:
        size: entries of the tensor.
        positions: where the values belong, int64 and strictly rising; none: all entries are kept.
        values: float32, or float64 for the codec of that name.
    """

    size: int
    positions: Array | None
    values: Array


def rounded(values_n: Array, codec: str) -> Array:
    """The values as they will be read back, float32 (float64 for `"float64"`): to the nearest, ties to even.

    Args:
        values_n: of any float type.
        codec: `"float32"`, `"float16"` (3 digits; steps of 6e-8 below 6e-5, so small updates lose digits),
            `"bfloat16"` (2 to 3 digits at any magnitude) or `"float64"`.

    Raises:
        ExpungeError: an unknown codec, or a finite value beyond the codec's largest (65,504 for float16).
    """
    return _wide(_bytes(_stored(values_n, codec)), codec)


def encode(parts: Sequence[Part], values: str, with_sizes: bool = True) -> bytes:
    """One record.

    Args:
        parts: one for each tensor, in an order that the reader knows.
        values: the codec of all values, to which they are rounded here; see `rounded`.
        with_sizes: whether the record says how large the tensors are. Default yes; without, it is a little shorter
            (1 to 3 bytes for each part) and the reader has to know.

    Raises:
        ExpungeError: as `rounded`; positions that do not rise, lie outside, or are not as many as the values.

    Cost: about 0.1 ms, and 20 to 60 ns for each value; mostly in calls that let other threads run.
    """
    for part in parts:
        _check(part)
    sizes, counts = [part.size for part in parts], [len(part.values) for part in parts]
    stored = _stored(np.concatenate([part.values for part in parts]) if parts else np.zeros(0, np.float32), values)
    compressed, bytes_of = planes.pack(_bytes(stored))
    lengths = [len(plane) for i, plane in enumerate(bytes_of) if compressed >> i & 1]
    some = [(part.size, part.positions) for part in parts if part.positions is not None]
    some = [(n, positions) for n, positions in some if 0 < len(positions) < n]
    index = indices.pack([n for n, _ in some], [positions for _, positions in some])
    head = _pack_head(sizes, counts, values, with_sizes)
    return b"".join([head, bytes([compressed]), *map(_number, lengths), *bytes_of, index])


def decode(payload: bytes, sizes: Sequence[int] | None = None) -> list[Part]:
    """The parts of a record; a part whose every entry was kept comes without positions.

    Args:
        payload: what `encode` made.
        sizes: of the tensors, where the record does not say; where it does, they are compared.

    Raises:
        ExpungeError: a payload that is cut off, altered, of other tensors or of another version. An
            altered value cannot be told from a true one; the file that holds records needs checksums.

    Cost: memory of at most some 100 times the payload, whatever its bytes say; 10 to 40 ns for each value.
    """
    try:
        found, counts, codec, at = _unpack_head(payload, sizes)
        values, at = _unpack_values(payload, at, sum(counts), codec)
        some = [i for i, k in enumerate(counts) if 0 < k < found[i]]
        index = indices.unpack([found[i] for i in some], [counts[i] for i in some], memoryview(payload)[at:])
    except (ExpungeError, IndexError) as error:
        raise ExpungeError(
            f"A record of the ledger, {len(payload)} bytes long, is damaged: {error}. Use a copy of the ledger."
        ) from error
    positions: dict[int, Array] = dict(zip(some, index))
    ends = np.cumsum(counts)
    return [
        Part(n, None if k == n else positions.get(i, np.zeros(0, np.int64)), values[end - k : end])
        for i, (n, k, end) in enumerate(zip(found, counts, ends.tolist()))
    ]


def _check(part: Part) -> None:
    held = part.size if part.positions is None else len(part.positions)
    if part.values.shape != (held,) or not held <= part.size <= indices.LARGEST:
        raise ExpungeError(
            f"A part of {part.size} entries with {held} positions has values of shape {part.values.shape}; "
            f"expected ({held},), and not more positions than entries."
        )
    if part.positions is not None and held == part.size and not np.array_equal(part.positions, np.arange(held)):
        raise ExpungeError(f"A part of {held} entries and positions must hold each position once, in order.")


def _stored(values_n: Array, codec: str) -> Tensor:
    if codec not in CODECS:
        raise UnknownName("codec of values", codec, CODECS)
    given = torch.from_numpy(np.require(values_n, requirements=["C", "W"]))
    stored = given.to(CODECS[codec])
    if stored.dtype != given.dtype and (beyond := stored.isinf() & given.isfinite()).any():
        raise ExpungeError(
            f"An update of {given[beyond][0].item():.3g} is beyond the range of {codec}, up to "
            f"{torch.finfo(stored.dtype).max:.3g}. Store float32 values, or lower the learning rate."
        )
    return stored


def _bytes(stored_n: Tensor) -> Array:
    """The bytes of each value, (n, bytes), the lowest first."""
    found: Array = stored_n.unsqueeze(1).view(torch.uint8).numpy()
    return found


def _wide(bytes_nb: Array, codec: str) -> Array:
    """The values of these bytes, float32, or float64 for the codec of that name."""
    if codec == "bfloat16":  # the upper half of a float32
        return (bytes_nb.view("<u2").reshape(-1).astype(np.uint32) << 16).view(np.float32)
    values = bytes_nb.view(f"<f{bytes_nb.shape[1]}").reshape(-1)
    return values.astype(np.float32) if codec == "float16" else values


def _pack_head(sizes: Sequence[int], counts: Sequence[int], codec: str, with_sizes: bool) -> bytes:
    largest = max(sizes, default=0)
    like = counts[sizes.index(largest)] if sizes else 0
    listed = any(k != _share(n, like, largest) for n, k in zip(sizes, counts))
    codes = list(CODECS).index(codec) | (_COUNTS if listed else 0) | (_SIZES if with_sizes else 0)
    numbers = [len(sizes), *(sizes if with_sizes else []), *(counts if listed else [like])]
    return bytes([_VERSION, codes]) + b"".join(map(_number, numbers))


def _unpack_head(payload: bytes, known: Sequence[int] | None) -> tuple[list[int], list[int], str, int]:
    if payload[0] != _VERSION:
        raise ExpungeError(f"it is of version {payload[0]}, and this program reads version {_VERSION}")
    number = payload[1] & ~(_COUNTS | _SIZES)
    if number >= len(CODECS):
        raise ExpungeError(f"its codec {number} is unknown")
    parts, at = _read(payload, 2)
    sizes = list(known or ())
    if payload[1] & _SIZES:
        sizes, at = _read_all(payload, at, parts)
    if len(sizes) != parts or (known is not None and sizes != list(known)):
        raise ExpungeError(f"it has {parts} parts, which are not of the sizes of the {len(known or ())} tensors given")
    counts, at = _read_all(payload, at, parts if payload[1] & _COUNTS else 1)
    if not payload[1] & _COUNTS:
        largest = max(sizes, default=0)
        counts = [_share(n, counts[0], largest) for n in sizes]
    if any(k > n or n > indices.LARGEST for n, k in zip(sizes, counts)):
        raise ExpungeError("a part has more values than entries, or a tensor is too large to be true")
    return sizes, counts, list(CODECS)[number], at


def _share(size: int, count: int, largest: int) -> int:
    """The count of a tensor of this size when the largest has `count` and all hold the same share."""
    return min(size, max(1, (2 * size * count + largest) // (2 * largest))) if count else 0


def _unpack_values(payload: bytes, at: int, count: int, codec: str) -> tuple[Array, int]:
    compressed, at, width = payload[at], at + 1, CODECS[codec].itemsize
    if compressed >> width:
        raise ExpungeError("it has more planes than a value has bytes")
    lengths, at = _read_all(payload, at, compressed.bit_count())
    parts = []
    for i in range(width):
        length = lengths.pop(0) if compressed >> i & 1 else count
        parts.append(payload[at : at + length])
        at += length
    return _wide(planes.unpack(compressed, parts, count), codec), at


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _read(payload: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while payload[at] > 0x7F and shift < 56:
        value |= (payload[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | (payload[at] & 0x7F) << shift, at + 1


def _read_all(payload: bytes, at: int, many: int) -> tuple[list[int], int]:
    if many > len(payload) - at:
        raise ExpungeError("it is cut off")
    values = [0] * many
    for i in range(many):
        values[i], at = _read(payload, at)
    return values, at
