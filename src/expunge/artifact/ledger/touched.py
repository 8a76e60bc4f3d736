"""Touched: what a request costs with a ledger, told before anything is done."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.artifact.ledger import announced
from expunge.artifact.ledger.ahead import request_problems
from expunge.artifact.ledger.ids import Id, plain
from expunge.artifact.ledger.journal import Journal
from expunge.artifact.ledger.settings import Settings
from expunge.batching import expected_share
from expunge.data.ids import misread, number
from expunge.errors import ExpungeError, raise_if

# above this share, subtracting whole steps took more than a point of retained accuracy in our tables
LARGE = 0.15


@dataclass(frozen=True)
class Touched:
    """How much of a training a request touches.

    Args:
        steps: the numbers of the touched steps, in order.
        total: how many steps there are.
        asked: rows of the request.
        others: rows that stay, and took part in a touched step: part of what they taught is taken back as well.
        bytes: what must be read.
        random: the share that random batches of the same size would have touched; none where the number of all rows is
            not known.
        purged: touched steps whose payload has been removed.
        record: of the ledger's settings.
        skipped: the steps, of all, that moved no weight.
        short: steps, of all, that seem to have been announced by too few batches; see `announced`.
        taken: the steps that a model lacks afterwards: the touched ones, those that spill adds to them, and those of
            earlier requests.
    """

    steps: np.ndarray = field(repr=False)
    total: int
    asked: int
    others: int
    bytes: int
    random: float | None
    purged: int
    record: str
    skipped: frozenset[int] = field(repr=False)
    short: int
    taken: frozenset[int] = field(repr=False)

    @property
    def share(self) -> float:
        """The touched share of all steps, from 0 to 1."""
        return len(self.steps) / max(self.total, 1)

    @property
    def whole(self) -> bool:
        """Whether the model lacks every step afterwards, so that undoing them is starting anew."""
        return len(self.taken | self.skipped) == self.total

    def __str__(self) -> str:
        random = "" if self.random is None else f"; random batches: {100 * self.random:.1f} %"
        lines = [
            f"{self.asked:,} row{'s' * (self.asked != 1)} took part in {len(self.steps):,} of {self.total:,} steps "
            f"({100 * self.share:.1f} %{random}); {_size(self.bytes)} to read."
        ]
        if self.record == "sample":
            lines.append("Only the rows' own shares of these steps are recorded and taken back.")
        else:
            lines.append(
                f"{self.others:,} rows that stay took part in these steps too; subtracting the steps takes back "
                "part of what they taught."
            )
            if len(self.taken) != len(self.steps):
                lines.append(
                    f"With the steps that spill adds and earlier requests took back, the model lacks "
                    f"{len(self.taken):,} of {self.total:,} ({100 * self._lacking:.1f} %) afterwards."
                )
        lines.append(self._meaning())
        if self.short:
            lines.append(announced.sentence(self.short, self.total))
        if self.purged:
            lines.append(f"The payload of {self.purged:,} of these steps has been purged.")
        return "\n".join(lines)

    @property
    def _lacking(self) -> float:
        """The share of all steps that the model lacks afterwards, from 0 to 1."""
        return len(self.taken) / max(self.total, 1)

    def _meaning(self) -> str:
        if self.record == "sample":
            return "The cost to other rows does not depend on the number of steps."
        if self.whole:
            which = "touched" if len(self.taken) == len(self.steps) else "touched or taken back by then"
            return f"Every step is {which}: subtracting all of them gives the untrained model back. Retrain instead."
        if self._lacking > LARGE:
            return (
                f"Above about {100 * LARGE:.0f} % the model suffers: keep a small share of each layer "
                "(partial_amnesiac), repair afterwards, or use partial_label_flip or retraining. In a new training, "
                "recipe: {together: ...} keeps such rows in few steps."
            )
        return "A share this small is what subtracting steps is good at; judge the outcome by an audit all the same."


def touched(
    journal: Journal,
    settings: Settings,
    ids: Sequence[Hashable],
    rows: int | None = None,
    *,
    gone: Sequence[Hashable] = (),
    file: str | Path | None = None,
) -> Touched:
    """How much of the training in a journal these rows touch.

    Args:
        journal: of the ledger.
        settings: of the ledger.
        ids: of the rows.
        rows: how many there are in all, where that is known.
        gone: rows that earlier requests removed, which are none of those that stay.
        file: where the ids were read, for what an error says of it.

    Raises:
        ExpungeError: no ids; ids that no step has ever used, or that are not among the sensitive ones.
    """
    asked = _as_used(journal, plain(ids))
    if not asked:
        raise ExpungeError("No rows are asked for; give the ids of rows that took part in the training.")
    abouts = journal.abouts(range(1, journal.last + 1))
    short = announced.count(abouts)
    if unknown := journal.unknown(asked):
        told = (
            f"{len(unknown):,} of {len(asked):,} ids took part in no step that the ledger holds, e.g. "
            f"{', '.join(map(repr, unknown[:3]))}. Were they trained on, under the same ids, and not purged since?"
        )
        absent = set(unknown)
        hint = misread(asked, [i in absent for i in asked], file) if file else ""
        missed = announced.sentence(short, journal.last) if short else ""
        raise ExpungeError(" ".join(filter(None, (told, hint, missed))))
    raise_if(request_problems(settings, asked))
    steps = journal.steps(asked)
    others = len(set(journal.ids_of(steps)).difference(asked, _as_used(journal, plain(gone)))) if len(steps) else 0
    purged = sum(bool(abouts[step - 1].get("purged")) for step in steps.tolist())
    _all_recorded(journal, steps, abouts)
    skipped = frozenset(step for step, about in enumerate(abouts, start=1) if about.get("skipped"))
    size = journal.bytes_of(steps)
    random = None
    if rows is not None and len(steps):
        batch = round(np.mean([len(journal.ids_of([s])) for s in steps[:: max(1, len(steps) // 3)]]))
        random = expected_share(len(asked), rows, max(batch, 1))
    return Touched(
        steps=steps,
        total=journal.last,
        asked=len(asked),
        others=others,
        bytes=size,
        random=random,
        purged=purged,
        record=settings.record,
        skipped=skipped,
        short=short,
        taken=frozenset(steps.tolist()),
    )


def _all_recorded(journal: Journal, steps: np.ndarray, abouts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse steps of which nothing was stored, though they moved the weights: their rows were not sensitive then."""
    accounted = {*journal.stored().tolist(), *(s for s, a in enumerate(abouts, 1) if {"skipped", "purged"} & set(a))}
    if absent := [step for step in steps.tolist() if step not in accounted]:
        raise ExpungeError(
            f"Of {len(absent):,} of {len(steps):,} touched steps nothing was recorded, because no row of them was "
            "sensitive then; they cannot be taken back."
        )


def known_ids(journal: Journal, ids: Iterable[Hashable]) -> list[Id]:
    """Those of these ids that some step used, as the training called them."""
    asked = _as_used(journal, plain(ids))
    unknown = set(journal.unknown(asked))
    return [i for i in asked if i not in unknown]


def _as_used(journal: Journal, ids: Iterable[Id]) -> list[Id]:
    """Ids once each; a file holds texts, where the training may have used numbers."""
    asked = list(dict.fromkeys(ids))
    unknown = set(journal.unknown(asked))
    return [number(i) if i in unknown else i for i in asked]


def _size(count: float) -> str:
    power = min(int(math.log(max(count, 1), 1000)), 4)
    return f"{count / 1000**power:.3g} {('bytes', 'KB', 'MB', 'GB', 'TB')[power]}"
