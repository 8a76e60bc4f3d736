"""Capture: what each optimiser step does to the weights, taken down through the optimiser's own hooks.

It never changes a weight, a gradient or random state, so a training with a ledger gives the same bits as one without.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.artifact.ledger import announced
from expunge.artifact.ledger.drift import Drift
from expunge.artifact.ledger.ids import Id, plain
from expunge.artifact.ledger.settings import Settings
from expunge.artifact.ledger.shares import Shares
from expunge.errors import ExpungeError, UnknownName, few
from expunge.layer_choice import matches
from expunge.optimizers import around_step


@dataclass(frozen=True)
class Step:
    """What was taken down of one step, before it is pruned and encoded.

    Args:
        number: 1, 2, 3, …
        ids: the rows that took part.
        rows: the rows whose shares are recorded one by one; empty when the step is recorded as a whole.
        tensors: one for each recorded tensor; with `rows`, for each row and tensor. Empty when nothing is stored.
        about: rates and the like, as plain data; `batches` where fewer announced it than may go into a step.
    """

    number: int
    ids: tuple[Hashable, ...]
    rows: tuple[Hashable, ...]
    tensors: list[Tensor]
    about: dict[str, Any]


def watched(model: nn.Module, patterns: Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """The parameters that a ledger records, shared ones once.

    Raises:
        ExpungeError: a pattern that matches nothing.
    """
    named = dict(model.named_parameters())
    patterns = tuple(patterns)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in named):
            raise UnknownName("layer pattern of the ledger", pattern, named)
    chosen = {n: p for n, p in named.items() if not patterns or any(matches(n, g) for g in patterns)}
    return {n: p for n, p in chosen.items() if p.is_floating_point()}


def recorded(
    model: nn.Module, optimizer: Optimizer, settings: Settings, there_before: Collection[str] = ()
) -> dict[str, nn.Parameter]:
    """Those of the watched parameters that the optimiser moves, and frozen ones that it moved before.

    Args:
        model: whose weights are recorded.
        optimizer: whose steps are recorded.
        settings: of the ledger.
        there_before: names of the layers that the ledger holds already.

    Raises:
        ExpungeError: there are none; or others might be trained unseen; or their gradients cannot be recorded.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    there = watched(model, settings.layers)
    found = {n: p for n, p in there.items() if id(p) in held or (n in there_before and not p.requires_grad)}
    if not any(id(p) in held for p in found.values()):
        raise ExpungeError("The optimiser holds none of the layers that the ledger should record.")
    if unseen := [n for n, p in there.items() if id(p) not in held and p.requires_grad]:
        raise ExpungeError(
            f"The optimiser does not hold {few(unseen, 3)}, so what may train them would not be recorded, nor taken "
            "back. Freeze them (requires_grad_(False)), give them to this optimiser, or name the layers to record, "
            "layers=[...]."
        )
    tables = [m.weight for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse]
    sparse = [n for n, p in found.items() if any(p is table for table in tables)]
    if sparse and settings.record != "update":
        raise ExpungeError(
            f"record: {settings.record} needs dense gradients; those of {few(sparse, 3)} are sparse. Make them with "
            "sparse=False, leave them out of the layers, or record updates."
        )
    return found


def averages(model: nn.Module) -> dict[str, Tensor]:
    """BatchNorm's running means and variances by name; counters are no average."""
    return {n: b for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))}


def _parameters(model: nn.Module) -> dict[str, tuple[int, torch.dtype]]:
    """Which parameter has which name, and how it is stored."""
    return {name: (id(p), p.dtype) for name, p in model.named_parameters()}


class Capture:
    """Hooks on one optimiser.

    Args:
        model: whose weights are recorded.
        optimizer: whose steps are recorded.
        settings: of the ledger.
        put: takes each step; called in order.
        accumulate: how many times `uses` may be called before a step.
        scaler: the `GradScaler`, so that a step that it skips is told from one that was forgotten.
        gather: put together what all processes use.
        there_before: names of the layers that the ledger holds already.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        settings: Settings,
        put: Callable[[Step], None],
        accumulate: int = 1,
        scaler: Any = None,
        gather: bool = False,
        there_before: Collection[str] = (),
    ) -> None:
        self.model, self.settings, self.put = model, settings, put
        self.step = 0  # so many the ledger holds already
        self.accumulate, self.scaler, self.gather = accumulate, scaler, gather
        self.layers = recorded(model, optimizer, settings, there_before)
        self.optimizer = optimizer
        self.held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.parameters = _parameters(model)
        self.shares = Shares(optimizer, list(self.layers.values()), settings)
        self.buffers = averages(model) if settings.buffers == "subtract" else {}
        self.before = [p.detach().clone() for p in self.layers.values()]
        self.before_buffers = [b.clone() for b in self.buffers.values()]
        self.pending: list[list[Id]] = []
        self.few: list[int] = []  # by how many batches the last steps were announced, while these are too few
        self.warned = False
        self.refused = False  # whether the last step was, for lack of gradients: its rows may be announced anew
        self.scale: float | None = None
        self.drift = Drift(self.layers)
        self.end = around_step(optimizer, self._before, self._after)

    def uses(self, ids: Iterable[Any], losses: Tensor | None = None) -> None:
        """The rows of the batch that goes into the next step; see `Ledger.uses`."""
        listed = plain(ids)
        self.settle()
        if self.refused:
            self.pending, self.refused = [], False
            self.shares.drop()
        if len(self.pending) >= self.accumulate:
            raise ExpungeError(
                f"ledger.uses was called {len(self.pending) + 1} times before step {self.step + 1}. When gradients of "
                "several batches go into one step, say so: ledger.watch(model, optimizer, accumulate=n); with a "
                "GradScaler, which may skip steps, give it as well: scaler=scaler. When a batch is skipped, call it "
                "only once the step is certain, just before optimizer.step()."
            )
        if not listed:
            raise ExpungeError(f"ledger.uses got no ids for step {self.step + 1}; give those of the batch's rows.")
        if self.settings.record == "sample":
            self.shares.take(listed, losses)
        self.pending.append(listed)
        if self.scaler is not None:
            self.scale = self.scaler.get_scale()

    def settle(self) -> None:
        """Take down the step that was announced last, if the scaler has left it out: it lowers its scale then."""
        if self.pending and self.scale is not None and self.scaler.get_scale() < self.scale:
            self.step += 1
            self.shares.release()
            ids, about = self._used()
            self.put(Step(self.step, ids, (), [], {**about, "skipped": True}))

    def _used(self) -> tuple[tuple[Id, ...], dict[str, Any]]:
        """The rows of all batches since the last step, in all processes, and whether these were too few."""
        mine, batches = list(dict.fromkeys(i for batch in self.pending for i in batch)), len(self.pending)
        self.pending = []
        if self.gather:
            everybody: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everybody, (mine, batches))
            mine = list(dict.fromkeys(i for some, _ in everybody for i in some))
            batches = min(count for _, count in everybody)
        self._see(batches)
        return tuple(mine), announced.about(batches, self.accumulate)

    def _see(self, batches: int) -> None:
        """Warn, once, of a second step in a row that too few batches announced; the last of an epoch may be such."""
        self.few = [*self.few[-1:], batches] if batches < self.accumulate else []
        if len(self.few) > 1 and not self.warned:
            self.warned = True
            counts = " and ".join(map(str, dict.fromkeys(self.few)))
            warnings.warn(
                f"Steps {self.step - 1}, {self.step} were announced by {counts} of {self.accumulate} batches. If more "
                "went into them, their rows could not be found again: call ledger.uses(ids) for every batch; if not, "
                "say how many do: ledger.watch(..., accumulate=n).",
                stacklevel=2,
            )

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.refused = False
        if not self.pending:
            raise ExpungeError(
                f"Step {self.step + 1} was taken without ledger.uses(ids), so nobody could find its rows again. Call "
                "it for every batch before optimizer.step(). The weights are as they were before this step."
            )
        self._same_parameters()
        self.drift.before(self.step + 1)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # the first is the optimiser itself
        later = closure is not None  # then gradients are computed inside the step
        if self.settings.record != "update" and (later or getattr(optimizer, "grad_scale", None) is not None):
            raise ExpungeError(
                f"record: {self.settings.record} needs the gradients before the step, and as they are: no closure, and "
                "with a GradScaler call scaler.unscale_(optimizer) first. Or record updates."
            )
        if not later and all(p.grad is None for p in self.layers.values() if id(p) in self.held):
            self.refused = True  # nothing of these rows is waiting in a gradient
            raise ExpungeError(
                f"Step {self.step + 1} has no gradient for any recorded layer; was loss.backward() called, and are the "
                "layers not all frozen? The weights are as they were before this step."
            )
        with torch.no_grad():
            if self.settings.record == "update":
                for kept, p in zip(self.before, self.layers.values()):
                    kept.copy_(p)
            elif self.settings.record == "gradient":
                self.shares.whole()

    def _same_parameters(self) -> None:
        """Refuse a model or an optimiser whose parameters are no longer those that are watched."""
        old, new = self.parameters, _parameters(self.model)
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if old == new and held == self.held:
            return
        changed = sorted({n for n in {*old, *new} if old.get(n) != new.get(n)}) or ["the optimiser's parameter groups"]
        raise ExpungeError(
            f"Since ledger.watch, parameters were added, replaced, shared or converted: {few(changed)}. What they "
            "learned could not be undone. Close this ledger, and begin another one for the changed model."
        )

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.step += 1
        ids, about = self._used()
        rows: tuple[Hashable, ...] = ()
        tensors: list[Tensor] = []
        with torch.no_grad():
            if self.settings.record == "update":
                updates = self._updates()
                tensors = updates if self._stored(ids) else []
            else:
                about |= self.shares.rates()
                rows, tensors = self.shares.release()
                if self.settings.record == "gradient" and not self._stored(ids):
                    tensors = []
            if self.buffers:
                if tensors:
                    tensors += [b - kept for b, kept in zip(self.buffers.values(), self.before_buffers)]
                for kept, b in zip(self.before_buffers, self.buffers.values()):
                    kept.copy_(b)
            self.drift.stepped()
        self.put(Step(self.step, ids, rows, tensors, about))

    def _stored(self, ids: tuple[Id, ...]) -> bool:
        return self.shares.sensitive is None or not self.shares.sensitive.isdisjoint(ids)

    def _updates(self) -> list[Tensor]:
        """After minus before, for each layer; float32 at least, double where it must be exact."""
        exact = self.settings.values == "float64"
        updates = []
        for p, kept in zip(self.layers.values(), self.before):
            wide = torch.float64 if exact else torch.promote_types(p.dtype, torch.float32)
            updates.append(p.detach().to(wide) - kept.to(wide))
        return updates if self.settings.decay else self.shares.without_decay(updates, self.before)

    def detach(self) -> None:
        """Take the hooks off the optimiser."""
        self.end()
