"""Deletions: what is taken back in which model, so that no request takes anything back twice.

A model is known by the digest of its weights. Each deletion leads from one digest to another, so several methods can
start from the same original, and later requests from what any of them returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.artifact.ledger.ids import Id
from expunge.artifact.ledger.journal import Journal


@dataclass(frozen=True)
class Undone:
    """What is taken back in a model.

    Args:
        steps: whole steps, where these are recorded.
        rows: rows whose own shares are taken back, where these are recorded.
    """

    steps: frozenset[int] = frozenset()
    rows: frozenset[Id] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.steps or self.rows)


def undone(journal: Journal, digest: str) -> Undone | None:
    """What is taken back in the model of this digest; None when no deletion returned it."""
    for deletion in reversed(journal.get("deletions", [])):
        if deletion["to"] == digest:
            return Undone(frozenset(deletion["steps"]), frozenset(deletion["rows"]))
    return None


def note(journal: Journal, before: str, after: str, done: Undone, about: Mapping[str, Any]) -> None:
    """Write down a deletion: from which digest to which, and all that is taken back by now."""
    rows = sorted(done.rows, key=str)
    found = {"from": before, "to": after, "steps": sorted(done.steps), "rows": rows, **about}
    kept = [d for d in journal.get("deletions", []) if d["to"] != after]
    journal.put("deletions", [*kept, found])
    journal.commit()


def listed(journal: Journal) -> list[dict[str, Any]]:
    """All deletions, with the number of their steps and rows."""
    return [{**d, "steps": len(d["steps"]), "rows": len(d["rows"])} for d in journal.get("deletions", [])]


def other_rows(journal: Journal, steps: Sequence[int], done: Undone) -> list[Id]:
    """Rows whose own shares lie in the records of these steps, and are not taken back."""
    there = {i for about in journal.abouts(steps) for i in about.get("rows", [])}
    return sorted(there - done.rows, key=str)


def purge(journal: Journal, steps: Sequence[int], ids: Iterable[Id]) -> int:
    """Remove these steps' payload and these rows' ids for good, and write down what is left."""
    gone = set(ids)
    kept = [{**d, "rows": [i for i in d["rows"] if i not in gone]} for d in journal.get("deletions", [])]
    journal.put("deletions", kept)
    freed = journal.purge(steps, gone)
    told = (
        f"{freed:,} bytes of {len(steps):,} steps and the ids of {len(gone):,} rows were removed. Left: the other "
        "steps, the first weights of the training, and whatever backups and copies there are of this folder."
    )
    journal.put("purges", [*journal.get("purges", []), told])
    journal.commit()
    return freed
