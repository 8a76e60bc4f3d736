"""A few rows like all others: subtracting their batches against subtracting their own shares.

100 random rows of MNIST, LeNet, SGD with momentum. Beside each result its control; `excess_loss` is the mean loss on
the forgotten rows relative to that on unseen rows, which retraining brings to about 1.
"""

from __future__ import annotations

import statistics
import tempfile
import time

import torch
from torch import nn

import expunge as ex
from common import needs_data, save

RECIPE = {"epochs": 5, "lr": 0.01, "batch_size": 64, "weight_decay": 0.0, "schedule": "constant"}
ROWS, LIMIT, SEEDS = 100, 10_000, (0, 1, 2)
OPTIMIZERS = {"momentum": {}, "sgd": {"momentum": 0.0, "lr": 0.05}, "adam": {"optimizer": "adamw", "lr": 1e-3}}

Found = dict[str, list[dict[str, float]]]


def look(model: nn.Module, rows: ex.Rows) -> tuple[float, float]:
    """Accuracy in percent and mean loss."""
    with torch.no_grad():
        logits = torch.cat([model.eval()(rows.x(i)) for i in torch.arange(len(rows)).split(1000)])
    right = float((logits.argmax(1) == rows.y).float().mean())
    return 100 * right, float(nn.functional.cross_entropy(logits, rows.y))


def note(found: Found, row: str, model: nn.Module, forgotten: ex.Rows, unseen: ex.Rows, seconds: float) -> None:
    (accuracy, loss), (test, test_loss) = look(model, forgotten), look(model, unseen)
    numbers = {"forgotten_rows": accuracy, "unseen": test, "excess_loss": loss / test_loss, "seconds": seconds}
    found.setdefault(row, []).append(numbers)


def table(settings: dict, seeds: tuple[int, ...]) -> dict:
    """Every way to take the rows back, for one optimiser."""
    found: Found = {}
    for seed in seeds:
        train, unseen = ex.data.load("mnist", limit=LIMIT)
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:ROWS].sort().values
        ids = train.ids[chosen.numpy()].tolist()
        others = [i for i in train.ids[: 3 * ROWS].tolist() if i not in ids][: 2 * ROWS]  # of which controls are made
        request, forgotten = ex.Request(train, ids=ids), train.take(chosen)
        recipe = {**RECIPE, **settings}
        began = time.perf_counter()
        original = ex.Recipe(model="lenet", **recipe)(train, seed=seed)
        note(found, "original", original, forgotten, unseen, time.perf_counter() - began)
        retrained = ex.Recipe(model="lenet", **recipe)(train, ids=train.ids[request.keep.numpy()], seed=seed)
        note(found, "retrain", retrained, forgotten, unseen, 0.0)
        for record in ("update", "gradient", "sample"):
            sensitive = {} if record == "update" else {"sensitive": [*ids, *others]}
            with tempfile.TemporaryDirectory() as folder:
                recorded = ex.Recipe(model="lenet", **recipe, ledger={"keep": 1.0, "record": record, **sensitive})
                began = time.perf_counter()
                model = recorded(train, seed=seed, ledger=folder)
                note(found, f"{record}: trained", model, forgotten, unseen, time.perf_counter() - began)
                scaled = [(0.05, 1.0)] if record != "sample" else [(0.05, s) for s in (1.0, 0.3, 0.1, 0.03)]
                for keep, scale in [(1.0, 1.0), *scaled]:
                    name, fields = ("amnesiac", {}) if keep == 1 else ("partial_amnesiac", {"keep": keep})
                    fields = {**fields, "scale": scale}
                    control = record != "gradient"
                    result = ex.unlearn(model, request, name, ledger=folder, seed=seed, control=control, **fields)
                    row = f"{record}, keep {keep:g}" + (f", scale {scale:g}" if scale < 1 else "")
                    note(found, row, result.model, forgotten, unseen, result.seconds)
                    if control:
                        told = result.log.facts["control"]["control"]
                        found[row][-1] |= {"control_forgotten_rows": told["forget"], "control_retained": told["retain"]}
    return {row: {k: _mean_sd([one[k] for one in some]) for k in some[0]} for row, some in found.items()}


def _mean_sd(values: list[float]) -> list[float]:
    return [round(statistics.mean(values), 3), round(statistics.stdev(values) if len(values) > 1 else 0.0, 3)]


if __name__ == "__main__":
    needs_data("mnist")
    tables = {"momentum": table(OPTIMIZERS["momentum"], SEEDS)}
    tables |= {name: table(OPTIMIZERS[name], SEEDS[:1]) for name in ("sgd", "adam")}
    save("single_rows", {"columns": "mean, standard deviation over seeds", "tables": tables})
