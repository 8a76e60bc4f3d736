"""Announced: whether `uses` was called for every batch that went into a step, as far as a ledger can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def about(batches: int, accumulate: int) -> dict[str, int]:
    """What is written down of a step: nothing, unless fewer batches announced it than may go into one."""
    return {"batches": batches, "accumulate": accumulate} if batches < accumulate else {}


def count(abouts: Sequence[Mapping[str, Any]]) -> int:
    """How many steps fewer batches announced, two or more in a row; one alone may be the last of an epoch.

    Args:
        abouts: of all steps, first to last.
    """
    few = [False, *("batches" in step for step in abouts), False]
    return sum(one and (before or after) for before, one, after in zip(few, few[1:], few[2:]))


def sentence(short: int, total: int) -> str:
    """What it means that so many of all steps were announced by fewer batches."""
    return (
        f"{short:,} of {total:,} steps, two or more in a row, were announced by fewer batches than may go into one "
        "(accumulate). Unless so few went into them, rows are missing in the ledger, and taking those back would be "
        "incomplete."
    )
