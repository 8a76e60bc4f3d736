"""Control: as many other steps, or rows' shares, as a request takes back, drawn to tell forgetting from damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.artifact.ledger import Ledger
from expunge.artifact.ledger.deletions import Lot, Undone
from expunge.artifact.ledger.ids import Id
from expunge.method import Job
from expunge.outputs import percent_right
from expunge.run import Run


@dataclass(frozen=True)
class Drawn:
    """What a control takes back: steps, and of these the shares of some rows only, where rows are given."""

    steps: list[int]
    rows: list[Id] | None = None

    def __len__(self) -> int:
        return len(self.steps if self.rows is None else self.rows)

    def __str__(self) -> str:
        if self.rows is None:
            return f"{len(self.steps):,} other steps"
        return f"the shares of {len(self.rows):,} other rows"

    def alike(self, lots: Sequence[Lot]) -> list[Lot]:
        """Of these as much as is taken back of the items of each lot."""
        drawn, found = list[Any](self.steps if self.rows is None else self.rows), []
        for lot in lots:
            found.append(replace(lot, items=drawn[: len(lot.items)]))
            drawn = drawn[len(lot.items) :]
        return found


def other_steps(ledger: Ledger, chosen: frozenset[Any], done: Undone, run: Run) -> Drawn:
    """As many recorded steps that are not taken back, drawn at random; all there are where there are fewer."""
    there = np.array(sorted(set(ledger.stored.tolist()) - chosen - set(done.steps)), dtype=np.int64)
    order = torch.randperm(len(there), generator=run.generator("control"))[: len(chosen)]
    return Drawn([int(s) for s in there[order.numpy()]])


def other_rows(ledger: Ledger, chosen: frozenset[Any], done: Undone, run: Run) -> Drawn:
    """As many rows whose own shares are recorded and not taken back, and the steps that hold these."""
    there = ledger.others(chosen | frozenset(done.rows))
    order = torch.randperm(len(there), generator=run.generator("control"))[: len(chosen)].tolist()
    drawn = [there[i] for i in order]
    steps = np.intersect1d(ledger.reader().journal.steps(drawn), ledger.stored)
    return Drawn(steps.tolist(), drawn)


def answers(model: nn.Module, job: Job, retain: Tensor) -> dict[str, float]:
    """The shares of forget rows, and of these retain rows, that a model answers right, in percent."""
    model, parts = model.to(job.run.device_of(model)), {"forget": job.request.forget, "retain": retain}
    return {part: percent_right(model, job.task, job.request.rows, index) for part, index in parts.items()}
