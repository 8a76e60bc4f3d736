"""What it costs to audit one more model, as a share of one retraining in one run: lenet, 30,000 rows of MNIST."""

from __future__ import annotations

import tempfile
import time

import expunge as ex
from common import needs_data, save

if __name__ == "__main__":
    needs_data("mnist")
    train, test = ex.data.load("mnist", limit=30_000)
    request = ex.Request(train, classes=[3])
    recipe = ex.Recipe(model="lenet", epochs=10, lr=0.05, batch_size=128)
    cache = tempfile.mkdtemp()
    first = ex.audit({}, request, unseen=test, recipe=recipe, seeds=1, cache=cache, relearn=False)
    retraining = [row["seconds"] for row in first.rows if row["method"] == "retrain"]
    original = recipe(train, seed=0)
    extra = ex.unlearn(original, request, "finetune", epochs=1).model

    def audited(models: dict, relearn: bool) -> float:
        began = time.perf_counter()
        ex.audit(
            {"original": original, **models}, request, unseen=test, recipe=recipe, seeds=1, cache=cache, relearn=relearn
        )
        return time.perf_counter() - began

    shares = {}
    for relearn in (False, True):
        few, many = ({f"more {i}": extra for i in range(n)} for n in (1, 4))
        cost = (audited(many, relearn) - audited(few, relearn)) / 3
        name = "with relearn time" if relearn else "without relearn time"
        shares[name] = cost / (sum(retraining) / len(retraining))
    save("audit_cost", {"retraining_seconds": retraining, "share_of_one_retraining": shares})
