"""WF-Net: every class in turn from one round, on test images, beside retraining; its cost; its explanation.

`python benchmarks/weight_filter.py lenet` runs these parts and puts them beside those in the results already. Times are
processor seconds of one thread. Originals and retrainings are kept in the store; one retraining, without class 3, is
made anew and timed. Small training sets and few epochs, as each entry says; what would be 20 epochs on the full set is
computed from that retraining, in proportion to rows and epochs. For comparison class 3 is retrained, with some seeds
every class.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import expunge as ex
from common import earlier, needs_data, save
from expunge import explain
from expunge.artifact import Store
from expunge.artifact.gates import Gated
from expunge.audit.divergence import js, zrf
from expunge.methods import WeightFilter
from expunge.pool import Pool
from expunge.run import Run

NARROW = {"name": "resnet9", "width": 8}
VIT = {"name": "vit_tiny", "patch": 7, "dim": 64, "depth": 4, "heads": 4}
ADAM = {"optimizer": "adamw", "lr": 3e-3}
# part: data, rows, test rows, model, recipe, seeds
TRAINED: dict[str, tuple[str, int, int, dict, dict, tuple[int, ...]]] = {
    "lenet, mnist": ("mnist", 10_000, 10_000, {"name": "lenet"}, {"epochs": 5}, (0, 1, 2)),
    "lenet, fashion_mnist": ("fashion_mnist", 10_000, 10_000, {"name": "lenet"}, {"epochs": 6}, (0, 1, 2)),
    "vit_tiny of width 64 and depth 4, mnist": ("mnist", 4_000, 2_000, VIT, {"epochs": 10, **ADAM}, (0, 1, 2)),
    "resnet9 of width 8, cifar10": ("cifar10", 5_000, 2_000, NARROW, {"epochs": 6}, (0, 1, 2)),
}
EVERY_CLASS = {"lenet": (0,), "resnet9": (0, 1, 2), "vit_tiny": ()}  # seeds with which each class is retrained
IMAGES = 150  # that are explained


def timed(function: Callable, *args, **kwargs) -> tuple[Any, float]:
    began = time.process_time()
    out = function(*args, **kwargs)
    return out, time.process_time() - began


def scores(model: nn.Module, rows: ex.Rows) -> Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([model(rows.x(part)) for part in torch.arange(len(rows)).split(250)])


def percent(logits: Tensor, y: Tensor, side: Tensor) -> float:
    return round(100 * float((logits.argmax(1) == y)[side].float().mean()), 2)


def speed(model: nn.Module, copy: nn.Module, x: Tensor) -> float:
    """The time of a folded copy's forward pass over the original's, the median of pairs."""
    with torch.no_grad():
        pairs = [timed(copy, x)[1] / timed(model, x)[1] for _ in range(15)]
    return round(sorted(pairs)[7], 2)


def one_round(part: str, seed: int) -> dict:
    data, limit, tests, model, settings, _ = TRAINED[part]
    needs_data(data)
    train, test = ex.data.load(data, limit=limit)
    test = test.scaled_like(train).take(torch.arange(min(tests, len(test))))
    recipe = ex.Recipe(model=model, **{"lr": 0.05, "batch_size": 128, **settings})
    original = Pool(recipe, train, Store()).train(torch.arange(len(train)), Run(seed=seed)).model
    gated, seconds = timed(WeightFilter(keep_gates=False).prepare, original, train, run=Run(seed=seed))
    before, y = scores(original, test), test.y
    retained, forgotten, original_retained, hard = [], [], [], []
    after = {}
    for label in range(10):
        after[label] = scores(gated.forgetting([label]), test)
        gone = y == label
        forgotten.append(percent(after[label], y, gone))
        retained.append(percent(after[label], y, ~gone))
        original_retained.append(percent(before, y, ~gone))
        hard.append(scores(gated.folded((gated.row([label]) >= 0.5).float()), test))
    request = ex.Request(train, classes=[3])
    again, again_seconds = timed(Pool(recipe, train).train, request.keep, Run(seed=seed))
    retrained, gone = scores(again.model, test), y == 3
    ideal = {3: percent(retrained, y, ~gone)}
    for label in range(10) if seed in EVERY_CLASS[part.split()[0].rstrip(",")] else ():
        keep = ex.Request(train, classes=[label]).keep
        ideal[label] = percent(
            scores(Pool(recipe, train, Store()).train(keep, Run(seed=seed)).model, test), y, y != label
        )
    below = [round(value - retained[label], 2) for label, value in sorted(ideal.items())]
    untrained = scores(recipe.blank(train), test)
    full = again_seconds * (50_000 if data == "cifar10" else 60_000) / limit * 20 / recipe.epochs
    found = {
        "seed": seed,
        "original": round(sum(original_retained) / 10, 2),
        "forget": {"mean": round(sum(forgotten) / 10, 2), "worst": max(forgotten), "each": forgotten},
        "retain": {"mean": round(sum(retained) / 10, 2), "worst": min(retained), "each": retained},
        "retain_below_retraining": {
            "classes": sorted(ideal),
            "mean": round(sum(below) / len(below), 2),
            "worst": max(below),
        },
        "hard": {
            "forget": round(sum(percent(z, y, y == c) for c, z in enumerate(hard)) / 10, 2),
            "retain": round(sum(percent(z, y, y != c) for c, z in enumerate(hard)) / 10, 2),
        },
        "class_3": {
            "retain": {"retrain": percent(retrained, y, ~gone), "weight_filter": retained[3]},
            "zrf": {
                name: round(zrf(z[gone].numpy(), untrained[gone].numpy()).value, 4)
                for name, z in (("original", before), ("weight_filter", after[3]), ("retrain", retrained))
            },
            "js_to_retrain": {
                n: mean_js(z, retrained, gone) for n, z in (("original", before), ("weight_filter", after[3]))
            },
            "activation_distance_to_retrain": {
                n: distance(z, retrained, gone) for n, z in (("original", before), ("weight_filter", after[3]))
            },
        },
        "together": together(gated, test),
        "closed_share": round(float((gated.gates() < 0.5).float().mean()), 3),
        "seconds": round(seconds, 1),
        "seconds_of_this_retraining": round(again_seconds, 1),
        "round_over_this_retraining": round(seconds / again_seconds, 2),
        "round_over_20_epochs_on_all_rows": round(seconds / full, 4),
        "folded_over_original_time": speed(original, gated.forgetting([3]), test.x(torch.arange(250))),
    }
    print(part, found, flush=True)
    return found | {"explanations": explanations(original, gated, test)}


def mean_js(a: Tensor, b: Tensor, side: Tensor) -> float:
    return round(float(js(a[side].numpy(), b[side].numpy()).mean()), 4)


def distance(a: Tensor, b: Tensor, side: Tensor) -> float:
    return round(float((a[side].softmax(1) - b[side].softmax(1)).norm(dim=1).mean()), 4)


def together(gated: Gated, test: ex.Rows) -> dict[str, dict[str, float]]:
    """Several classes by the least of their gates."""
    found = {}
    for classes in ([1, 2], [3, 8], [1, 4, 7], [0, 2, 4, 6, 8]):
        z, gone = scores(gated.forgetting(classes), test), torch.isin(test.y, torch.tensor(classes))
        found[" ".join(map(str, classes))] = {"forget": percent(z, test.y, gone), "retain": percent(z, test.y, ~gone)}
    return found


def explanations(model: nn.Module, gated: Gated, test: ex.Rows) -> list[dict]:
    """Of the class that the model gives each image."""
    x = test.x(torch.arange(IMAGES))
    classes = scores(model, test.take(torch.arange(IMAGES))).argmax(1)
    side = 5 if x.shape[-1] == 28 else 4
    ways = {
        "gates": explain.gate_maps(gated.closed(10)),
        "grad_cam": explain.grad_cam,
        "integrated_gradients": explain.integrated_gradients,
        "chance": explain.chance,
        "chance, coarse": lambda m, x_BCHW, c: explain.chance(m, x_BCHW, c, side=side),
    }
    return explain.compare(model, x, classes, ways, steps=16)


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = earlier("weight_filter")
    wanted = sys.argv[1:] or list(TRAINED)
    for part in [p for p in TRAINED if any(p.startswith(w) for w in wanted)]:
        data, limit, tests, *_, seeds = TRAINED[part]
        rounds = [one_round(part, seed) for seed in seeds]
        results[part] = {"rows": limit, "test_rows": tests, "epochs": TRAINED[part][4]["epochs"], "rounds": rounds}
        save("weight_filter", results)
