"""What a ledger costs a training, and what it costs to forget with it: ratios in one run.

Training with and without a ledger in turn; reading of all touched records against plain sequential reading of the same
files; unlearning against retraining. `python benchmarks/ledger_overhead.py lenet` measures only the parts whose name
begins so, and keeps what is there of the others.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import expunge as ex
from common import earlier, needs_data, ratio, save
from expunge.artifact.ledger.ledger import FEWEST, MOST, WAITING

REPEATS = 3


def compare(data: str, limit: int, model: dict, epochs: int, keep: float, classes: list[int]) -> dict:
    """Times of trainings in turn, and of forgetting."""
    train, _ = ex.data.load(data, limit=limit)
    recipe = ex.Recipe(model=model, epochs=epochs, lr=0.02, batch_size=128)
    recorded = dataclasses.replace(recipe, ledger={"keep": keep})
    times: dict[str, list[float]] = {"plain": [], "ledger": []}
    recipe(train)  # warm
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            began = time.perf_counter()
            recipe(train)
            times["plain"].append(time.perf_counter() - began)
            began = time.perf_counter()
            trained = recorded(train, ledger=f"{folder}/{repeat}")
            times["ledger"].append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ledger = ex.Ledger(f"{folder}/0")
        request = ex.Request(train, classes=classes)
        steps = ledger.touched(request).steps
        read = reading(ledger, Path(folder, "0"), steps)
        size = ledger.size
        name = "amnesiac" if keep == 1 else "partial_amnesiac"
        fields = {} if keep == 1 else {"keep": keep}
        result = ex.unlearn(trained, request, name, allow_full=True, control=False, **fields)
    weights = sum(p.numel() for p in trained.parameters())
    waiting = max(FEWEST, min(MOST, WAITING // (4 * weights)))  # steps on their way to the disk
    return {
        "rows": len(train),
        "weights": weights,
        "steps": len(steps),
        "keep": keep,
        "training_with_over_without": ratio(times["ledger"], times["plain"]),
        "peak_memory_more_megabytes": round((after - before) / 1024, 1),
        "memory_bound_megabytes": round(4 * weights * (1 + waiting) / 1e6, 1),
        "bytes_per_step": round(size / max(len(steps), 1)),
        "dense_bytes_per_step": 4 * weights,
        **read,
        "unlearning_seconds": round(result.seconds, 3),
        "retraining_seconds": round(min(times["plain"]), 3),
        "unlearning_over_retraining": round(result.seconds / min(times["plain"]), 4),
    }


def reading(ledger: ex.Ledger, folder: Path, steps: Any) -> dict:
    """How fast these steps' records are read and added up, and how fast the same files are read one after another."""
    shards = [p for p in folder.iterdir() if p.stat().st_size > 4096 and p.suffix not in (".sqlite",)]
    times: dict[str, list[float]] = {"forgetting": [], "sequential": []}
    for _ in range(REPEATS):
        began = time.perf_counter()
        ledger.reader().total(steps)
        times["forgetting"].append(time.perf_counter() - began)
        began = time.perf_counter()
        for path in shards:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.read(1 << 20):
                    pass
        times["sequential"].append(time.perf_counter() - began)
    return {f"{way}_read_megabytes_per_second": round(ledger.size / 1e6 / min(t), 1) for way, t in times.items()}


def large(keep: float) -> dict:
    """Reading where records are large: a few steps of resnet18."""
    train, _ = ex.data.load("cifar10", limit=640)
    recipe = ex.Recipe(model="resnet18", epochs=1, lr=0.02, batch_size=64, ledger={"keep": keep})
    with tempfile.TemporaryDirectory() as folder:
        recipe(train, ledger=folder)
        ledger = ex.Ledger(folder)
        found = reading(ledger, Path(folder), range(1, ledger.steps + 1))
        return {"steps": ledger.steps, "keep": keep, "bytes_per_step": round(ledger.size / ledger.steps), **found}


LENET = ("mnist", 20_000, {"name": "lenet"}, 2)
RESNET9 = ("cifar10", 6_000, {"name": "resnet9", "width": 16}, 2)
PARTS: dict[str, Callable[[], dict]] = {
    **{f"lenet, mnist, keep {k:g}": partial(compare, *LENET, k, [3]) for k in (0.01, 0.1, 1.0)},
    **{f"resnet9 of width 16, cifar10, keep {k:g}": partial(compare, *RESNET9, k, [3]) for k in (0.01, 0.1)},
    **{f"resnet18, cifar10, keep {k:g}, reading only": partial(large, k) for k in (0.01, 0.1, 1.0)},
}

if __name__ == "__main__":
    needs_data("mnist", "cifar10")
    for part in [p for p in PARTS if any(p.startswith(w) for w in sys.argv[1:] or [""])]:
        save("ledger_overhead", {**earlier("ledger_overhead"), part: PARTS[part]()})
