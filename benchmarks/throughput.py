"""Training and unlearning against the plain PyTorch way, in turn, as ratios in one run.

Same network, initial weights, rows, optimiser, batch size and number of epochs. The plain way (`plain.py`) is once that
of tutorials, with the steps that torchvision's datasets take for each item, and once a lean one. Each way has a process
of its own: what one leaves in the allocator would change the speed of the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import expunge as ex
import plain
from common import needs_data, ratio, save
from expunge.data.catalogue import data_folder
from expunge.descend import descend
from expunge.phase import Phase, Term
from expunge.run import Run
from plain import ALPHA, BATCH, LR

WAYS = {"tutorial": plain.Tutorial, "lean": plain.Lean, "expunge": None}
FORGET = 3  # the class


@dataclass(frozen=True)
class Setting:
    """One comparison: `rows` of a named dataset, and a network."""

    data: str
    model: str
    rows: int
    epochs: int
    seeds: int
    fields: dict[str, Any] = field(default_factory=dict)

    def blank(self, shape: Sequence[int], seed: int) -> nn.Module:
        """The network with its initial weights."""
        torch.manual_seed(seed)
        return ex.models.build(self.model, channels=shape[0], size=shape[1], classes=10, **self.fields)


class Way(Protocol):
    """What each process holds: the data, and the model that is being trained."""

    model: nn.Module

    def begin(self, seed: int) -> None:
        """Take a new model."""
        ...

    def epoch(self, seed: int, number: int) -> None:
        """Train it for an epoch."""
        ...

    def forget(self, seed: int) -> None:
        """Unlearn the class from a trained model, for an epoch."""
        ...


class Plain:
    def __init__(self, way: str, setting: Setting, rows: ex.Rows) -> None:
        self.setting, self.shape = setting, rows.shape
        with np.load(Path(str(data_folder())) / f"{setting.data}.npz") as arrays:
            images, labels = arrays["x_train"], arrays["y_train"].ravel()
        self.data = WAYS[way](images, labels, rows.scale.mean, rows.scale.std)
        self.index = {"all": rows.ids.tolist(), "retain": rows.ids[rows.y != FORGET].tolist()}
        self.index["forget"] = rows.ids[rows.y == FORGET].tolist()

    def begin(self, seed: int) -> None:
        self.model = self.setting.blank(self.shape, seed)
        self.optimizer = plain.sgd(self.model)

    def epoch(self, seed: int, number: int) -> None:
        plain.train(self.model, self.optimizer, plain.loader(self.data, self.index["all"]))

    def forget(self, seed: int) -> None:
        plain.neggrad_plus(self.model, *(plain.loader(self.data, self.index[part]) for part in ("retain", "forget")))


class Ours:
    def __init__(self, setting: Setting, rows: ex.Rows) -> None:
        self.setting, self.rows, self.task = setting, rows, ex.Classification(classes=10)
        self.request = ex.Request(rows, classes=[FORGET])

    def begin(self, seed: int) -> None:
        self.model = self.setting.blank(self.rows.shape, seed)

    def epoch(self, seed: int, number: int) -> None:
        phase = Phase(terms=(Term("train"),), epochs=1, lr=LR, batch_size=BATCH)
        run, parts = Run(seed=100 * seed + number), {"train": torch.arange(len(self.rows))}
        descend(self.model, self.rows, parts, self.task, [phase], run)

    def forget(self, seed: int) -> None:
        settings = {"epochs": 1, "lr": LR, "batch_size": BATCH, "alpha": ALPHA, "schedule": "constant"}
        ex.unlearn(self.model, self.request, "neggrad_plus", seed=seed, **settings)


HERE: dict[str, Any] = {}  # of a process: its way, and the test rows


def prepare(way: str, setting: Setting) -> None:
    rows, test = ex.data.load(setting.data, limit=setting.rows)
    HERE["test"] = test.take(torch.arange(min(2_000, len(test))))
    HERE["way"] = Ours(setting, rows) if WAYS[way] is None else Plain(way, setting, rows)


def seconds(what: str, *args: int) -> float:
    """How long one piece of work took in this process."""
    began = time.perf_counter()
    getattr(HERE["way"], what)(*args)
    return time.perf_counter() - began


def accuracy() -> float:
    """Of the model that is being trained, in percent."""
    model, test = HERE["way"].model.eval(), HERE["test"]
    with torch.no_grad():
        parts: list[Tensor] = [model(test.x(i)).argmax(1) == test.y[i] for i in torch.arange(len(test)).split(500)]
    return 100 * float(torch.cat(parts).float().mean())


def compare(setting: Setting) -> dict[str, Any]:
    """Epochs of all ways in turn, so that a machine that slows down slows all."""
    spawn = get_context("spawn")
    at = {way: ProcessPoolExecutor(1, spawn, prepare, (way, setting)) for way in WAYS}
    training: dict[str, list[float]] = {way: [] for way in WAYS}
    unlearning: dict[str, list[float]] = {way: [] for way in WAYS}
    reached: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(setting.seeds):
        for way in WAYS:
            at[way].submit(seconds, "begin", seed).result()
        for number in range(setting.epochs):
            for way in WAYS:
                training[way].append(at[way].submit(seconds, "epoch", seed, number).result())
        for way in WAYS:
            reached[way].append(at[way].submit(accuracy).result())
        for way in WAYS:
            unlearning[way].append(at[way].submit(seconds, "forget", seed).result())
    for process in at.values():
        process.shutdown()
    spread = max(*(statistics.stdev(reached[way]) for way in WAYS), 0.2)
    gap = statistics.mean(reached["expunge"]) - statistics.mean(reached["tutorial"])
    return {
        "rows": setting.rows,
        "epochs": setting.epochs,
        "seeds": setting.seeds,
        "threads": torch.get_num_threads(),
        **{
            f"times_faster_than_{way}": {
                "training": ratio(training[way], training["expunge"]),
                "unlearning": ratio(unlearning[way], unlearning["expunge"]),
            }
            for way in WAYS
            if way != "expunge"
        },
        "seconds_of_an_epoch": {way: statistics.median(values) for way, values in training.items()},
        "test_accuracy": {way: [round(a, 2) for a in values] for way, values in reached.items()},
        "accuracy_gap": round(gap, 2),
        "accuracy_gap_within_two_seed_spreads": abs(gap) <= 2 * spread,
    }


if __name__ == "__main__":
    needs_data("mnist", "cifar10")
    results = {
        "lenet, mnist": compare(Setting("mnist", "lenet", rows=12_000, epochs=3, seeds=3)),
        "resnet9 of width 16, cifar10": compare(
            Setting("cifar10", "resnet9", rows=2_000, epochs=2, seeds=3, fields={"width": 16})
        ),
    }
    save("throughput", results)
