"""What it costs in accuracy, and spares in steps, to keep rows that may have to go together in few batches.

The share of steps touched is counted in the very plan that the training follows: steps with at least one row of the
deleted class, of the sensitive rows, or of one user (the mean over ten of them).
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import expunge as ex
from common import needs_data, save
from expunge.batching import expected_share
from expunge.phase import Phase, Term
from expunge.run import Run

BATCH, SEEDS = 128, 3


def accuracy(model: torch.nn.Module, rows: ex.Rows) -> float:
    """In percent."""
    with torch.no_grad():
        parts = torch.arange(len(rows)).split(1000)
        return 100 * float(torch.cat([model(rows.x(i)).argmax(1) == rows.y[i] for i in parts]).float().mean())


def touched(recipe: ex.Recipe, rows: ex.Rows, seed: int, requests: list[Tensor]) -> float:
    """The share of the training's steps, in percent, that hold a row of a request; the mean over the requests."""
    phase = replace(Phase.of(recipe, terms=(Term("train"),)), groups=recipe.grouping(rows))
    whole, run = {"train": torch.arange(len(rows))}, Run(seed=seed)
    steps = [i for e in range(recipe.epochs) for [(_, i)] in phase.plan(whole, run.generator("plan", 0, e))]
    marks = torch.zeros(len(requests), len(rows), dtype=torch.bool)
    for r, index in enumerate(requests):
        marks[r, index] = True
    return 100 * float(torch.stack([marks[:, i].any(1) for i in steps]).float().mean())


def crowd(rows: ex.Rows, users: int, one_class: bool, seed: int) -> dict[int, int]:
    """Users of 50 to 100 rows each, drawn from all rows or, for each user, from one class; by id."""
    generator = torch.Generator().manual_seed(seed)
    free = torch.randperm(len(rows), generator=generator)
    owner: dict[int, int] = {}
    for user in range(users):
        size = int(torch.randint(50, 101, (1,), generator=generator))
        pool = free[rows.y[free] == user % rows.num_classes] if one_class else free
        taken = pool[:size]
        owner |= dict.fromkeys(rows.ids[taken.numpy()].tolist(), user)
        free = free[~torch.isin(free, taken)]
    return owner


def one(settings: dict[str, Any], train: ex.Rows, test: ex.Rows, requests: list[Tensor]) -> dict[str, Any]:
    """Steps touched and test accuracy over seeds."""
    recipe = ex.Recipe(**settings)
    reached = [accuracy(recipe(train, seed=seed), test) for seed in range(SEEDS)]
    return {
        "steps_touched": round(statistics.mean(touched(recipe, train, seed, requests) for seed in range(SEEDS)), 2),
        "accuracy": round(statistics.mean(reached), 2),
        "sd": round(statistics.stdev(reached), 2),
    }


def compare(name: str, limit: int, epochs: int, users: int) -> dict[str, Any]:
    """All groupings on one dataset; the shuffled training is the same for all."""
    train, test = ex.data.load(name, limit=limit)
    base = {"model": "lenet", "epochs": epochs, "batch_size": BATCH}
    ids = train.ids[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:100].numpy()].tolist()
    some, alike = crowd(train, users, False, 0), crowd(train, users, True, 0)
    cases: dict[str, tuple[Any, tuple[int, ...], list[Tensor]]] = {
        "class": ("class", (1, 2, 3, 5), [(train.y == c).nonzero().flatten() for c in range(10)]),
        "100 sensitive rows": (ids, (1, 2, 4), [train.positions(ids)]),
        f"{users} users": (some, (1, 3), _rows_of(train, some)),
        f"{users} users of one class each": (alike, (1, 3, 8), _rows_of(train, alike)),
    }
    found: dict[str, Any] = {"rows": len(train), "epochs": epochs, "batch": BATCH}
    shuffled = one(base, train, test, [])
    for case, (together, widths, requests) in cases.items():
        random = statistics.mean(expected_share(len(r), len(train), BATCH) for r in requests)
        counted = statistics.mean(touched(ex.Recipe(**base), train, s, requests) for s in range(SEEDS))
        rows = {"shuffled": {**shuffled, "steps_touched": round(counted, 2), "expected": round(100 * random, 2)}}
        for width in widths:
            began = time.perf_counter()
            settings = {**base, "together": together, "groups_per_batch": width}
            rows[f"{width} a batch"] = one(settings, train, test, requests)
            print(name, case, width, rows[f"{width} a batch"], f"{time.perf_counter() - began:.0f} s", flush=True)
        found[case] = rows
    return found


def _rows_of(rows: ex.Rows, owner: dict[int, int]) -> list[Tensor]:
    return [rows.positions([i for i, u in owner.items() if u == user]) for user in range(10)]


if __name__ == "__main__":
    needs_data("mnist", "fashion_mnist")
    results = {"mnist, lenet": compare("mnist", 20_000, epochs=3, users=200)}
    results["fashion_mnist, lenet"] = compare("fashion_mnist", 10_000, epochs=4, users=100)
    save("grouped_batches", results)
