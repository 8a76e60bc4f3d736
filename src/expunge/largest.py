"""Largest: which entries of a tensor are largest, exactly as many as asked for, the first ones among equals.

A float without its sign bit, read as an integer, sorts by magnitude. Integers are what NumPy's vectorised selection is
fastest on: of 2.4 million entries the largest 1 % are found about 15 times faster than by `torch.topk`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.errors import ExpungeError

Integers = npt.NDArray[Any]

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of the same size in bytes
_ALL_BUT_SIGN = {2: (1 << 15) - 1, 4: (1 << 31) - 1, 8: (1 << 63) - 1}
_LARGE = 1 << 16  # entries from which a sample pays
_BLOCK = 1 << 15  # entries that stay in a core's cache while they are compared


def check_keep(keep: float) -> None:
    """Raise an `ExpungeError` unless `keep`, a share of entries, is a number above 0 and up to 1."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise ExpungeError(
            f"keep must be above 0 and at most 1, the share of each tensor's entries that is kept; got {keep!r}."
        )


def largest(x_n: Tensor, keep: float) -> Tensor:
    """Sorted positions (k,) of the k entries of largest magnitude in the flattened tensor, on its device.

    Args:
        x_n: real floating point, any shape; n entries.
        keep: the share of entries to keep, above 0 and up to 1; k = max(1, round(keep * n)).

    Zeros are never kept, so there are fewer where x has fewer others; with `keep` 1 every position is kept, zeros
    too. Among equal magnitudes the lowest positions are kept. NaN counts as larger than any number.

    Raises:
        ExpungeError: `keep` outside (0, 1], or a tensor that is not of 16, 32 or 64 bit floats.

    Cost: one pass and a selection: on one core about 0.02 ms and 1 to 4 ns for each entry.

    Source: Top_k of partial amnesiac unlearning, Gogineni and Nadimi, 2024; ties as in a stable sort.
    """
    check_keep(keep)
    if not x_n.is_floating_point() or x_n.element_size() not in _INTEGER:
        raise ExpungeError(f"Only updates of 16, 32 or 64 bit floats can be pruned; got {x_n.dtype}.")
    flat = x_n.detach().reshape(-1)
    n = flat.numel()
    if keep == 1 or n == 0:
        return torch.arange(n, device=flat.device)
    bits = flat.view(_INTEGER[flat.element_size()])
    if flat.device.type == "cpu":
        return torch.from_numpy(_largest_numpy(bits.numpy(), count(n, keep)))
    return _largest_torch(bits, count(n, keep))


def largest_array(x_n: npt.NDArray[np.floating[Any]], keep: float) -> Integers:
    """`largest` for a flat array, without its checks: a tenth of a millisecond less where tensors are small."""
    if keep == 1 or not len(x_n):
        return np.arange(len(x_n))
    return _largest_numpy(x_n.view(f"i{x_n.itemsize}"), count(len(x_n), keep))


def count(n: int, keep: float) -> int:
    """How many of n entries a share is, 1 at least."""
    return max(1, round(keep * n))


def top(value_n: Tensor, many: int) -> Tensor:
    """A boolean vector with exactly `many` True: the largest values (signed), the first ones among equals."""
    if many < 1:
        return torch.zeros_like(value_n, dtype=torch.bool)
    threshold = value_n.kthvalue(len(value_n) - many + 1).values
    chosen = value_n > threshold
    ties = (value_n == threshold).nonzero().flatten()
    chosen[ties[: many - int(chosen.sum())]] = True
    return chosen


def _largest_torch(bits: Tensor, k: int) -> Tensor:
    sizes = bits & _ALL_BUT_SIGN[bits.element_size()]
    limit = torch.topk(sizes, k, sorted=False).values.min().clamp(min=1)
    above, equal = sizes > limit, sizes == limit
    allowed = k - above.sum()
    return (above | (equal & (equal.cumsum(0) <= allowed))).nonzero().squeeze(1)


def _largest_numpy(bits: Integers, k: int) -> Integers:
    if len(bits) >= _LARGE:
        candidates, sizes = _at_least(bits, _lower_bound(bits, k))
        if len(candidates) >= k:
            return candidates[_first_largest(sizes, k)]
    return _first_largest(bits & _ALL_BUT_SIGN[bits.itemsize], k)


def _lower_bound(bits: Integers, k: int) -> int:
    """A limit that, by a sample, somewhat more than k entries reach: three standard deviations of a draw of its size.

    It only has to be right most of the time: when fewer than k entries reach it, all are sorted through.
    """
    step = max(1, len(bits) // (1 << 13)) | 1  # odd, so that it meets every cell of a 2x2 or 4x4 kernel
    sample = bits[::step] & _ALL_BUT_SIGN[bits.itemsize]
    expected = k * len(sample) / len(bits)
    rank = min(len(sample), int(expected + 3 * expected**0.5 + 3))
    sample.partition(len(sample) - rank)
    return int(sample[len(sample) - rank])


def _at_least(bits: Integers, limit: int) -> tuple[Integers, Integers]:
    """Positions and magnitudes of the entries that reach a limit, block by block."""
    found, sizes = [], []
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK] & _ALL_BUT_SIGN[bits.itemsize]
        (here,) = (block >= limit).nonzero()
        sizes.append(block[here])
        here += start
        found.append(here)
    return np.concatenate(found), np.concatenate(sizes)


def _first_largest(sizes: Integers, k: int) -> Integers:
    """Positions of the k largest, the first among equals; fewer where there are fewer above zero."""
    ordered = sizes.copy()
    ordered.partition(len(sizes) - k)
    limit = max(1, int(ordered[len(sizes) - k]))
    (chosen,) = (sizes >= limit).nonzero()
    if len(chosen) > k:  # more equals than there is room for
        kept = sizes[chosen]
        equal = kept == limit
        equal[equal.nonzero()[0][: k - int((~equal).sum())]] = False
        chosen = chosen[~equal]
    return chosen
