"""UNSIR against retraining, its published rates, its controls and the public notebook: `python benchmarks/unsir.py`.

One class and a pair, three seeds, on small parts of MNIST, Fashion-MNIST and CIFAR-10, once with a Transformer. `--only
NAME` runs one of them and keeps what is there of the others; models are cached, see EXPUNGE_CACHE. Accuracies are in
percent, on test sets.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

import torch

import expunge as ex
from common import earlier, needs_data, save
from expunge.artifact import Store
from expunge.pool import Pool

NET = {"name": "convnet", "depth": 2, "width": 16, "norm": "batch"}
VIT = {"name": "vit_tiny", "patch": 7, "dim": 64, "depth": 4, "heads": 4}
ADAM = {"optimizer": "adamw", "lr": 3e-3}
SETS: dict[str, dict[str, Any]] = {  # by the name of the data, or of what is given as data
    "mnist": {"limit": 6000, "recipe": {"model": "lenet", "epochs": 8, "lr": 0.05}},
    "fashion_mnist": {"limit": 6000, "recipe": {"model": NET, "epochs": 6, "lr": 0.1}},
    "cifar10": {"limit": 4000, "recipe": {"model": {**NET, "depth": 3}, "epochs": 8, "lr": 0.1}},
    "mnist, vit_tiny": {"data": "mnist", "limit": 4000, "recipe": {"model": VIT, "epochs": 10, **ADAM}},
}
PUBLISHED = {"lr": 0.02, "repair_lr": 0.01, "batch_size": 256, "images": 256}
ROWS: dict[str, dict[str, Any]] = {
    "unsir": {},
    "unsir, published rates and noise": PUBLISHED,
    "unsir, a tenth of the published rates": {"lr": 0.002, "repair_lr": 0.001, "batch_size": 256},
    "unsir, notebook": {**PUBLISHED, "compat": "notebook"},
    "unsir, 256 images": {"images": 256},
    "unsir, 16 images, 10 steps": {"images": 16, "noise_steps": 10},
    "control: no noise": {"noise": "none"},
    "control: Gaussian noise": {"noise": "gaussian"},
    "control: no noise, published rates": {**PUBLISHED, "noise": "none"},
}
REQUESTS = ((3,), (3, 8))
FIRST_ONLY = ("unsir, 256 images", "unsir, 16 images, 10 steps")  # how much noise is enough is asked once
FULL_EPOCHS = 20


def accuracies(model: torch.nn.Module, test: ex.Rows, classes: tuple[int, ...]) -> tuple[float, float]:
    """Of the test rows of these classes, and of the others."""
    with torch.no_grad():
        hit = torch.cat([model(test.x(i)).argmax(1) == test.y[i] for i in torch.arange(len(test)).split(1000)])
    gone = torch.isin(test.y, torch.tensor(classes))
    return 100 * float(hit[gone].float().mean()), 100 * float(hit[~gone].float().mean())


def measured(name: str, seeds: int) -> dict[str, Any]:
    data = SETS[name].get("data", name)
    train, test = ex.data.load(data, limit=SETS[name]["limit"])
    whole = ex.data.load(data)[0].y
    recipe = ex.Recipe(**SETS[name]["recipe"])
    pool = Pool(recipe, train, Store())
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        run = ex.Run(seed=seed)
        original = pool.train(torch.arange(len(train)), run)
        for classes in REQUESTS:
            request = ex.Request(train, classes=list(classes))
            retrained = pool.train(request.keep, run)
            kept = int((~torch.isin(whole, torch.tensor(classes))).sum())
            known = {"original": (original, 0.0), "retrain": (retrained, retrained.seconds)}
            for row, (one, seconds) in known.items():
                forget, retain = accuracies(one.model, test, classes)
                found.append({"row": row, "classes": classes, "seed": seed, "forget": forget, "retain": retain})
                found[-1] |= {"seconds": seconds}
            for row, fields in ROWS.items():
                if row in FIRST_ONLY and classes != REQUESTS[0]:
                    continue
                result = ex.unlearn(original.model, request, "unsir", seed=seed, **fields)
                forget, retain = accuracies(result.model, test, classes)
                log = result.log
                found.append({"row": row, "classes": classes, "seed": seed, "forget": forget, "retain": retain})
                found[-1] |= {"steps": log.steps, "examples": log.examples, "seconds": result.seconds}
                found[-1] |= {"seconds_to_retraining": result.seconds / retrained.seconds}
                found[-1] |= {"examples_to_20_full_epochs": log.examples / (FULL_EPOCHS * kept)}
                print(name, found[-1], flush=True)
    return {"recipe": recipe.describe(), "limit": SETS[name]["limit"], "rows": summary(found)}


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds, with the standard deviation of accuracies and the loss of retained accuracy to retraining."""
    lines = []
    for row, classes in dict.fromkeys((f["row"], f["classes"]) for f in found):
        some = [f for f in found if (f["row"], f["classes"]) == (row, classes)]
        best = {f["seed"]: f["retain"] for f in found if f["row"] == "retrain" and f["classes"] == classes}
        line: dict[str, Any] = {"row": row, "classes": list(classes), "seeds": len(some)}
        for key in some[0].keys() - {"row", "classes", "seed"}:
            line[key] = round(statistics.mean(f[key] for f in some), 3)
        for key in ("forget", "retain"):
            line[f"{key}_sd"] = round(statistics.stdev(f[key] for f in some), 3) if len(some) > 1 else None
        line["forget_worst"] = round(max(f["forget"] for f in some), 3)
        line["retain_below_retraining"] = round(statistics.mean(best[f["seed"]] - f["retain"] for f in some), 3)
        lines.append(dict(sorted(line.items())))
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    names = [chosen.only] if chosen.only else list(SETS)
    needs_data(*(SETS[name].get("data", name) for name in names))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    fresh = {name: measured(name, chosen.seeds) for name in names}
    before = earlier("unsir").get("data", {})
    save("unsir", {"rates": {row: fields for row, fields in ROWS.items()}, "data": {**before, **fresh}})
