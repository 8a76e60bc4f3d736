"""SVD class forgetting: what is forgotten and kept on test images, at what cost, and its layer steps against an SVD.

`python benchmarks/svd_forget.py layers lenet` runs these parts and puts them beside those in the results already.
Times are processor seconds of one thread, which other work on the machine disturbs little. Originals are kept in the
store; a retraining is made anew and timed. Small training sets and few epochs, as each entry says; what would be 20
epochs on the full set is computed from the measured retraining, in proportion to rows and epochs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import expunge as ex
from common import earlier, needs_data, ratio, save
from expunge.artifact import Store
from expunge.artifact.activations import find_layers, share
from expunge.artifact.activations.moments import add_products, pack
from expunge.methods import FineTune, SVDForget
from expunge.methods.svd_forget.edit import remove, spare
from expunge.pool import Pool
from expunge.run import Run

COLUMNS = 10_000  # what the official code decomposes at most
ALL = tuple(range(10))
NARROW = {"name": "resnet9", "width": 16}
WIDE = {"name": "vgg11_bn"}
VIT = {"name": "vit_tiny", "patch": 7, "dim": 64, "depth": 4, "heads": 4}
ADAM = {"optimizer": "adamw", "lr": 3e-3}
LONGER = {"epochs": 8, "weight_decay": 5e-4}
# part: data, rows, test rows, model, recipe, classes in turn by seed
TRAINED: dict[str, tuple[str, int, int, dict, dict, dict]] = {
    "lenet, fashion_mnist": (
        *("fashion_mnist", 10_000, 10_000, {"name": "lenet"}, {"epochs": 6}),
        {0: ALL, 1: (0, 3, 6), 2: (0, 3, 6)},
    ),
    "lenet, mnist": (
        *("mnist", 10_000, 10_000, {"name": "lenet"}, {"epochs": 5}),
        {0: ALL, 1: (1, 3, 8), 2: (1, 3, 8)},
    ),
    "resnet9 of width 16, fashion_mnist": ("fashion_mnist", 10_000, 4_000, NARROW, {"epochs": 5}, {0: (0, 3)}),
    "vit_tiny of width 64 and depth 4, mnist": (
        *("mnist", 4_000, 2_000, VIT, {"epochs": 10, **ADAM}),
        {0: (1, 3, 8), 1: (1, 3, 8), 2: (1, 3, 8)},
    ),
    "resnet9 of width 16, cifar10": ("cifar10", 5_000, 2_000, NARROW, {"epochs": 6}, {0: (0, 3), 1: (3,), 2: (3,)}),
    "vgg11_bn, fashion_mnist": ("fashion_mnist", 2_500, 2_000, WIDE, {"epochs": 5}, {0: (0,), 1: (3,), 2: (7,)}),
    "vgg11_bn, mnist": ("mnist", 2_500, 2_000, WIDE, {"epochs": 5}, {0: (1,), 1: (3,), 2: (8,)}),
    "vgg11_bn trained longer, mnist": ("mnist", 10_000, 4_000, WIDE, LONGER, {0: (3, 1, 8), 1: (3,), 2: (8,)}),
    "resnet18 trained longer, mnist": ("mnist", 10_000, 4_000, {"name": "resnet18"}, LONGER, {0: (3,)}),
    "vgg11_bn trained longer, fashion_mnist": (
        *("fashion_mnist", 10_000, 4_000, WIDE, LONGER),
        {0: (3,), 1: (7,), 2: (0,)},
    ),
}
RETRAINED = ("lenet", "vgg11_bn", "vit_tiny")  # the others take long on one core
# fewer pairs of scales where each takes long on one core
FEWER = SVDForget(scale_retain=(30.0, 100.0, 300.0), scale_forget=(1.0, 3.0, 10.0))


def timed(function: Callable, *args, **kwargs) -> tuple[Any, float]:
    began = time.process_time()
    out = function(*args, **kwargs)
    return out, time.process_time() - began


@contextmanager
def nothing_kept() -> Iterator[None]:
    """An empty folder for what is kept, inside the block."""
    before = os.environ.get("EXPUNGE_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EXPUNGE_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("EXPUNGE_CACHE")
            os.environ |= {} if before is None else {"EXPUNGE_CACHE": before}


# -- what is forgotten and kept ----------------------------------------------------------------------------------------


def on_test(model: nn.Module, test: ex.Rows, label: int) -> dict[str, float]:
    """Accuracy on test images of the class, and of the others, in percent."""
    model.eval()
    with torch.no_grad():
        parts = torch.arange(len(test)).split(500)
        right = torch.cat([model(test.x(part)).argmax(1) == test.y[part] for part in parts]).float()
    gone = test.y == label
    return {"forget": round(100 * float(right[gone].mean()), 2), "retain": round(100 * float(right[~gone].mean()), 2)}


def original_of(part: str, seed: int) -> tuple[ex.Rows, ex.Rows, ex.Recipe, nn.Module]:
    data, limit, tests, model, settings, _ = TRAINED[part]
    needs_data(data)
    train, test = ex.data.load(data, limit=limit)
    test = test.scaled_like(train).take(torch.arange(min(tests, len(test))))
    recipe = ex.Recipe(model=model, **{"lr": 0.05, "batch_size": 128, **settings})
    return train, test, recipe, Pool(recipe, train, Store()).train(torch.arange(len(train)), Run(seed=seed)).model


def one(method: SVDForget, original: nn.Module, request: ex.Request, test: ex.Rows, seed: int) -> dict:
    (label,) = request.classes
    result, seconds = timed(ex.unlearn, original, request, method, seed=seed)
    facts = result.log.facts
    found = {
        "seed": seed,
        "class": label,
        "original": on_test(original, test, label),
        "svd_forget": on_test(result.model, test, label),
        "chosen": facts.get("chosen"),
        "seconds": round(seconds, 2),
        "statistics_kept": facts["statistics"]["measured"] == 0,
    }
    print(found, flush=True)
    # scale_retain, scale_forget, and the accuracies on held-out forget and retain rows
    return {**found, "frontier": [" ".join(f"{round(v, 1):g}" for v in p.values()) for p in facts["frontier"]]}


def trained(part: str) -> dict:
    data, limit, *_, plan = TRAINED[part]
    method = FEWER if part.startswith(("vgg11_bn", "resnet18")) else SVDForget()
    rounds, repaired, again, costs = [], None, None, [0.0, 0.0]
    for seed, classes in plan.items():
        train, test, recipe, original = original_of(part, seed)
        with nothing_kept():
            for label in classes:
                request = ex.Request(train, classes=[label])
                rounds.append(one(method, original, request, test, seed))
                if repaired is None:
                    chosen = {name: (scale,) for name, scale in (rounds[0]["chosen"] or {}).items()}
                    chain = replace(method, **chosen).then(FineTune(epochs=1))
                    repaired, costs[0] = timed(ex.unlearn, original, request, chain, recipe=recipe)
                    repaired = {"class": label, **on_test(repaired.model, test, label), "seconds": round(costs[0], 2)}
                if again is None and part.startswith(RETRAINED):
                    again, costs[1] = timed(Pool(recipe, train).train, request.keep, Run(seed=seed))
                    again = {"class": label, **on_test(again.model, test, label), "seconds": round(costs[1], 2)}
    full = costs[1] * (50_000 if data == "cifar10" else 60_000) / limit * 20 / recipe.epochs
    sides, counted = ("original", "svd_forget"), ("forget", "retain")
    return {
        "rows": limit,
        "test_rows": len(test),
        "epochs": recipe.epochs,
        "mean": {s: {w: round(sum(r[s][w] for r in rounds) / len(rounds), 2) for w in counted} for s in sides},
        "worst_forget": max(r["svd_forget"]["forget"] for r in rounds),
        "worst_loss_of_retain": round(max(r["original"]["retain"] - r["svd_forget"]["retain"] for r in rounds), 2),
        "retrain": again,
        "then_finetune": repaired,
        "seconds_of_20_epochs_on_all_rows": round(full) if full else None,
        "first_request_to_that": round(rounds[0]["seconds"] / full, 5) if full else None,
        "rounds": rounds,
    }


# -- a second request from kept statistics -----------------------------------------------------------------------------


def second() -> dict:
    """The first request on a model against one for another class, with one pair of scales and with the grid."""
    found = {}
    for part in ("lenet, fashion_mnist", "resnet9 of width 16, fashion_mnist"):
        train, _, _, original = original_of(part, 0)
        pair = SVDForget(scale_retain=(100.0,), scale_forget=(3.0,))
        with nothing_kept():
            plan = ((0, pair), (3, pair), (5, pair), (3, SVDForget()))
            times = [timed(ex.unlearn, original, ex.Request(train, classes=[c]), method)[1] for c, method in plan]
        first, later, grid = times[0], min(times[1:3]), times[3]
        with_grid = {"first": grid + first - later, "second": grid, "times_faster": (grid + first - later) / grid}
        found[part] = {
            "one_pair": {"first": first, "second": later, "times_faster": first / later},
            "grid": with_grid,  # the first is computed: the second, and what the statistics took
        }
        found[part] = {k: {n: float(f"{v:.3g}") for n, v in some.items()} for k, some in found[part].items()}
        print(part, found[part], flush=True)
    return found


# -- the layer steps ---------------------------------------------------------------------------------------------------


def by_svd(w_od: torch.Tensor, retain_nd: torch.Tensor, forget_nd: torch.Tensor) -> torch.Tensor:
    """The published steps in float32: decompose both d × n matrices, build M_r, M_f and P, and multiply."""
    spaces = []
    for a_nd, scale in ((retain_nd, 100.0), (forget_nd, 3.0)):
        u, s, _ = torch.linalg.svd(a_nd.T, full_matrices=False)
        energy = s**2 / (s**2).sum()
        spaces.append((u * (scale * energy / ((scale - 1) * energy + 1))) @ u.T)
    m_r, m_f = spaces
    return w_od @ (torch.eye(len(m_r)) - (m_f - m_f @ m_r)).T


def by_cholesky(w_od: torch.Tensor, retain_nd: torch.Tensor, forget_nd: torch.Tensor) -> torch.Tensor:
    """Ours from the same columns: moments as they are kept, and the closed form."""
    shares = []
    for a_nd in (retain_nd, forget_nd):
        moment = torch.zeros((1, w_od.shape[1], w_od.shape[1]), dtype=torch.float64)
        add_products(moment, a_nd[None])
        shares.append(share(pack(moment).float()))
    w = w_od.double()[None]
    return remove(w, spare(w, shares[0], 100.0), shares[1], 3.0)[0].float()


def layers() -> dict:
    """The same layers and columns for both, inputs of CIFAR-10 images in untrained networks."""
    needs_data("cifar10")
    train, _ = ex.data.load("cifar10", limit=2_000)
    found: dict[str, Any] = {"columns": COLUMNS, "layers": {}}
    theirs, ours = [], []
    for name in ("vgg11_bn", "resnet18"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ex.models.build(name, channels=3, size=32, classes=10).eval()
        every = find_layers(model)[0]
        for layer in [next(one for one in every if one.matrix.shape[-1] == d) for d in (576, 1152)]:
            columns = []
            for label in (False, True):
                got: list[torch.Tensor] = []
                hook = layer.modules[0].register_forward_pre_hook(
                    lambda module, args, kwargs, got=got, layer=layer: got.extend(
                        part[0] for part in layer.read(module, args, kwargs)
                    ),
                    with_kwargs=True,
                )
                rows = ((train.y == 3) == label).nonzero().flatten()[:160]
                with torch.no_grad():
                    model(train.x(rows))
                hook.remove()
                a = torch.cat(got)
                picks = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))[:COLUMNS]
                columns.append(a[picks])
            w = layer.matrix[0]
            a, slow = timed(by_svd, w, *columns)
            b, quick = zip(*[timed(by_cholesky, w, *columns) for _ in range(3)])
            theirs.append(slow)
            ours.append(sorted(quick)[1])
            d = w.shape[1]
            found["layers"][f"{name} {layer.name}, d {d}, n {len(columns[0])}"] = {
                "svd_seconds": round(slow, 2),
                "seconds": round(ours[-1], 3),
                "times_faster": round(slow / ours[-1], 1),
                "largest_difference": float(f"{float((a - b[0]).abs().max()):.2g}"),
            }
            print(found["layers"], flush=True)
    return {**found, "times_faster": ratio(theirs, ours), "in_all": round(sum(theirs) / sum(ours), 1)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    extra = {"layers": layers, "second": second}
    wanted = sys.argv[1:] or [*TRAINED, *extra]
    for part in [p for p in (*TRAINED, *extra) if any(p.startswith(w) for w in wanted)]:
        found = extra[part]() if part in extra else trained(part)
        save("svd_forget", {**earlier("svd_forget"), part: found})
