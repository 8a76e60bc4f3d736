"""Deletions: what is taken back in which model, so that no request takes anything back twice.

A model is known by the digest of its weights. Each deletion leads from one digest to another, so several methods can
start from the same original, and later requests from what any of them returned.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from expunge.artifact.ledger.ids import Id
from expunge.artifact.ledger.journal import Journal
from expunge.artifact.ledger.touched import known_ids
from expunge.errors import ExpungeError

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Extent:
    """How much of an update is taken back: its largest entries up to a share of each layer, a number of times.

    Args:
        pairs: shares of each layer, and how many times entries up to there are taken back, the widest share first;
            an entry counts with the largest number among those that reach it.
    """

    pairs: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, keep: float, scale: float) -> Extent:
        """The largest entries up to a share `keep`, `scale` times."""
        return cls(((float(keep), float(scale)),))

    def __or__(self, other: Extent) -> Extent:
        """For each entry, the larger number of the two."""
        found: list[tuple[float, float]] = []
        for keep, scale in sorted({*self.pairs, *other.pairs}, reverse=True):
            if not found or scale > found[-1][1]:
                found.append((keep, scale))
        return Extent(tuple(found))

    def beyond(self, earlier: Extent) -> dict[float, float]:
        """What is left to take back after an earlier request: how many times the largest entries, for each share.

        The largest entries up to a share are among those up to a wider one, so the difference is exact.
        """
        wanted, there = (earlier | self)._layers(), earlier._layers()
        left = {keep: wanted.get(keep, 0.0) - there.get(keep, 0.0) for keep in sorted({*wanted, *there})}
        return {keep: times for keep, times in left.items() if times}

    def _layers(self) -> dict[float, float]:
        """The same as a sum: how many times the largest entries of each share are taken."""
        below = [0.0, *(scale for _, scale in self.pairs)]
        return {keep: scale - before for (keep, scale), before in zip(self.pairs, below)}


@dataclass(frozen=True)
class Undone:
    """What is taken back in a model.

    Args:
        steps: whole steps, where these are recorded, and how much of each.
        rows: rows whose own shares are taken back, where these are recorded, and how much of each.
    """

    steps: Mapping[int, Extent] = field(default_factory=dict)
    rows: Mapping[Id, Extent] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.steps or self.rows)

    def and_of(self, items: Iterable[Any], extent: Extent, own: bool) -> Undone:
        """With these steps, or rows' own shares, taken back to this extent as well."""
        there: Mapping[Any, Extent] = self.rows if own else self.steps
        both = {**there, **{i: there.get(i, Extent()) | extent for i in items}}
        return replace(self, rows=both) if own else replace(self, steps=both)


@dataclass(frozen=True)
class Lot:
    """Steps or rows of which the same is left to take back.

    Args:
        items: steps or rows.
        times: how many times the largest entries, for each share of a layer.
        again: whether an earlier request took back a part.
    """

    items: list[Any]
    times: dict[float, float]
    again: bool


def left(asked: Iterable[Item], extent: Extent, done: Mapping[Item, Extent]) -> list[Lot]:
    """What is left to take back of steps or rows, to this extent; those of which nothing is left are in no lot."""
    alike: dict[Extent, list[Item]] = {}
    for item in sorted(asked, key=str):
        alike.setdefault(done.get(item, Extent()), []).append(item)
    lots = [Lot(items, extent.beyond(earlier), bool(earlier.pairs)) for earlier, items in alike.items()]
    return [lot for lot in lots if lot.times]


def undone(journal: Journal, digest: str) -> Undone:
    """What is taken back in the model of this digest, which a deletion returned.

    Raises:
        ExpungeError: none did; with what to do where the training passed these weights.
    """
    for deletion in reversed(journal.get("deletions", [])):
        if deletion["to"] == digest:
            return Undone(_extents(deletion, "steps"), _extents(deletion, "rows"))
    for step, there in journal.get("marks", {}).items():
        if there == digest:
            raise ExpungeError(
                f"This model is where the training in {journal.folder} stood after step {step}, and the ledger goes on "
                f"to step {journal.last}. When this is the model to keep, ledger.rewind({step}) ends the ledger there, "
                "and drops the later steps and every deletion that was noted; rewind a copy of the folder if models "
                "from later steps are to be served as well."
            )
    raise ExpungeError(
        f"This model is neither the one that the training in {journal.folder} ended with, nor one that an earlier "
        "deletion with this ledger returned, so its updates cannot be taken back from it. Give that model, without "
        "further training in between; a training that was never closed has no end."
    )


def _extents(deletion: Mapping[str, Any], what: str) -> dict[Any, Extent]:
    """How much of each step or row; where only their numbers were written down, as much as the method takes."""
    if "extents" not in deletion:
        method = deletion.get("method", {})
        return dict.fromkeys(deletion[what], Extent.of(method.get("keep", 1.0), method.get("scale", 1.0)))
    return {i: Extent(tuple(map(tuple, some["pairs"]))) for some in deletion["extents"] for i in some[what]}


def note(journal: Journal, before: str, after: str, done: Undone, about: Mapping[str, Any]) -> None:
    """Write down a deletion: from which digest to which, and all that is taken back by now."""
    steps, rows = sorted(done.steps), sorted(done.rows, key=str)
    extents = [
        {
            "pairs": extent.pairs,
            "steps": [i for i in steps if done.steps[i] == extent],
            "rows": [i for i in rows if done.rows[i] == extent],
        }
        for extent in dict.fromkeys([*done.steps.values(), *done.rows.values()])
    ]
    found = {"from": before, "to": after, "steps": steps, "rows": rows, "extents": extents, **about}
    kept = [d for d in journal.get("deletions", []) if d["to"] != after]
    journal.put("deletions", [*kept, found])
    journal.commit()


def listed(journal: Journal) -> list[dict[str, Any]]:
    """All deletions, with the number of their steps and rows."""
    return [
        {**{k: v for k, v in d.items() if k != "extents"}, "steps": len(d["steps"]), "rows": len(d["rows"])}
        for d in journal.get("deletions", [])
    ]


def other_rows(journal: Journal, steps: Sequence[int], done: Undone) -> list[Id]:
    """Rows whose own shares lie in the records of these steps, and are not taken back."""
    there = {i for about in journal.abouts(steps) for i in about.get("rows", [])}
    return sorted(there - set(done.rows), key=str)


def not_taken_back(journal: Journal, ids: Sequence[Id], done: Undone, own: bool) -> list[Id]:
    """Those of these rows that took part in a step that is not taken back, or whose own shares are not."""
    if own:
        return [i for i in ids if i not in done.rows]
    there = set(journal.ids_of(set(range(1, journal.last + 1)) - done.steps.keys()))
    return [i for i in ids if i in there]


def purgeable(
    journal: Journal, gone: Sequence[Hashable], done: Undone, own: bool, others: bool
) -> tuple[list[int], list[Id]]:
    """The steps that are taken back, and those of these rows that the journal knows.

    Args:
        journal: of the ledger.
        gone: ids of rows.
        done: what is taken back.
        own: whether each row's own share is recorded.
        others: whether the shares of rows that are not taken back may go as well.

    Raises:
        ExpungeError: no row is known, some are not taken back, or other rows' shares would be lost.
    """
    if not (named := known_ids(journal, gone)):
        raise ExpungeError(
            f"None of these {len(gone):,} rows, e.g. {gone[0]!r}, is in the ledger: they were purged before, which "
            "ledger.purges says, or took part in no step."
        )
    if present := not_taken_back(journal, named, done, own):
        raise ExpungeError(
            f"Of {len(present):,} of these {len(named):,} rows, e.g. {present[0]!r}, not everything is taken back in "
            "this model; without their ids they could never be found again. Take them back first, or leave them out "
            "of the ids."
        )
    steps = sorted(done.steps) if done.steps else journal.steps(list(done.rows)).tolist()
    if (lost := other_rows(journal, steps, done)) and not others:
        raise ExpungeError(
            f"The records of these steps hold the shares of {len(lost):,} other rows too, e.g. {lost[0]!r}, which "
            "could not be taken back later. Take them back first, or set others=True."
        )
    return steps, named


def purge(journal: Journal, steps: Sequence[int], ids: Iterable[Id], done: Undone) -> int:
    """Remove these steps' payload, which must be sorted, and these rows' ids for good; write down what is left."""
    gone = set(ids)
    fresh = {step: about for step, about in zip(steps, journal.abouts(steps)) if not about.get("purged")}
    kept = [_without(d, gone) for d in journal.get("deletions", [])]
    journal.put("deletions", kept)
    freed = journal.purge(steps, gone)
    told = (
        f"{freed:,} bytes of {len(fresh):,} steps and the ids of {len(gone):,} rows were removed. Left: the other "
        "steps, the first weights of the training, and whatever backups and copies there are of this folder."
    )
    rows = {i for about in fresh.values() for i in about.get("rows", [])}
    extents = [done.steps[s] for s in fresh if s in done.steps] + [e for i, e in done.rows.items() if i in rows]
    part = [extent for extent in extents if not _fully(extent)]
    if part:
        told += (
            f" Of {len(part):,} {'steps' if done.steps else 'rows'} only a part had been taken back (a keep or scale "
            "below 1); the rest of them can no longer be."
        )
    journal.put("purges", [*journal.get("purges", []), told])
    journal.commit()
    return freed


def _fully(extent: Extent) -> bool:
    return any(keep >= 1 and scale >= 1 for keep, scale in extent.pairs)


def _without(deletion: Mapping[str, Any], gone: set[Id]) -> dict[str, Any]:
    """A deletion in whose lists these rows are no more."""
    found = {**deletion, "rows": [i for i in deletion["rows"] if i not in gone]}
    if "extents" in deletion:
        found["extents"] = [{**e, "rows": [i for i in e["rows"] if i not in gone]} for e in deletion["extents"]]
    return found
