"""Term and Phase: the language in which a method says what it descends on.

A *term* is part of the data, as it is or through a surrogate, with a signed weight. A *phase* is terms, an optimiser,
a schedule of its rate, and how the parts are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.batching import grouped, shuffled
from expunge.data.rows import Rows
from expunge.errors import UnknownName, raise_if
from expunge.loss import Loss
from expunge.optimizers import Make, make_optimizer, optimizer_problems
from expunge.surrogate.base import Surrogate

Mix = Literal["together", "in_turn", "shuffled"]
Schedule = Literal["constant", "cosine", "one_cycle"]
Penalty = Callable[[nn.Module, float], Tensor]
Until = Callable[[nn.Module], str]

MIXES = ("together", "in_turn", "shuffled")
SCHEDULES = ("constant", "cosine", "one_cycle")


@dataclass(frozen=True)
class Term:
    """Part of the data with a signed weight.

    Args:
        part: the name of the part, e.g. `"retain"` or `"forget"`.
        weight: how much its loss counts; below 0 ascends. Default 1.
        surrogate: what is shown in its place. Default: the rows as they are.
        cap: the loss of an example counts up to this only, in units of the loss of guessing (`Task.guessing`), so that
            what has been raised past it is left alone. Default: no bound.
        loss: what is computed on the rows in place of the task's loss: a function (task, model, x, y) to one number
            for each row. Default: the task's.
        rows: rows of a method's own, such as noise, which the part points into; they are shown without augmentation.
            Default: the data.
    """

    part: str
    weight: float = 1.0
    surrogate: Surrogate | None = None
    cap: float | None = None
    loss: Loss | None = None
    rows: Rows | None = None


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some epochs of descent.

    Args:
        terms: what is descended on.
        epochs: how often the longest part is passed, 0 or more.
        lr: the rate, at its peak, above 0.
        batch_size: rows in a batch at most; parts are cut into batches of nearly equal size. Default 256, as in
            the SalUn protocol.
        optimizer: `"sgd"` (default), `"adam"`, `"adamw"` or another name of `torch.optim`, see `expunge.optimizers`; or
            a function of the weights that returns one, with settings of its own. Either follows `lr` and `schedule`.
        momentum: of SGD and those of the others that have it, from 0 to below 1. Default 0.9.
        weight_decay: 0 or more; decoupled with AdamW. Default 5e-4.
        schedule: how the rate moves over the phase: `"constant"` (default), `"cosine"` to 0, or `"one_cycle"`: up
            over the first quarter, then by a cosine to 0.
        mix: `"together"` (default): every step takes a batch of each term, shorter parts begin again; `"in_turn"`:
            all batches of one term, then of the next; `"shuffled"`: one pool of all terms' rows.
        penalty: a function of the model and the progress (0 to 1) that is added to the loss. Default none.
        clip_norm: gradients are scaled down to this norm. Default: not.
        ceiling: end the phase when the loss of a term that ascends passes this. Default: never.
        until: asked after every step with the model; says why the phase must end, or nothing. Default: never.
        groups: the group of each row of the data, (rows,) int64, below 0 for a group of its own: rows of a group stay
            together in few batches. Default: all rows are shuffled.
        groups_per_batch: about how many groups meet in a batch, 1..`batch_size`. Default 5, see docs/recipe.md.
    """

    terms: tuple[Term, ...]
    epochs: int
    lr: float
    batch_size: int = 256
    optimizer: str | Make = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "constant"
    mix: Mix = "together"
    penalty: Penalty | None = None
    clip_norm: float | None = None
    ceiling: float | None = None
    until: Until | None = None
    groups: Tensor | None = field(default=None, compare=False)  # tensors do not compare to one truth
    groups_per_batch: int = 5

    def __post_init__(self) -> None:
        problems = descent_problems(vars(self))
        if self.mix == "shuffled" and len({id(term.loss) for term in self.terms}) > 1:
            problems.append("mix shuffled shows all terms in one batch, under one loss; use in_turn or together.")
        raise_if(problems)

    @classmethod
    def of(cls, settings: object, terms: tuple[Term, ...], penalty: Penalty | None = None) -> Phase:
        """A phase with the attributes of a recipe or method that bear the names of its fields."""
        names = {f.name for f in fields(cls)} - {"terms", "penalty"}
        chosen = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
        return cls(terms=terms, penalty=penalty, **chosen)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer:
        """A fresh optimiser over these parameters, fused where PyTorch can."""
        return make_optimizer(
            self.optimizer, parameters, lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum
        )

    def rate(self, progress: float) -> float:
        """The factor on `lr` after this share (0 to 1) of the phase's steps."""
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "one_cycle":
            rise = 0.25
            if progress < rise:
                return 0.04 + 0.96 * progress / rise
            return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
        return 1.0

    def steps_per_epoch(self, parts: Mapping[str, Tensor]) -> int:
        """How many optimiser steps one epoch takes."""
        lengths = [len(parts[t.part]) for t in self.terms]
        if self.mix == "shuffled":
            return math.ceil(sum(lengths) / self.batch_size)
        counts = [math.ceil(n / self.batch_size) for n in lengths]
        return max(counts) if self.mix == "together" else sum(counts)

    def examples_per_epoch(self, parts: Mapping[str, Tensor]) -> int:
        """How many rows one epoch shows, counted each time."""
        plan = self.plan(parts, torch.Generator().manual_seed(0))
        return sum(len(index_B) for picks in plan for _, index_B in picks)

    def plan(self, parts: Mapping[str, Tensor], generator: torch.Generator) -> Iterator[list[tuple[int, Tensor]]]:
        """The steps of one epoch; each is a list of (number of the term, positions of its rows)."""
        if self.mix == "shuffled":
            yield from self._shuffled(parts, generator)
        elif self.mix == "in_turn":
            for k, term in enumerate(self.terms):
                part = parts[term.part]
                yield from ([(k, part[batch])] for batch in self._batches(part, generator))
        else:
            streams = [self._endless(parts[t.part], generator) for t in self.terms]
            for _ in range(self.steps_per_epoch(parts)):
                yield [(k, next(stream)) for k, stream in enumerate(streams)]

    def _endless(self, part: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield from (part[batch] for batch in self._batches(part, generator))

    def _shuffled(self, parts: Mapping[str, Tensor], generator: torch.Generator) -> Iterator[list[tuple[int, Tensor]]]:
        pool = torch.cat([parts[t.part] for t in self.terms])
        owner = torch.cat([torch.full((len(parts[t.part]),), k) for k, t in enumerate(self.terms)])
        for batch in self._batches(pool, generator):
            members = [(k, pool[batch[owner[batch] == k]]) for k in range(len(self.terms))]
            yield [(k, index) for k, index in members if len(index)]

    def _batches(self, part: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """One pass over a part: the places in it that each batch takes."""
        if self.groups is None:
            return shuffled(len(part), self.batch_size, generator)
        return grouped(self.groups[part], self.groups_per_batch, self.batch_size, generator)


def descent_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of a descent, a sentence each; used by phases, recipes and methods."""
    found = []
    numbers: list[tuple[str, Callable[[Any], bool], str]] = [
        ("epochs", lambda v: isinstance(v, int) and v >= 0, "a whole number, 0 or more"),
        ("lr", lambda v: 0 < v < math.inf, "above 0"),
        ("batch_size", lambda v: isinstance(v, int) and v >= 1, "a whole number, 1 or more"),
        ("momentum", lambda v: 0 <= v < 1, "from 0 to below 1"),
        ("weight_decay", lambda v: 0 <= v < math.inf, "0 or more"),
        *((name, lambda v: v > 0, "above 0, or none") for name in ("clip_norm", "cap", "ceiling")),
    ]
    for name, good, expected in numbers:
        value = settings.get(name)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not good(value):
            found.append(f"{name} must be {expected}; got {value!r}.")
    if settings.get("optimizer") is not None:
        found += optimizer_problems(settings["optimizer"])
    for name, known in (("schedule", SCHEDULES), ("mix", MIXES)):
        value = settings.get(name)
        if value is not None and (not isinstance(value, str) or value not in known):
            found.append(str(UnknownName(name, value, known)))
    return found


def check_parts(phases: list[Phase], parts: Mapping[str, Tensor]) -> None:
    """Refuse terms whose part is unknown or empty, before any step.

    Raises:
        ExpungeError: all such terms.
    """
    raise_if(
        [
            f"A term asks for the part {t.part!r}, which "
            + ("is empty." if t.part in parts else f"does not exist; there are: {', '.join(parts)}.")
            for phase in phases
            for t in phase.terms
            if not len(parts.get(t.part, ()))
        ]
    )


__all__ = ["Mix", "Penalty", "Phase", "Schedule", "Term", "Until", "check_parts", "descent_problems"]
