"""Partial against conventional amnesiac on real data: a minority class, over the share kept and over optimisers.

The request of Graves et al.: a class of which only 100 rows were trained on, so that about a tenth of the steps is
touched. No fine-tuning anywhere. Beside every result its control: as many other steps taken back.

    python benchmarks/amnesiac.py                  # everything
    python benchmarks/amnesiac.py mnist_lenet …    # some of it
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass

import torch
from torch import nn

import expunge as ex
from common import earlier, needs_data, save

KEEPS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Case:
    """One table.

    Args:
        data: name of the data.
        model: name and fields.
        target: the class to be forgotten, of which `rows` rows are trained on.
        rows: see target.
        recipe: settings of the training.
        limit: rows before the class is cut.
        seeds: of the trainings.
    """

    data: str
    model: dict
    recipe: dict
    target: int = 3
    rows: int = 100
    limit: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)


Found = dict[str, list[dict[str, float]]]
SGD = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant", "batch_size": 64}
ADAM = SGD | {"optimizer": "adam", "lr": 1e-3}
PLAIN = SGD | {"momentum": 0.0, "lr": 0.05}
LENET, RESNET = {"name": "lenet"}, {"name": "resnet9", "width": 8}

CASES = {
    "mnist_lenet": Case("mnist", LENET, {**SGD, "epochs": 5}),
    "mnist_lenet_adam": Case("mnist", LENET, {**ADAM, "epochs": 5}, seeds=(0,)),
    "mnist_lenet_plain_sgd": Case("mnist", LENET, {**PLAIN, "epochs": 5}, seeds=(0,)),
    "mnist_mlp": Case("mnist", {"name": "mlp"}, {**SGD, "epochs": 5}),
    "fashion_lenet": Case("fashion_mnist", LENET, {**SGD, "epochs": 5}),
    "pneumonia_convnet": Case(
        "pneumoniamnist", {"name": "convnet", "width": 16}, {**SGD, "epochs": 8}, target=0, rows=8
    ),
    "cifar10_resnet9": Case("cifar10", RESNET, {**SGD, "epochs": 4}, rows=40, limit=10_000),
}


def right(model: nn.Module, rows: ex.Rows) -> float:
    model.eval()
    with torch.no_grad():
        parts = torch.arange(len(rows)).split(1000)
        return 100 * float(torch.cat([model(rows.x(i)).argmax(1) == rows.y[i] for i in parts]).float().mean())


def table(case: Case) -> dict:
    """For original, retraining and every share: accuracy on targeted and retained test rows and on forgotten ones."""
    found: Found = {}
    shares, sizes = [], []
    for seed in case.seeds:
        train, test, request = _asked(case)
        is_target = test.y == case.target
        parts = {"targeted": test.take(is_target.nonzero().flatten())}
        parts["retained"] = test.take((~is_target).nonzero().flatten()) if request.classes else test
        parts["forgotten_rows"] = train.take(request.forget)
        with tempfile.TemporaryDirectory() as folder:
            recipe = ex.Recipe(model=case.model, **case.recipe, ledger={"keep": 1.0})
            began = time.perf_counter()
            model = recipe(train, seed=seed, ledger=folder)
            _look(found, "original", model, parts, time.perf_counter() - began)
            plain = dataclasses.replace(recipe, ledger=None)
            began = time.perf_counter()
            retrained = plain(train, ids=train.ids[request.keep.numpy()], seed=seed)
            _look(found, "retrain", retrained, parts, time.perf_counter() - began)
            ledger = ex.Ledger(folder)
            shares.append(ledger.touched(request).share)
            sizes.append(ledger.size)
            for keep in KEEPS:
                name, fields = ("amnesiac", {}) if keep == 1 else ("partial_amnesiac", {"keep": keep})
                result = ex.unlearn(model, request, name, ledger=ledger, seed=seed, allow_full=True, **fields)
                control = result.log.facts["control"]["control"]
                more = {"control_forgotten_rows": control["forget"], "control_retained_rows": control["retain"]}
                _look(found, f"keep {keep:g}", result.model, parts, result.seconds, **more)
    rows = {row: {k: _mean_sd([one[k] for one in some]) for k in some[0]} for row, some in found.items()}
    return {
        "case": dataclasses.asdict(case),
        "touched_share": _mean_sd(shares),
        "ledger_megabytes": round(statistics.mean(sizes) / 1e6, 1),
        "rows": rows,
    }


def _asked(case: Case) -> tuple[ex.Rows, ex.Rows, ex.Request]:
    """The data, and a class cut short as the request; of two classes, as many rows of one."""
    train, test = ex.data.load(case.data, limit=case.limit)
    mine = (train.y == case.target).nonzero().flatten()
    if train.num_classes == 2:
        return train, test, ex.Request(train, ids=train.ids[mine[: case.rows].numpy()].tolist())
    others = (train.y != case.target).nonzero().flatten()
    train = train.take(torch.cat([others, mine[: case.rows]]).sort().values)
    return train, test, ex.Request(train, classes=[case.target])


def _look(found: Found, row: str, model: nn.Module, parts: dict[str, ex.Rows], seconds: float, **more: float) -> None:
    numbers = {name: right(model, rows) for name, rows in parts.items()}
    found.setdefault(row, []).append({**numbers, "seconds": seconds, **more})


def _mean_sd(values: list[float]) -> list[float]:
    return [round(statistics.mean(values), 3), round(statistics.stdev(values) if len(values) > 1 else 0.0, 3)]


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(CASES)
    needs_data(*{CASES[name].data for name in chosen})
    there = earlier("amnesiac").get("tables", {})
    for name in chosen:
        there[name] = table(CASES[name])
        save("amnesiac", {"columns": "mean, standard deviation over seeds", "tables": there})
