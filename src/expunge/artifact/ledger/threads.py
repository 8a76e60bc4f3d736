"""Threads: records are taken apart side by side, while those before them are being used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

MOST = 4  # whoever adds up keeps pace with no more, and each holds a record


def side_by_side(work: Callable[[Given], Made], items: Iterable[Given], threads: int | None = None) -> Iterator[Made]:
    """What `work` makes of each item, in order, a few items ahead of whoever asks.

    Args:
        work: called in other threads; should spend its time where Python's lock is free.
        items: taken in the caller's thread, at most `threads` ahead.
        threads: 1 or more. Default: the cores of this machine, at most 4.

    Raises:
        whatever `work` raises, in place of its item; whatever `items` raise, at once.
    """
    threads = threads or min(MOST, os.cpu_count() or 1)
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ledger") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever asks has seen enough
            for future in waiting:
                future.cancel()
