"""Memory: what one step of a network frees, the next step can use again.

A step frees its activations, some megabytes in a few blocks. Under its usual settings the allocator of Linux hands
them back to the system each time, and every page of the next step's blocks is then fetched and zeroed anew, which takes
up to a third of the time of a small network's step.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

MIB = 2**20
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
NEVER = 2**31 - 1
# Where glibc's own adjustment ends in a process that has freed blocks of 32 MiB: DEFAULT_MMAP_THRESHOLD_MAX, and twice
# that. Setting a threshold ends the adjustment, so going back to where it starts would leave the caller slower.
ADJUSTED = {MMAP_THRESHOLD: 32 * MIB, TRIM_THRESHOLD: 64 * MIB}
SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in this process inside the block; afterwards it goes back to the system as it usually does.

    Changes the allocator's thresholds for the whole process: in between to the highest ones, afterwards to those that
    glibc itself comes to with large blocks (32 and 64 MiB). Numbers that are computed are the same. Does nothing where
    the allocator is not glibc's, or where the environment sets its thresholds.

    Cost: none; the process holds the most that it needed inside the block.
    """
    change = _mallopt()
    if change is None:
        yield
        return
    # older glibc takes at most 32 MiB
    _ = change(MMAP_THRESHOLD, 1024 * MIB) or change(MMAP_THRESHOLD, 32 * MIB)
    change(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        for threshold, value in ADJUSTED.items():
            change(threshold, value)


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    """The function that sets glibc's thresholds, 1 when it did; none where there is no such allocator to change."""
    if any(os.environ.get(name) for name in SET_BY_USER):
        return None
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
        function = ctypes.CDLL(None).mallopt
    except (AttributeError, ValueError, OSError):  # Windows; macOS and musl; a glibc that cannot be opened
        return None
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return function
