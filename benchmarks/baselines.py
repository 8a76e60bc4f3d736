"""The field's baselines, as set here and as published, beside retraining: `python benchmarks/baselines.py`.

One class, and a random 5 %, of digits and of small parts of MNIST and Fashion-MNIST with LeNet. A new method is one
line of `METHODS`; `--only METHOD` measures the rows of one method, `--data NAME` one dataset, and what is there of the
others is kept. Models are cached, see EXPUNGE_CACHE. Numbers are those of `expunge.audit`, in percent.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

import torch

import expunge as ex
from common import earlier, needs_data, save
from expunge import registry

# the name of a row: the method, its fields, and which requests it is for
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "neggrad_plus": ("neggrad_plus", {}),
    "random_label": ("random_label", {}),
    "scrub": ("scrub", {}),
    "scrub, published": (
        "scrub",
        {"lr": 5e-4, "labels": 0.99, "likeness": 0.001, "batch_size": 32, "cap": None, "clip_norm": None},
    ),
    "scrub, rewind": ("scrub", {"rewind": True}),
    "bad_teacher": ("bad_teacher", {}),
    "bad_teacher, published": ("bad_teacher", {"lr": 1e-4, "batch_size": 256}),
    "boundary_shrink": ("boundary_shrink", {}),
    "boundary_shrink, published": ("boundary_shrink", {"lr": 1e-5}),
    "boundary_expand": ("boundary_expand", {}),
    "boundary_expand, published": ("boundary_expand", {"lr": 1e-5}),
    "ssd": ("ssd", {}),
    "ssd, by the loss": ("ssd", {"labels": "own"}),
    "ssd, published": ("ssd", {"labels": "own", "alpha": 10.0, "gradients": "batch"}),
    "influence": ("influence", {}),
    "influence, published": ("influence", {"alpha": 5.0, "reach": None, "samples": 1000, "labels": "own"}),
    "fisher": ("fisher", {}),
    "fisher, ten times the noise": ("fisher", {"alpha": 1e-4}),
    "fisher, head zeroed": ("fisher", {"zero_head": True}),
}
CONVNET = {"name": "convnet", "width": 16, "depth": 2, "norm": "batch"}
SETS: dict[str, dict[str, Any]] = {
    "digits": {"limit": None, "recipe": {"model": CONVNET, "epochs": 8, "lr": 0.1, "batch_size": 64}},
    "mnist": {"limit": 4000, "recipe": {"model": "lenet", "epochs": 8, "lr": 0.05, "batch_size": 64}},
    "fashion_mnist": {"limit": 4000, "recipe": {"model": "lenet", "epochs": 8, "lr": 0.05, "batch_size": 64}},
}
REQUESTS: dict[str, dict[str, Any]] = {"class 3": {"classes": [3]}, "random 5 %": {"fraction": 0.05, "seed": 0}}
NUMBERS = ("ua", "ra", "ta", "tfa", "mia", "avg_gap", "seconds")


def measured(name: str, methods: dict[str, tuple[str, dict[str, Any]]], seeds: int) -> dict[str, Any]:
    """The rows of one dataset: for each request, each method's numbers as mean and standard deviation over seeds."""
    train, test = ex.data.load(name, limit=SETS[name]["limit"])
    half = torch.randperm(len(test), generator=torch.Generator().manual_seed(0)) < len(test) // 2
    held, judged = test.take(half), test.take(~half)  # one half to choose by, where a method chooses; one to judge by
    recipe = ex.Recipe(**SETS[name]["recipe"])
    found = {}
    for asked, how in REQUESTS.items():
        request = ex.Request(train, **how)
        audit = {"unseen": judged, "recipe": recipe, "seeds": seeds, "attacks": ["confidence"], "relearn": False}
        models: dict[str, list[ex.Result]] = {}
        for row, (method, fields) in methods.items():
            served = request.classes or not fields.get("zero_head")
            if served and request.scope in registry.get(method).card.scope:
                models[row] = [
                    ex.unlearn(original(train, recipe, seed), request, method, seed=seed, unseen=held, **fields)
                    for seed in range(seeds)
                ]
        report = ex.audit(models, request, **audit)
        found[asked] = {row: summary(report, row) for row in dict.fromkeys(r["method"] for r in report.rows)}
        for row, line in found[asked].items():
            print(name, asked, row, {k: v["mean"] if isinstance(v, dict) else v for k, v in line.items()}, flush=True)
    return found


ORIGINALS: dict[tuple[str, int], torch.nn.Module] = {}


def original(train: ex.Rows, recipe: ex.Recipe, seed: int) -> torch.nn.Module:
    """The model before unlearning, from the cache where it is there."""
    from expunge.artifact import Store
    from expunge.pool import Pool

    if (train.hash, seed) not in ORIGINALS:
        pool = Pool(recipe, train, Store())
        ORIGINALS[train.hash, seed] = pool.train(torch.arange(len(train)), ex.Run(seed=seed)).model
    return ORIGINALS[train.hash, seed]


def summary(report: ex.Report, row: str) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and the verdict."""
    lines = [line for line in report.rows if line["method"] == row]
    numbers = {}
    for number in NUMBERS:
        values = [line[number] for line in lines if line.get(number) is not None]
        if values:
            spread = round(statistics.stdev(values), 2) if len(values) > 1 else None
            numbers[number] = {"mean": round(statistics.mean(values), 2), "sd": spread}
    return {**numbers, "seeds": len(lines), "verdict": lines[0]["verdict"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=SETS, nargs="*", default=list(SETS))
    parser.add_argument("--only", choices=sorted({method for method, _ in METHODS.values()}), nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    needs_data(*(name for name in chosen.data if name != "digits"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    some = {row: given for row, given in METHODS.items() if not chosen.only or given[0] in chosen.only}
    fresh = {name: measured(name, some, chosen.seeds) for name in chosen.data}
    data = earlier("baselines").get("data", {})  # read late: others may have written meanwhile
    for name, requests in fresh.items():
        for asked, rows in requests.items():
            data.setdefault(name, {}).setdefault(asked, {}).update(rows)
    settings = {row: {"method": method, **fields} for row, (method, fields) in METHODS.items()}
    save("baselines", {"rows": settings, "sets": SETS, "requests": REQUESTS, "data": data})
