"""Ahead: what a ledger would refuse, or record nothing of, told before a training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.artifact.ledger.capture import recorded
from expunge.artifact.ledger.ids import plain, spelled
from expunge.artifact.ledger.settings import Settings
from expunge.artifact.ledger.shares import Shares
from expunge.data.ids import as_in
from expunge.data.rows import Rows
from expunge.errors import collected
from expunge.phase import Phase
from expunge.run import Run


def watch_problems(model: Any, optimizer: Any, accumulate: Any, scaler: Any) -> list[str]:
    """What is wrong with the arguments of `Ledger.watch`, a sentence each."""
    found = []
    if not isinstance(model, nn.Module):
        found.append(f"The model must be a torch.nn.Module; got {model!r}.")
    if not isinstance(getattr(optimizer, "optimizer", optimizer), Optimizer):
        found.append(f"The optimizer must be a torch.optim.Optimizer; got {optimizer!r}.")
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        found.append(f"accumulate must be a whole number of batches, 1 or more; got {accumulate!r}.")
    if scaler is not None and not hasattr(scaler, "get_scale"):
        found.append(f"The scaler must be a torch.amp.GradScaler, or none; got {scaler!r}.")
    return found


def training_problems(
    settings: Settings, model: nn.Module, make: Callable[[list[nn.Parameter]], Optimizer], rows: Rows
) -> list[str]:
    """Why a training cannot be recorded with these settings, a sentence each.

    Args:
        settings: of the ledger.
        model: that would be trained.
        make: its optimiser, from its weights.
        rows: the data.
    """
    found = sensitive_problems(settings, rows)
    with collected(found):
        optimizer = make([p for p in model.parameters() if p.requires_grad])
        Shares(optimizer, list(recorded(model, optimizer, settings).values()), settings)
    return found


def sensitive_problems(settings: Settings, rows: Rows) -> list[str]:
    """A sentence about sensitive ids that are no rows of the data; whole numbers may be given as text."""
    found = list[str]()
    if settings.sensitive:
        asked = plain(settings.sensitive)
        with collected(found, "sensitive: "):
            rows.positions(as_in(rows.ids, asked))
    return found


def touches_all(phase: Phase, index: Tensor, forget: Tensor, run: Run) -> bool:
    """Whether some of these rows are shown in every step of a training, so that subtraction would leave nothing.

    Args:
        phase: the training, on the part `"train"`.
        index: positions of the rows that are trained on.
        forget: of those that must go.
        run: its seed decides which rows meet in a batch.
    """
    epochs = (phase.plan({"train": index}, run.generator("plan", 0, epoch)) for epoch in range(phase.epochs))
    return all(bool(torch.isin(index_B, forget).any()) for steps in epochs for ((_, index_B),) in steps)


def request_problems(settings: Settings, ids: Iterable[Any]) -> list[str]:
    """A sentence about rows that are not among the sensitive ones, so that a ledger does not serve a request."""
    asked = plain(ids)
    if settings.sensitive is None or not (absent := set(asked) - spelled(plain(settings.sensitive))):
        return []
    named = ", ".join(map(repr, sorted(map(str, absent))[:3]))
    return [
        f"The ledger records sensitive rows only, and {len(absent):,} of {len(asked):,} ids are not among them, "
        f"e.g. {named}."
    ]
