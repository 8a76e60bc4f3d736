"""Reading: recorded updates added up, each record read once and in the order of the files."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.artifact.ledger.codec import Part, decode
from expunge.artifact.ledger.deletions import Lot
from expunge.artifact.ledger.journal import Journal
from expunge.artifact.ledger.settings import Settings
from expunge.artifact.ledger.shares import reach
from expunge.artifact.ledger.threads import side_by_side
from expunge.errors import ExpungeError
from expunge.largest import check_keep, count, largest
from expunge.memory import kept_memory

_LARGE = 1 << 20  # bytes of a record, from which on handing it to another thread pays


class Reader:
    """What a ledger's records add up to.

    Args:
        journal: where they are.
        settings: of the ledger.
        about: its manifest.
    """

    def __init__(self, journal: Journal, settings: Settings, about: dict[str, Any]) -> None:
        self.journal, self.settings = journal, settings
        self.shapes = {name: tuple(shape) for name, shape, _ in about["layers"]}
        self.buffers = {name: tuple(shape) for name, shape, _ in about["buffers"]}

    def total(
        self, steps: Iterable[int], keep: float | None = None, rows: Iterable[Hashable] | None = None
    ) -> dict[str, Tensor]:
        """How far these steps moved the weights, by name of the layer, in float64.

        Where gradients are recorded, each counts with its later effect through momentum.

        Args:
            steps: their numbers.
            keep: the share of each layer to take, up to the recorded one. Default: all that is recorded.
            rows: where each row's own share is recorded, the rows to take. Default: all.

        Raises:
            ExpungeError: a share that was not recorded, or a record that is damaged, purged or missing.

        Cost: each record is read once; memory of one float64 copy of the weights, and of a few records.
        """
        self.check_keep(keep)
        wanted = None if rows is None else set(rows)
        shapes = {**self.shapes, **self.buffers}
        found = {name: torch.zeros(math.prod(shape), dtype=torch.float64) for name, shape in shapes.items()}
        factors = self._factors()
        with kept_memory():
            for step, parts in self.updates(steps):
                chosen = self._of_rows(step, parts, wanted)
                names = list(found) if len(chosen) == len(found) else list(self.shapes)
                for i, part in enumerate(chosen):
                    name = names[i % len(names)]
                    positions, moved = self._kept(part, keep if name in self.shapes else None)
                    if factors is not None:
                        moved = factors[name][step - 1] * moved.astype(np.float64)
                    if positions is None:  # by NumPy: PyTorch's helpers would be in the way of the decoding threads
                        found[name].numpy()[:] += moved
                    else:
                        exact = torch.from_numpy(moved.astype(np.float64, copy=False))
                        found[name].index_add_(0, torch.from_numpy(positions), exact)
        return {name: flat.view(shapes[name]) for name, flat in found.items()}

    def rest(self, lots: Iterable[Lot], steps: Iterable[int] | None = None) -> dict[str, Tensor]:
        """How far what is left to take back of some steps, or of rows' shares, moved the weights, as in `total`.

        Args:
            lots: steps; or rows, where `steps` are given.
            steps: those in which the rows took part.

        Raises:
            ExpungeError: as `total`; and where the payload of a step was purged after a part of it was taken back.
        """
        found = dict[str, Tensor]()
        for lot in lots:
            if lot.again and steps is None:
                self._refuse_purged(lot)
            for keep, times in lot.times.items():
                total = self.total(lot.items, keep) if steps is None else self.total(steps, keep, lot.items)
                for name, moved in total.items():
                    found[name] = found.get(name, 0.0) + times * moved
        return found

    def _refuse_purged(self, lot: Lot) -> None:
        purged = sum(bool(about.get("purged")) for about in self.journal.abouts(lot.items))
        if purged:
            raise ExpungeError(
                f"Of {purged:,} steps an earlier request took back a part, with a smaller share or scale, and their "
                "updates were purged since; the rest cannot be taken back. Ask for no more than then, or retrain."
            )

    def updates(self, steps: Iterable[int]) -> Iterator[tuple[int, list[Part]]]:
        """The records of these steps, decoded, in the order of the files; skipped steps have none."""
        records = ((i, payload, self._sizes(i)) for i, payload in self.journal.read(sorted(map(int, steps))) if payload)
        first = next(records, None)
        if first is not None:  # the others are about as large
            decoded = side_by_side if len(first[1]) >= _LARGE else map
            yield from decoded(_decoded, chain([first], records))

    def _sizes(self, step: int) -> list[int]:
        """How many entries each tensor of a record has; they are the same in every step and not in the record."""
        layers = [math.prod(shape) for shape in self.shapes.values()]
        if self.settings.record == "sample":
            return layers * len(self.journal.about(step)["rows"])
        return layers + [math.prod(shape) for shape in self.buffers.values()]

    def check_keep(self, keep: float | None) -> None:
        """Refuse a share of each layer that the ledger does not hold."""
        if keep is None:
            return
        check_keep(keep)
        if keep > self.settings.keep:
            raise ExpungeError(
                f"keep is {keep:g}, but the ledger holds only a share of {self.settings.keep:g} of each layer; "
                f"set keep to that or less."
            )

    def _kept(self, part: Part, keep: float | None) -> tuple[np.ndarray | None, np.ndarray]:
        """The largest entries of a record up to a share of the whole layer."""
        if keep is None or keep == 1:
            return part.positions, part.values
        many = count(part.size, keep)
        if many >= len(part.values):
            return part.positions, part.values
        inner = largest(torch.from_numpy(part.values), many / len(part.values)).numpy()
        return inner if part.positions is None else part.positions[inner], part.values[inner]

    def _of_rows(self, step: int, parts: Sequence[Part], wanted: set[Hashable] | None) -> Sequence[Part]:
        """Where rows are recorded one by one, the parts of the wanted ones."""
        if self.settings.record != "sample" or wanted is None:
            return parts
        rows = self.journal.about(step)["rows"]
        layers = len(self.shapes)
        return [p for i, row in enumerate(rows) if row in wanted for p in parts[i * layers : (i + 1) * layers]]

    def _factors(self) -> dict[str, list[float]] | None:
        """How far each step's gradient reached in each layer; none where updates are recorded."""
        if self.settings.record == "update":
            return None
        abouts = self.journal.abouts(self.journal.steps())
        moving = [a if "kind" in a else {} for a in abouts]
        stills = [set(a.get("still", "").split()) for a in abouts]  # optimisers pass over what has no gradient
        everywhere = reach(moving)
        return {
            name: reach([{} if str(i) in still else a for a, still in zip(moving, stills)])
            if any(str(i) in still for still in stills)
            else everywhere
            for i, name in enumerate(self.shapes)
        }


def _decoded(record: tuple[int, bytes, Sequence[int]]) -> tuple[int, list[Part]]:
    step, payload, sizes = record
    return step, decode(payload, sizes)
