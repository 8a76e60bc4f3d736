"""THE loop. Whatever a method or a recipe descends on, it descends here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.feed import Batch, Feed
from expunge.phase import Phase, check_parts
from expunge.region import Region
from expunge.run import Run, derive, progress_bar
from expunge.task.base import Task


class Checkpoint(Protocol):
    """Where an interrupted descent goes on from."""

    def resume(self, model: nn.Module, optimizer: Optimizer, phase: int) -> int:
        """Restore model and optimiser, and return how many epochs of this phase are done."""
        ...

    def save(self, model: nn.Module, optimizer: Optimizer, phase: int, epochs: int) -> None:
        """Keep the state after so many epochs of this phase."""
        ...


@dataclass
class Log:
    """What a descent did.

    Args:
        steps: optimiser steps taken.
        examples: rows shown, counted each time.
        seconds: wall-clock time.
        losses: the mean loss of each epoch, a number for each term of its phase.
        stopped: why it ended early; empty when it did not.
    """

    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    stopped: str = ""

    def add(self, other: Log) -> None:
        """Count what another descent did as well."""
        self.steps += other.steps
        self.examples += other.examples
        self.seconds += other.seconds
        self.losses += other.losses
        self.stopped = self.stopped or other.stopped


def descend(
    model: nn.Module,
    rows: Rows,
    parts: Mapping[str, Tensor],
    task: Task,
    phases: Sequence[Phase],
    run: Run,
    region: Region | None = None,
    checkpoint: Checkpoint | None = None,
) -> Log:
    """Train `model` in place on terms, inside a region, over phases; returns what was done.

    Args:
        model: changed in place; its modes and `requires_grad` are afterwards as they were.
        rows: the data the parts point into.
        parts: positions in `rows` for each name that a term may use.
        task: gives the loss of each example.
        phases: one after the other, each with a fresh optimiser.
        run: seed, device, precision, augmentation, processes.
        region: which weights may move. Default: all.
        checkpoint: keeps the state after every epoch. Default: nothing is kept.

    Raises:
        ExpungeError: a term without rows, or a loss that is not finite (with the step, and what to lower).

    Cost: each phase's epochs, in passes over its longest part (`together`) or over all its parts.
    """
    check_parts(list(phases), parts)
    device = run.device_of(model)
    model.to(device)
    rows = rows.on(device)
    modes = [(module, module.training) for module in model.modules()]
    log, began = Log(), time.perf_counter()
    try:
        with run.isolated():
            for number, phase in enumerate(phases):
                feed = Feed(rows, parts, task, phase, number, run, device)
                _phase(model, feed, region or Region.all(), checkpoint, log)
    finally:
        for module, mode in modes:
            module.training = mode
    log.seconds = time.perf_counter() - began
    return log


def _phase(model: nn.Module, feed: Feed, region: Region, checkpoint: Checkpoint | None, log: Log) -> None:
    phase, number, run = feed.phase, feed.number, feed.run
    steps = phase.steps_per_epoch(feed.parts)
    total = steps * phase.epochs
    optimizer = phase.make_optimizer([p for p in model.parameters() if p.requires_grad])
    with region.enforce(model, optimizer), progress_bar("step", total, run.progress) as tick:
        first = checkpoint.resume(model, optimizer, number) if checkpoint else 0
        net, backward = run.prepare(model, optimizer)
        net.train()
        for epoch in range(first, phase.epochs):
            torch.manual_seed(derive(run.seed, "dropout", number, epoch))  # so that a resumed epoch is the same one
            watch = _Watch(phase, number)
            for step, batches in enumerate(feed.epoch(epoch), start=epoch * steps):
                for group in optimizer.param_groups:
                    group["lr"] = phase.lr * phase.rate(step / total)
                optimizer.zero_grad(set_to_none=True)
                with run.autocast(feed.device):
                    losses = [feed.task.loss(net, batch.x, batch.y) for batch in batches]
                    loss = torch.stack([(b.weight * loss_B).sum() for b, loss_B in zip(batches, losses)]).sum()
                    if phase.penalty is not None:
                        loss = loss + phase.penalty(model, step / total)
                backward(loss)
                if phase.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), phase.clip_norm)
                optimizer.step()
                tick()
                if watch.see(step, loss, batches, losses, log):
                    break
            watch.close(log)
            if checkpoint:
                checkpoint.save(model, optimizer, number, epoch + 1)
            if log.stopped:
                return


class _Watch:
    """Counts, averages and looks out for losses that leave the ground; reads them in groups, as each read waits."""

    def __init__(self, phase: Phase, number: int) -> None:
        self.phase, self.number = phase, number
        self.every = 1 if phase.ceiling is not None else 32
        self.sums: list[Tensor | float] = [0.0] * len(phase.terms)
        self.counts = [0] * len(phase.terms)
        self.unread: list[tuple[int, Tensor]] = []

    def see(self, step: int, loss: Tensor, batches: list[Batch], losses: list[Tensor], log: Log) -> bool:
        """Take note of one step; true when the phase must end."""
        log.steps += 1
        for batch, loss_B in zip(batches, losses):
            for (k, n), part in zip(batch.spans, loss_B.detach().split([n for _, n in batch.spans])):
                log.examples += n
                self.counts[k] += n
                self.sums[k] += part.sum()
                if (
                    self.phase.ceiling is not None
                    and self.phase.terms[k].weight < 0
                    and part.mean() > self.phase.ceiling
                ):
                    log.stopped = (
                        f"step {step + 1}: the loss to be raised reached {part.mean():.2f}, above the ceiling of "
                        f"{self.phase.ceiling:.2f}"
                    )
        self.unread.append((step, loss.detach()))
        if len(self.unread) >= self.every:
            self.read()
        return bool(log.stopped)

    def read(self) -> None:
        for step, loss in self.unread:
            if not torch.isfinite(loss):
                raise ExpungeError(
                    f"The loss became {float(loss)} at step {step + 1} of phase {self.number + 1}. "
                    f"Lower lr (now {self.phase.lr:g}), set clip_norm, or take fewer epochs."
                )
        self.unread.clear()

    def close(self, log: Log) -> None:
        """Finish an epoch."""
        self.read()
        log.losses.append([float(s) / max(n, 1) for s, n in zip(self.sums, self.counts)])
