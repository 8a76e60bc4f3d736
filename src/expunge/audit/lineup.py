"""Lineup: the models of an audit in the order of the table; original and retraining are always among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from expunge.audit.generation.fit import generation_problems
from expunge.audit.generation.settings import Generation
from expunge.audit.measure import ATTACKS
from expunge.audit.relearn import Relearn
from expunge.audit.subject import Cost, Ground, Subject
from expunge.errors import ExpungeError, UnknownName, raise_if
from expunge.pool import Pool
from expunge.request import GONE, Request
from expunge.run import Run, as_seed
from expunge.task.base import Task

ORIGINAL, RETRAIN, AGAIN = "original", "retrain", "retrain_again"


def seeds_of(given: Any) -> tuple[int, ...]:
    """Seeds from how many there are to be, or from all of them in order.

    Raises:
        ExpungeError: neither a number, 1 or more, nor whole numbers from 0 in an order.
    """
    try:
        if getattr(given, "ndim", None) == 0 or isinstance(given, int):
            return tuple(range(as_seed(given))) or _no_seeds(given)
        if isinstance(given, (str, bytes, Mapping, Set)) or not isinstance(given, Iterable):
            return _no_seeds(given)
        return tuple(map(as_seed, given))
    except ExpungeError:
        return _no_seeds(given)


def _no_seeds(given: Any) -> tuple[int, ...]:
    raise ExpungeError(f"seeds must be how many, one at least, or a list of whole numbers from 0; got {given!r}.")


@dataclass(frozen=True)
class Terms:
    """What an audit is to do.

    Args:
        seeds: of the retrainings, and of the models where there are several.
        attacks: names of attack features. Default: all.
        relearning: how relearning is measured; none to leave it out.
        examples: so many of the forgotten rows are shown in the results; 0 keeps them out. Default 8.
        device: where models are trained. Default: where the first of those handed in is, or the CPU.
        generation: how the images of denoisers are drawn and judged. Default: as the class says.
    """

    seeds: tuple[int, ...]
    attacks: tuple[str, ...] = ATTACKS
    relearning: Relearn | None = None
    examples: int = 8
    device: str | None = None
    generation: Generation | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.examples, int) or self.examples < 0:
            raise ExpungeError(f"examples must be a whole number, 0 or more; got {self.examples!r}.")
        for attack in self.attacks:
            if attack not in ATTACKS:
                raise UnknownName("attack", attack, ATTACKS)
        if not self.attacks:
            raise ExpungeError(f"An audit needs at least one attack of {', '.join(ATTACKS)}.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ExpungeError(f"seeds must be different whole numbers, one at least; got {list(self.seeds)}.")


@dataclass(frozen=True)
class Entrant:
    """One model that was handed in.

    Args:
        model: any module that the task can score.
        cost: what it took to make.
        source: `"given"` or `"unlearned"`.
        settings: hyper-parameters, for the record.
        facts: what was measured while it was made, as plain data.
        failed: why there is no such model, and `model` is only like it; empty where there is one.
    """

    model: nn.Module
    cost: Cost = field(default_factory=Cost)
    source: str = "given"
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""


Entrants = Mapping[str, Sequence[Entrant]]


@dataclass(frozen=True)
class Lineup:
    """All models of an audit, and where to find the ones that others are compared with."""

    subjects: list[Subject]

    def of(self, method: str) -> list[Subject]:
        """The models of one method, by seed."""
        return [s for s in self.subjects if s.method == method]

    def pair(self, method: str, seed: int) -> Subject | None:
        """The model of a method that belongs to a seed; its first one where that seed has none."""
        found = self.of(method)
        return next((s for s in found if s.seed == seed), found[0] if found else None)

    @property
    def methods(self) -> list[str]:
        """The names of all rows, in order."""
        return list(dict.fromkeys(s.method for s in self.subjects))

    @property
    def said(self) -> list[str]:
        """What the methods had to say while they made the models, a sentence each; once where all seeds agree."""
        seeds: dict[tuple[str, str], list[int]] = {}
        for s in self.subjects:
            for note in s.facts.get("notes", ()):
                seeds.setdefault((s.method, note), []).append(s.seed)
        found = []
        for (method, note), some in seeds.items():
            which = "" if len(some) == len(self.of(method)) else f", seed {', '.join(map(str, some))}"
            found.append(f"{method}{which}: {note}")
        return found

    @property
    def of_another_kind(self) -> list[str]:
        """Which models that were handed in have weights of other shapes than those that the recipe trains."""
        trained = next((s.model for s in self.of(RETRAIN) if s.source == "trained"), None)
        if trained is None:
            return []
        like, size = _shapes(trained)
        given = {s.method: _shapes(s.model) for s in self.subjects if s.source != "trained" and not s.failed}
        return [
            f"{method} is of another architecture than the recipe trains ({mine:,} weights, and {size:,}): retraining "
            "shows how another model does without the rows, not how this one would."
            for method, (shapes, mine) in given.items()
            if shapes != like
        ]


def _shapes(model: nn.Module) -> tuple[list[tuple[int, ...]], int]:
    """The shape of each parameter, and how many weights there are in all."""
    return [tuple(p.shape) for p in model.parameters()], sum(p.numel() for p in model.parameters())


def line_up(
    entrants: Entrants, request: Request, task: Task, ground: Ground, pool: Pool | None, terms: Terms
) -> Lineup:
    """The models that were handed in, with original and retrained ones trained by the pool where they are missing.

    Raises:
        ExpungeError: models that do not fit the data, or in a number that fits no seeds; before any training.
    """
    _check(entrants, request, task, terms)
    given = {
        name: [
            Subject(name, seed, e.model, task, ground, e.cost, e.source, e.settings, e.facts, e.failed)
            for seed, e in zip(terms.seeds, some)
        ]
        for name, some in entrants.items()
    }
    if pool is not None:
        there = (request.state != GONE).nonzero().flatten()
        # one retraining alone has no spread to judge by
        pairs = terms.seeds if len(terms.seeds) > 1 else (*terms.seeds, terms.seeds[0] + 1)
        wanted: list[tuple[str, Tensor, tuple[int, ...]]] = [
            (ORIGINAL, there, terms.seeds),
            (RETRAIN, request.keep, pairs),
        ]
        for name, index, seeds in wanted:
            there_are = given.get(name, [])
            if name == ORIGINAL and there_are:
                continue  # one original may stand for all seeds
            missing = [seed for seed in seeds if seed not in {s.seed for s in there_are}]
            runs = [Run(seed=seed, device=_device(entrants, terms)) for seed in missing]
            given[name] = there_are + [_trained(name, pool, index, run, task, ground) for run in runs]
    if len(given.get(RETRAIN, [])) > 1:
        ring = given[RETRAIN]
        given[AGAIN] = [replace(other, method=AGAIN, seed=s.seed) for s, other in zip(ring, [*ring[1:], ring[0]])]
    first = [name for name in (ORIGINAL, RETRAIN, AGAIN) if name in given]
    return Lineup([s for name in [*first, *(n for n in given if n not in first)] for s in given[name]])


def _check(entrants: Entrants, request: Request, task: Task, terms: Terms) -> None:
    problems = generation_problems(terms.generation, task, request)
    if AGAIN in entrants:
        problems.append(f"{AGAIN} is the name of a row that the audit makes itself; choose another one.")
    for name, some in entrants.items():
        if len(some) not in (1, len(terms.seeds)):
            problems.append(
                f"{name} has {len(some)} models for {len(terms.seeds)} seeds; give one, or one for each seed."
            )
        for entrant in some:
            found = task.problems(entrant.model, request.rows)
            problems += [f"{name}: {p}" for p in found if "NaN" not in p]  # a damaged model gets a verdict, no error
    raise_if(problems)


def _device(entrants: Entrants, terms: Terms) -> torch.device | str | None:
    first = next((e.model for some in entrants.values() for e in some), None)
    return terms.device if terms.device or first is None else Run().device_of(first)


def _trained(name: str, pool: Pool, index: Tensor, run: Run, task: Task, ground: Ground) -> Subject:
    trained = pool.train(index, run)
    cost = Cost(trained.seconds, trained.examples or None, trained.cached)
    return Subject(name, run.seed, trained.model, task, ground, cost, "trained", pool.recipe.describe())
