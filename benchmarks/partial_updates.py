"""What partial updates spare: retained accuracy once class 3 of MNIST is forgotten, for each share, rule and loss.

LeNet on 10,000 rows, 3 seeds. Every run ends by the methods' own goal: at most 1 % of 256 forget rows are right.
Defaults are chosen by the accuracy on 10,000 training rows that were not used (validation); the test set is only
reported.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import expunge as ex
from common import needs_data, save

SEEDS = (0, 1, 2)
KEEPS = (1.0, 0.2, 0.1, 0.05, 0.02, 0.01)
RULES = [("random_step", 0.2), ("sequential", 0.2), ("fixed_topk", 0.2), ("fixed_topk", 0.05), ("layer_subset", 0.4)]
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "label flip, lr 0.01": ("partial_label_flip", {"lr": 0.01}),
    "bounded, lr 0.003": ("partial_optimization", {"loss": "bounded", "lr": 0.003}),
}
# is it only a smaller step? and the other losses
CONTROLS: list[tuple[str, str, dict[str, Any]]] = [
    ("label flip, lr 0.003", "partial_label_flip", {"lr": 0.003, "keep": 1.0}),
    ("bounded, lr 0.001", "partial_optimization", {"lr": 0.001, "keep": 1.0}),
    *(
        (f"ascent{bound}, lr 0.003", "partial_optimization", {"loss": "ascent", "lr": 0.003, "keep": keep, "cap": cap})
        for bound, cap in ((", no cap", None), (", capped", 1.0))
        for keep in (1.0, 0.05)
    ),
]


def share_right(model: nn.Module, rows: ex.Rows, index: Tensor) -> float:
    """The accuracy on these rows, in percent."""
    right = 0
    with torch.no_grad():
        for part in index.split(2000):
            right += int((model(rows.x(part)).argmax(1) == rows.y[part]).sum())
    return 100 * right / len(index)


def summary(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"mean": round(statistics.mean(values), 2), "std": round(statistics.stdev(values), 2)}


if __name__ == "__main__":
    needs_data("mnist")
    whole, test = ex.data.load("mnist")
    train, _ = ex.data.load("mnist", limit=10_000)
    unused = torch.from_numpy(np.flatnonzero(~np.isin(whole.ids, train.ids)))
    unused = unused[torch.randperm(len(unused), generator=torch.Generator().manual_seed(0))[:10_000]]
    others = {
        "validation": (whole, unused[whole.y[unused] != 3]),
        "test": (test, (test.y != 3).nonzero().flatten()),
    }
    threes = (test.y == 3).nonzero().flatten()
    request = ex.Request(train, classes=[3])
    recipe = ex.Recipe(model="lenet", epochs=10, lr=0.05, batch_size=128)
    originals = {seed: recipe(train, seed=seed) for seed in SEEDS}
    rows: list[dict[str, Any]] = []

    def measured(form: str, models: list[nn.Module], **more: Any) -> None:
        """Add a row of the table."""
        found = {name: [share_right(m, *where) for m in models] for name, where in others.items()}
        found["target"] = [share_right(m, test, threes) for m in models]
        rows.append({"form": form, **more, **{name: summary(values) for name, values in found.items()}})
        print(rows[-1], flush=True)

    def unlearned(form: str, method: str, fields: dict[str, Any]) -> None:
        """Unlearn by this setting from each seed's original, and measure."""
        made = [ex.unlearn(originals[s], request, method, seed=s, epochs=20, **fields) for s in SEEDS]
        settings = {"rule": fields.get("rule", "topk_step"), "keep": fields["keep"]}
        more = {"steps": [r.log.steps for r in made], "goal_reached": [not r.log.notes for r in made]}
        measured(form, [r.model for r in made], **settings, **more)

    measured("original", list(originals.values()))
    for form, (method, fields) in FORMS.items():
        for keep in KEEPS:
            unlearned(form, method, {**fields, "keep": keep})
        for rule, keep in RULES:
            unlearned(form, method, {**fields, "keep": keep, "rule": rule})
    for form, method, fields in CONTROLS:
        unlearned(form, method, fields)
    about = "mnist, 10,000 rows, lenet, class 3, seeds 0 to 2, until at most 1 % of 256 forget rows are right; percent"
    save("partial_updates", {"about": about, "rows": rows})
