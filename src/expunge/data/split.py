"""Parts of the data in which every class keeps its share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.errors import ExpungeError

TEST_SHARE = 0.2  # the customary 80/20


def stratified(y: Any, size: int, seed: int = 0) -> Tensor:
    """The positions, (size,) int64 and rising, of a random part in which every class keeps its share.

    Each class gets `size * its rows / all rows`, rounded by largest remainder (ties: the lower label), and at
    least one row where `size` allows it.

    Args:
        y: labels, (N,), integers.
        size: how many positions, 1..N.
        seed: of the draw, 0..2**32 - 1.

    Raises:
        ExpungeError: `size` not in 1..N, or `seed` out of range.
    """
    y_N = np.asarray(y)
    if not 1 <= size <= len(y_N):
        raise ExpungeError(f"A part of {len(y_N)} rows must have 1..{len(y_N)} rows; {size} were asked for.")
    check_seed(seed)
    labels, counts = np.unique(y_N, return_counts=True)
    # NumPy promises never to change the stream of RandomState, so a split means the same rows in ten years.
    random = np.random.RandomState(seed)
    parts = [
        random.permutation(np.flatnonzero(y_N == label))[:k] for label, k in zip(labels, shares(counts.tolist(), size))
    ]
    return torch.from_numpy(np.sort(np.concatenate(parts)).astype(np.int64))


def check_seed(seed: object) -> None:
    """Refuse what is no seed of a draw.

    Raises:
        ExpungeError: anything but an integer in 0..2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ExpungeError(f"A seed must be an integer in 0..2**32 - 1; got {seed!r}.")


def shares(counts: list[int], size: int) -> list[int]:
    """How many of `size` rows each class gets: largest remainder, at least one where possible."""
    total = sum(counts)
    given = [size * c // total for c in counts]
    remainder = [size * c % total for c in counts]
    for i in sorted(range(len(counts)), key=lambda i: -remainder[i])[: size - sum(given)]:
        given[i] += 1
    if size >= len(counts):
        for i in range(len(counts)):
            if given[i] == 0:
                given[given.index(max(given))] -= 1
                given[i] = 1
    return given


def train_test(y: Any, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions of four fifths for training and of the rest for testing, both stratified and rising.

    Args:
        y: labels, (N,), integers.
        seed: of the draw.

    Raises:
        ExpungeError: fewer than two rows.
    """
    n = len(y)
    if n < 2:
        raise ExpungeError(f"{n} rows cannot be split into training and test rows; at least 2 are needed.")
    train = stratified(y, min(n - 1, max(1, n - round(n * TEST_SHARE))), seed)
    rest = torch.ones(n, dtype=torch.bool)
    rest[train] = False
    return train, rest.nonzero().flatten()
