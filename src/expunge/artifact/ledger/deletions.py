"""Deletions: which steps are taken back in which model, so that no request takes one back twice.

A model is known by the digest of its recorded weights. Each deletion leads from one digest to another, so several
methods can start from the same original, and later requests from what any of them returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from expunge.artifact.ledger.journal import Journal


def undone(journal: Journal, digest: str) -> frozenset[int] | None:
    """The steps that are taken back in the model of this digest; none (None) when no deletion returned it."""
    for deletion in reversed(journal.get("deletions", [])):
        if deletion["to"] == digest:
            return frozenset(deletion["steps"])
    return None


def note(journal: Journal, before: str, after: str, steps: Iterable[int], about: Mapping[str, Any]) -> None:
    """Write down a deletion: from which digest to which, and all steps that are taken back by now."""
    found = {"from": before, "to": after, "steps": sorted(map(int, steps)), **about}
    kept = [d for d in journal.get("deletions", []) if d["to"] != after]
    journal.put("deletions", [*kept, found])
    journal.commit()


def listed(journal: Journal) -> list[dict[str, Any]]:
    """All deletions, with the number of their steps."""
    return [{**d, "steps": len(d["steps"])} for d in journal.get("deletions", [])]
