"""SalUn against what it is made of, its cost, and how far its mask is its own: `python benchmarks/salun.py`.

On small parts of MNIST, Fashion-MNIST and CIFAR-10, random 10 % and one class: `avg_gap` of SalUn, fine-tuning, random
labelling and gradient ascent, each at the rate of one common grid that the validation rule of `search` likes best on
the first seed; no retrained model takes part in the choice, nor do the rows that are judged by. `--only PART` measures
one part and keeps what is there of the others; models are cached, see EXPUNGE_CACHE.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import expunge as ex
from common import earlier, needs_data, ratio, save
from expunge.artifact import Store
from expunge.artifact.saliency import measure
from expunge.descend import descend
from expunge.errors import Diverged
from expunge.method import Job, perform
from expunge.methods.stand_in import Judge
from expunge.pool import Pool
from expunge.proximal import Proximal
from expunge.registry import from_config
from expunge.unlearning import default_task

NET = {"name": "resnet9", "width": 8}
SETS: dict[str, dict[str, Any]] = {
    "mnist": {"limit": 3000, "recipe": {"model": NET, "epochs": 8, "lr": 0.1, "batch_size": 64}},
    "fashion_mnist": {"limit": 3000, "recipe": {"model": NET, "epochs": 8, "lr": 0.1, "batch_size": 64}},
    "cifar10": {"limit": 3000, "recipe": {"model": NET, "epochs": 10, "lr": 0.1, "batch_size": 64}},
}
REQUESTS: dict[str, dict[str, Any]] = {
    "random 10 %": {"fraction": 0.1, "seed": 0},
    "class 3": {"classes": [3]},
}
ROWS: dict[str, dict[str, Any]] = {
    "finetune": {"name": "finetune", "epochs": 3},
    "random_label": {"name": "random_label", "epochs": 3},
    "gradient_ascent": {"name": "gradient_ascent", "epochs": 5},
    "salun": {"name": "salun", "epochs": 3},
}
BATCH = 64
RATES = (0.002, 0.01, 0.05)
KEYS = ("ua", "ra", "ta", "mia", "avg_gap")


def halves(test: ex.Rows, held: int) -> tuple[ex.Rows, ex.Rows]:
    """Rows to choose by, and rows to judge by."""
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    return test.take(order[:held]), test.take(order[held : held + 2000])


def at(original: torch.nn.Module, fields: dict[str, Any], rate: float, request: ex.Request, run: ex.Run) -> ex.Result:
    """The result of a method at a rate."""
    method = from_config({**fields, "lr": rate, "batch_size": BATCH})
    return perform(original, method, Job(request, default_task(request), run))


def chosen(original: torch.nn.Module, fields: dict[str, Any], request: ex.Request, held: ex.Rows, run: ex.Run) -> Any:
    """The rate that the validation rule likes best, how far each was from what it asks for, and the result there."""
    judge = Judge(original, Job(request, default_task(request), run, unseen=held), 2000)
    tried: dict[float, float] = {}
    made: dict[float, ex.Result] = {}
    for rate in RATES:
        try:
            made[rate] = at(original, fields, rate, request, run)
            tried[rate] = round(judge(made[rate].model).distance, 3)
        except Diverged:
            tried[rate] = float("inf")
    best = min(tried, key=lambda rate: tried[rate])
    return best, tried, made[best]


def gaps(name: str, seeds: int) -> dict[str, Any]:
    """The table of one set of data."""
    train, test = ex.data.load(name, limit=SETS[name]["limit"])
    held, unseen = halves(test, 500)
    recipe = ex.Recipe(**SETS[name]["recipe"])
    pool, found = Pool(recipe, train, Store()), {}
    for what, asked in REQUESTS.items():
        request = ex.Request(train, **asked)
        models: dict[str, list[Any]] = {"original": []}
        rates: dict[str, Any] = {}
        for seed in range(seeds):
            run = ex.Run(seed=seed)
            original = pool.train(torch.arange(len(train)), run).model
            models["original"].append(original)
            for row, fields in ROWS.items():
                if row in rates:
                    models[row].append(at(original, fields, rates[row][0], request, run))
                    continue
                rate, tried, first = chosen(original, fields, request, held, run)
                rates[row] = rate, tried
                models[row] = [first]
                print(name, what, row, rates[row], flush=True)
        report = ex.audit(
            models,
            request,
            unseen=unseen,
            recipe=recipe,
            seeds=list(range(seeds)),
            attacks=["confidence"],
            relearn=False,
            examples=0,
        )
        table = {}
        for row in dict.fromkeys(r["method"] for r in report.rows):
            some = [r for r in report.rows if r["method"] == row]
            line = {k: mean([r[k] for r in some]) for k in KEYS}
            line["avg_gap_sd"] = sd([r["avg_gap"] for r in some])
            line["seconds"] = mean([r["seconds"] for r in some])
            table[row] = line | ({"lr": rates[row][0], "distances": finite(rates[row][1])} if row in rates else {})
            print(name, what, row, table[row], flush=True)
        found[what] = table
    return {
        "recipe": recipe.describe(),
        "limit": SETS[name]["limit"],
        "seeds": seeds,
        "requests": found,
    }


def overlaps(name: str) -> dict[str, Any]:
    """Jaccard indices of the mask of the forget rows with that of the retain rows, of all rows, and a random one."""
    train, _ = ex.data.load(name, limit=SETS[name]["limit"])
    run = ex.Run(seed=0)
    found: dict[str, Any] = {}
    model = Pool(ex.Recipe(**SETS[name]["recipe"]), train, Store()).train(torch.arange(len(train)), run).model
    for what, asked in REQUESTS.items():
        request = ex.Request(train, **asked)
        task = default_task(request)
        forget = ex.saliency(model, request)
        retain = measure(model, train, request.keep, task, run)
        draws = torch.Generator().manual_seed(0)
        random = {n: torch.rand(s.shape, generator=draws) for n, s in forget.items()}
        squares = ex.saliency(model, request, aggregation="sum_of_squares")
        found[what] = {}
        for share in (0.1, 0.5):
            masks = ex.Region.top(forget, share).masks or {}
            others = {
                "retain": retain,
                "random": random,
                "forget, sum_of_squares": squares,
            }
            found[what][f"share {share}"] = {
                other: round(jaccard(masks, ex.Region.top(scores, share).masks or {}), 3)
                for other, scores in others.items()
            }
    return found


def jaccard(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Weights in both masks over weights in either; two random masks of share s are at s / (2 - s)."""
    both = sum(int((one[n] & other[n]).sum()) for n in one)
    return both / sum(int((one[n] | other[n]).sum()) for n in one)


def epochs(model: dict[str, Any], rows: int, batch: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of an epoch of random labelling: everywhere, as SalUn, as SalUn-soft."""
    train, _ = ex.data.load("cifar10", limit=rows)
    spec = dict(model)
    torch.manual_seed(0)
    net = ex.models.build(spec.pop("name"), channels=3, size=32, classes=10, **spec)
    request = ex.Request(train, fraction=0.1, seed=0)
    began = time.process_time()
    scores = ex.saliency(net, request, cache=False)
    seconds: dict[str, list[float]] = {"saliency": [time.process_time() - began]}
    began = time.process_time()
    mask = ex.Region.top(scores, 0.5)
    seconds["selection"] = [time.process_time() - began]
    phase = ex.methods.RandomLabel(epochs=1, batch_size=batch).phase()
    parts = {"retain": request.keep, "forget": request.forget}
    soft = Proximal("rank", 0.5, phase.steps_per_epoch(parts))
    regions = {"random_label": None, "salun": mask, "salun_soft": ex.Region(updates=soft)}
    for _ in range(rounds):
        for name, region in regions.items():
            work, began = copy.deepcopy(net), time.process_time()
            descend(work, train, parts, default_task(request), [phase], ex.Run(), region)
            seconds.setdefault(name, []).append(time.process_time() - began)
    to_plain = {n: ratio(seconds[n], seconds["random_label"]) for n in ("salun", "salun_soft")}
    weights = sum(p.numel() for p in net.parameters())
    told = {"model": model, "weights": weights, "rows": rows, "batch": batch, "steps": phase.steps_per_epoch(parts)}
    return {**told, "seconds": seconds, "to_plain": to_plain}


def selection(rounds: int = 3) -> dict[str, Any]:
    """Processor seconds to choose half of resnet18's 11 million weights, ours and by sorting ranks."""
    net = ex.models.build("resnet18", channels=3, size=32, classes=10)
    draws = torch.Generator().manual_seed(0)
    scores = {n: torch.randn(p.shape, generator=draws).abs() for n, p in net.named_parameters()}
    n = sum(s.numel() for s in scores.values())

    def by_ranks() -> dict[str, Tensor]:
        flat = torch.cat([-s.flatten() for s in scores.values()])
        rank = torch.argsort(torch.argsort(flat))
        parts = (rank < int(n * 0.5)).split([s.numel() for s in scores.values()])
        return {name: part.view(s.shape) for (name, s), part in zip(scores.items(), parts)}

    times: dict[str, list[float]] = {"ours": [], "argsort of argsort": []}
    for _ in range(rounds):
        for name, choose in (
            ("ours", lambda: ex.Region.top(scores, 0.5).masks),
            ("argsort of argsort", by_ranks),
        ):
            began = time.process_time()
            masks = choose()
            times[name].append(time.process_time() - began)
            if sum(int(m.sum()) for m in (masks or {}).values()) != int(n * 0.5):
                raise SystemExit(f"{name} chose another number of weights")
    return {
        "weights": n,
        "seconds": times,
        "faster": ratio(times["argsort of argsort"], times["ours"]),
    }


def finite(distances: dict[float, float]) -> dict[str, float | None]:
    """By rate; none where it diverged."""
    return {f"{rate:g}": d if math.isfinite(d) else None for rate, d in distances.items()}


def mean(values: list[Any]) -> float | None:
    """Of those that are there."""
    there = [v for v in values if v is not None]
    return round(statistics.mean(there), 3) if there else None


def sd(values: list[float]) -> float | None:
    """The standard deviation; none of one value."""
    return round(statistics.stdev(values), 3) if len(values) > 1 else None


if __name__ == "__main__":
    parts = (*SETS, "masks", "cost")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    needs_data(*SETS)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for part in [asked.only] if asked.only else parts:
        found: dict[str, Any] = {}
        if part == "cost":
            found["cost"] = {
                "resnet9": epochs(NET, 2000, 256, 5),
                "resnet18": epochs({"name": "resnet18"}, 256, 64, 2),
                "selection": selection(),
            }
        elif part == "masks":
            found["masks"] = {name: overlaps(name) for name in SETS}
        else:
            fresh = gaps(part, asked.seeds)
            found["data"] = {**earlier("salun").get("data", {}), part: fresh}
        save("salun", {**earlier("salun"), "rates": RATES, "rows": ROWS, **found})
