"""What a descent did, and when to end it: counts, mean losses, the ceiling, numbers that are not finite.

Shapes: B batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import Diverged
from expunge.feed import Batch
from expunge.phase import Phase
from expunge.run import Run


@dataclass
class Log:
    """What a descent did.

    Args:
        steps: optimiser steps taken.
        examples: rows shown, counted each time.
        seconds: wall-clock time.
        losses: the mean loss of each epoch, a number for each term of its phase.
        stopped: why it ended early; empty when it did not.
        notes: what a method has to say beside the result, a sentence each.
        facts: what a method measured on its way, as plain data.
    """

    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    stopped: str = ""
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, other: Log) -> None:
        """Count what another descent took, and leave out what came of it."""
        self.steps += other.steps
        self.examples += other.examples
        self.seconds += other.seconds
        self.losses += other.losses

    def add(self, other: Log) -> None:
        """Take in what another descent did as well."""
        self.count(other)
        self.stopped = self.stopped or other.stopped
        self.notes += other.notes
        self.facts |= other.facts


class Watch:
    """Counts, averages and looks out for losses that leave the ground; reads them in groups, as each read waits."""

    def __init__(self, phase: Phase, number: int, run: Run) -> None:
        self.phase, self.number, self.run, self.over = phase, number, run, False
        self.every = 1 if phase.ceiling is not None else 32
        self.sums: list[Tensor | float] = [0.0] * len(phase.terms)
        self.counts = [0] * len(phase.terms)
        self.unread: list[tuple[int, Tensor]] = []

    def see(self, step: int, loss: Tensor, batches: list[Batch], losses: list[Tensor], log: Log) -> bool:
        """Take note of one step; true when the phase must end."""
        log.steps += 1
        for batch, loss_B in zip(batches, losses):
            log.examples += batch.total
            for (k, n), part in zip(batch.spans, loss_B.detach().split([n for _, n in batch.spans])):
                self.counts[k] += n
                self.sums[k] += part.sum()
                self._compare(step, k, part, log)
        self.unread.append((step, loss.detach()))
        if len(self.unread) >= self.every:
            self.read()
        return self.over

    def reached(self, step: int, model: nn.Module, log: Log) -> bool:
        """Whether the phase's own rule ends it after this step."""
        why = self.phase.until(model) if self.phase.until is not None else ""
        if why:
            self.over, log.stopped = True, f"step {step + 1}: {why}"
        return self.over

    def _compare(self, step: int, k: int, part_B: Tensor, log: Log) -> None:
        limit = self.phase.ceiling
        if limit is not None and self.phase.terms[k].weight < 0 and (reached := self.run.mean(part_B)) > limit:
            self.over = True
            log.stopped = (
                f"step {step + 1}: the loss to be raised reached {reached:.2f}, above the ceiling of {limit:.2f}"
            )

    def read(self) -> None:
        """Look at the losses not yet looked at."""
        for step, loss in self.unread:
            if not torch.isfinite(loss):
                raise self._lost(f"The loss became {float(loss)} at step {step + 1}")
        self.unread.clear()

    def _lost(self, what: str) -> Diverged:
        return Diverged(
            f"{what} of phase {self.number + 1}. Lower lr (now {self.phase.lr:g}), set clip_norm, or take fewer epochs."
        )

    def close(self, log: Log, model: nn.Module) -> None:
        """Finish an epoch; its last step has no loss after it that would tell of broken weights."""
        self.read()
        if not all(torch.isfinite(p).all() for p in model.parameters()):
            raise self._lost("Weights became NaN or infinite at the end of an epoch")
        log.losses.append([float(s) / max(n, 1) for s, n in zip(self.sums, self.counts)])
