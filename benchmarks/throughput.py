"""Training and unlearning against the plain PyTorch way, in turn, as ratios in one run.

Same network, initial weights, rows, optimiser, batch size and number of epochs. The plain way (`plain.py`) is once that
of tutorials, with the steps that torchvision's datasets take for each item, and once a lean one. Each way has a process
of its own: what one leaves in the allocator would change the speed of the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

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
TESTED = 2_000  # test rows


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


@dataclass(frozen=True)
class Given:
    """What all ways are given alike: positions of the rows in the whole training set, and how pixels are scaled."""

    index: list[int]
    forget: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Plain:
    """The plain way: it reads the whole file and takes its rows from there."""

    def __init__(self, setting: Setting, dataset: Callable[..., Dataset], given: Given) -> None:
        self.setting = setting
        with np.load(Path(str(data_folder())) / f"{setting.data}.npz") as arrays:
            self.data, self.test = (
                dataset(arrays[f"x_{part}"], arrays[f"y_{part}"].ravel(), given.mean, given.std)
                for part in ("train", "test")
            )
        gone = set(given.forget)
        self.all, self.forgotten, self.kept = given.index, given.forget, [i for i in given.index if i not in gone]

    def begin(self, seed: int) -> None:
        """Take a new model."""
        self.model = self.setting.blank(self.data[0][0].shape, seed)
        self.optimizer = plain.sgd(self.model)

    def epoch(self, seed: int, number: int) -> None:
        """Train it for an epoch."""
        plain.train(self.model, self.optimizer, plain.loader(self.data, self.all))

    def forget(self, seed: int) -> None:
        """Unlearn the class from it, for an epoch."""
        plain.neggrad_plus(self.model, *(plain.loader(self.data, part) for part in (self.kept, self.forgotten)))

    def accuracy(self) -> float:
        """Of the model, in percent."""
        batches = DataLoader(Subset(self.test, range(TESTED)), batch_size=500)
        return right(self.model, batches)


class Ours:
    """The way of expunge."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.task = setting, ex.Classification(classes=10)
        self.rows, self.test = ex.data.load(setting.data, limit=setting.rows)
        self.request = ex.Request(self.rows, classes=[FORGET])

    def begin(self, seed: int) -> None:
        """Take a new model."""
        self.model = self.setting.blank(self.rows.shape, seed)

    def epoch(self, seed: int, number: int) -> None:
        """Train it for an epoch."""
        phase = Phase(terms=(Term("train"),), epochs=1, lr=LR, batch_size=BATCH)
        run, parts = Run(seed=100 * seed + number), {"train": torch.arange(len(self.rows))}
        descend(self.model, self.rows, parts, self.task, [phase], run)

    def forget(self, seed: int) -> None:
        """Unlearn the class from a copy of it, for an epoch."""
        settings = {"epochs": 1, "lr": LR, "batch_size": BATCH, "alpha": ALPHA, "schedule": "constant"}
        ex.unlearn(self.model, self.request, "neggrad_plus", seed=seed, **settings)

    def accuracy(self) -> float:
        """Of the model, in percent."""
        return right(self.model, ((self.test.x(i), self.test.y[i]) for i in torch.arange(TESTED).split(500)))


def right(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of right answers, in percent."""
    model.eval()
    with torch.no_grad():
        return 100 * float(torch.cat([model(x).argmax(1) == y for x, y in batches]).float().mean())


HERE: dict[str, Plain | Ours] = {}  # the way of this process


def prepare(way: str, setting: Setting, given: Given) -> None:
    """Begin a process."""
    dataset = WAYS[way]
    HERE["way"] = Ours(setting) if dataset is None else Plain(setting, dataset, given)


def work(what: str, *args: int) -> tuple[Any, float]:
    """What a piece of work in this process gave, and how many seconds it took."""
    began = time.perf_counter()
    return getattr(HERE["way"], what)(*args), time.perf_counter() - began


def compare(setting: Setting) -> dict[str, Any]:
    """Epochs of all ways in turn, so that a machine that slows down slows all."""
    spawn = get_context("spawn")
    rows, _ = ex.data.load(setting.data, limit=setting.rows)
    given = Given(rows.ids.tolist(), rows.ids[rows.y == FORGET].tolist(), rows.scale.mean, rows.scale.std)
    at = {way: ProcessPoolExecutor(1, spawn, prepare, (way, setting, given)) for way in WAYS}
    training: dict[str, list[float]] = {way: [] for way in WAYS}
    unlearning: dict[str, list[float]] = {way: [] for way in WAYS}
    reached: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in WAYS:  # once without counting: libraries are still being loaded
        for what, args in (("begin", (0,)), ("epoch", (0, 0)), ("forget", (0,))):
            at[way].submit(work, what, *args).result()
    for seed in range(setting.seeds):
        for way in WAYS:
            at[way].submit(work, "begin", seed).result()
        for number in range(setting.epochs):
            for way in WAYS:
                training[way].append(at[way].submit(work, "epoch", seed, number).result()[1])
        for way in WAYS:
            reached[way].append(at[way].submit(work, "accuracy").result()[0])
        for way in WAYS:
            unlearning[way].append(at[way].submit(work, "forget", seed).result()[1])
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
    results = {"lenet, mnist": compare(Setting("mnist", "lenet", rows=12_000, epochs=3, seeds=3))}
    for width in (8, 16):  # that of recipes for two cores, and a larger one
        setting = Setting("cifar10", "resnet9", rows=2_000, epochs=2, seeds=3, fields={"width": width})
        results[f"resnet9 of width {width}, cifar10"] = compare(setting)
    save("throughput", results)
