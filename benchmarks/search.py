"""Searching the strength of methods without a retrained model: how near to retraining, at which part of its cost.

Random 10 % of the rows, methods as they come and with their dial searched by the validation rule, beside the original
and a retraining with another seed. The rows that the search may see are not those that the audit judges by.
`python benchmarks/search.py mnist` runs one part and puts it beside those in the results already.
"""

from __future__ import annotations

import sys

import torch

import expunge as ex
from common import earlier, needs_data, save
from expunge.artifact import Store
from expunge.methods import FineTune, NegGradPlus, Salun, Search
from expunge.pool import Pool
from expunge.run import Run

SEEDS = (0, 1, 2)
PARTS = {
    "mnist, lenet": ("mnist", 10_000, {"name": "lenet"}, {"epochs": 15, "lr": 0.05}),
    "fashion_mnist, lenet": ("fashion_mnist", 10_000, {"name": "lenet"}, {"epochs": 20, "lr": 0.05}),
    "cifar10, resnet9 of width 8": ("cifar10", 5_000, {"name": "resnet9", "width": 8}, {"epochs": 12, "lr": 0.1}),
}
# method, and its dial where that is not the card's
METHODS = {
    "finetune": (FineTune(epochs=3), None),
    "finetune, more decay": (FineTune(epochs=3, weight_decay=5e-3), None),
    "neggrad_plus": (NegGradPlus(epochs=2), "lr"),
    "salun": (Salun(epochs=3), None),
}
TRIES = 5


def one(part: str) -> dict:
    data, limit, model, settings = PARTS[part]
    needs_data(data)
    train, test = ex.data.load(data, limit=limit)
    places = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    held, judged = test.take(places[:2000].sort().values), test.take(places[2000:6000].sort().values)
    recipe = ex.Recipe(model=model, batch_size=128, **settings)
    request = ex.Request(train, fraction=0.1, seed=0)
    pool = Pool(recipe, train, Store())
    rows: dict[str, list] = {"original": []}
    chosen: dict[str, list] = {}
    for seed in SEEDS:
        original = pool.train(torch.arange(len(train)), Run(seed=seed)).model
        rows["original"].append(original)
        for name, (method, dial) in METHODS.items():
            search = Search(of=method, tries=TRIES, dial=dial)
            for row, chosen_method in ((name, method), (f"{name}, searched", search)):
                result = ex.unlearn(original, request, chosen_method, unseen=held, recipe=recipe, seed=seed)
                rows.setdefault(row, []).append(result)
                if row != name:
                    chosen.setdefault(row, []).append(result.log.facts["search"])
    report = ex.audit(rows, request, unseen=judged, recipe=recipe, seeds=SEEDS, attacks=["confidence"], relearn=False)
    found: dict[str, dict] = {}
    for row in dict.fromkeys(r["method"] for r in report.rows):
        mine = [r for r in report.rows if r["method"] == row]
        found[row] = {
            key: [round(r[key], 2) if isinstance(r.get(key), float) else r.get(key) for r in mine]
            for key in ("ua", "ra", "ta", "mia", "avg_gap")
        }
        gaps = [r["avg_gap"] for r in mine if isinstance(r.get("avg_gap"), float)]
        found[row]["mean_avg_gap"] = round(sum(gaps) / len(gaps), 2) if gaps else None
    whole = settings["epochs"] * len(request.keep)  # examples that a retraining sees
    for row, results in rows.items():
        if row == "original":
            continue
        seen = [r.log.examples / whole for r in results]
        found[row]["examples_over_retraining"] = round(sum(seen) / len(seen), 2)
        if row in chosen:
            tries = [len(c["tried"]) for c in chosen[row]]
            found[row] |= {
                "values": [round(c["value"], 5) for c in chosen[row]],
                "tries": tries,
                "examples_of_one_try_over_retraining": round(sum(s / t for s, t in zip(seen, tries)) / len(seen), 2),
                "judged": [min(t.get("distance", 1e9) for t in c["tried"]) for c in chosen[row]],
            }
    return {"rows": limit, "epochs": settings["epochs"], "methods": found}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = earlier("search")
    wanted = sys.argv[1:] or list(PARTS)
    for part in [p for p in PARTS if any(p.startswith(w) for w in wanted)]:
        results[part] = one(part)
        save("search", results)
        for row, entry in results[part]["methods"].items():
            cost = entry.get("examples_over_retraining")
            print(part, row, entry["mean_avg_gap"], cost, entry.get("values"), flush=True)
