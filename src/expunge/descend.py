"""THE loop. Whatever a method or a recipe descends on, it descends here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.data.rows import Rows
from expunge.feed import Feed
from expunge.layout import channels_last
from expunge.loss import per_row, with_gradient
from expunge.memory import kept_memory
from expunge.modes import kept_modes
from expunge.norms import lone_rows
from expunge.phase import Phase, check_parts
from expunge.region import Region
from expunge.run import Run, derive, progress_bar
from expunge.task.base import Task
from expunge.watch import Log, Watch


class Checkpoint(Protocol):
    """Where an interrupted descent goes on from."""

    def resume(self, model: nn.Module, optimizer: Optimizer, phase: int) -> int:
        """Restore model and optimiser, and return how many epochs of this phase are done."""
        ...

    def save(self, model: nn.Module, optimizer: Optimizer, phase: int, epochs: int) -> None:
        """Keep the state after so many epochs of this phase."""
        ...


class Recorder(Protocol):
    """What is told of every step, such as a ledger."""

    def watch(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Called before the first step of a phase, with everything restored that a checkpoint held."""
        ...

    def uses(self, index: Tensor, shares: Tensor) -> None:
        """Positions of the rows that the next step learns from, and what each adds to the loss, before `backward`."""
        ...


def descend(
    model: nn.Module,
    rows: Rows,
    parts: Mapping[str, Tensor],
    task: Task,
    phases: Sequence[Phase],
    run: Run,
    region: Region | None = None,
    checkpoint: Checkpoint | None = None,
    recorder: Recorder | None = None,
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
        recorder: is told of every step. Default: none.

    Raises:
        ExpungeError: a term without rows, a region in which nothing can move, or a loss that is not one number for each
            row, or depends on no weight that may move.
        Diverged: a loss that is not finite (with the step, and what to lower).

    Cost: each phase's epochs, in passes over its longest part (`together`) or over all its parts.
    """
    check_parts(list(phases), parts)
    (region := region or Region.all()).resolve(model)
    device = run.device_of(model)
    model.to(device)
    rows = rows.on(device)
    log, began = Log(), time.perf_counter()
    with kept_modes(model), run.isolated(), kept_memory(), channels_last(model) as last:
        for number, phase in enumerate(phases):
            feed = Feed(rows, parts, task, phase, number, run, device, last)
            _phase(model, feed, region, checkpoint, recorder, log)
    log.seconds = time.perf_counter() - began
    return log


def _phase(
    model: nn.Module,
    feed: Feed,
    region: Region,
    checkpoint: Checkpoint | None,
    recorder: Recorder | None,
    log: Log,
) -> None:
    phase, number, run = feed.phase, feed.number, feed.run
    steps = phase.steps_per_epoch(feed.parts)
    total = steps * phase.epochs
    optimizer = phase.make_optimizer([p for p in model.parameters() if p.requires_grad])
    draws = run.generator("partial", number)
    with region.enforce(model, optimizer, draws), progress_bar("step", total, run.progress) as tick:
        first = min(checkpoint.resume(model, optimizer, number), phase.epochs) if checkpoint else 0
        log.steps += first * steps
        log.examples += first * phase.examples_per_epoch(feed.parts)
        if recorder:
            recorder.watch(model, optimizer)
        net, backward = run.prepare(model, optimizer)
        net.train()
        for epoch in range(first, phase.epochs):
            torch.manual_seed(derive(run.seed, "dropout", number, epoch))  # so that a resumed epoch is the same one
            watch = Watch(phase, number, run)
            for step, batches in enumerate(feed.epoch(epoch), start=epoch * steps):
                for group in optimizer.param_groups:
                    group["lr"] = phase.lr * phase.rate(step / total)
                optimizer.zero_grad(set_to_none=True)
                with run.autocast(feed.device), lone_rows(net, min(len(b.y) for b in batches), log.notes):
                    losses = [per_row(batch.losses(feed.task, net), len(batch.y)) for batch in batches]
                    loss = torch.stack([b.objective(loss_B) for b, loss_B in zip(batches, losses)]).sum()
                    if phase.penalty is not None:
                        loss = loss + phase.penalty(model, step / total)
                if recorder:
                    shares = [b.shares(loss_B) for b, loss_B in zip(batches, losses)]
                    recorder.uses(torch.cat([b.index for b in batches]), torch.cat(shares))
                backward(with_gradient(loss))
                if phase.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), phase.clip_norm)
                optimizer.step()
                tick()
                if watch.see(step, loss, batches, losses, log) or watch.reached(step, model, log):
                    break
            watch.close(log, model)
            if checkpoint:
                checkpoint.save(model, optimizer, number, epoch + 1)
            if watch.over:
                return


__all__ = ["Checkpoint", "Log", "Recorder", "descend"]
