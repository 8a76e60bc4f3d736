"""Training and unlearning against the plain PyTorch way, in turn, as ratios in one run.

The plain way: a `Dataset` that reads item by item, the default `DataLoader`, float32, `.to()` for each batch, a loop as
in any tutorial. Same network, optimiser, batch size and number of epochs.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

import expunge as ex
from common import needs_data, ratio, save
from expunge.descend import descend
from expunge.phase import Phase, Term
from expunge.run import Run

LR, BATCH, ALPHA = 0.02, 128, 0.95


class Plain(Dataset):
    """One image at a time, as tutorials do: bytes to float, scaled, channel by channel."""

    def __init__(self, rows: ex.Rows) -> None:
        self.images, self.labels = rows.source.numpy(), rows.y.tolist()
        self.mean = torch.tensor(rows.scale.mean).view(-1, 1, 1)
        self.std = torch.tensor(rows.scale.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        x = torch.from_numpy(self.images[i]).float().div(255)
        return x.sub(self.mean).div(self.std), self.labels[i]


def plain_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader) -> None:
    model.train()
    for x, y in loader:
        x, y = x.to("cpu"), y.to("cpu")
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def plain_neggrad(model: nn.Module, optimizer: torch.optim.Optimizer, retain: DataLoader, forget: DataLoader) -> None:
    model.train()
    again: Iterator = itertools.chain.from_iterable(itertools.repeat(forget))
    for (x, y), (xf, yf) in zip(retain, again):
        optimizer.zero_grad()
        loss = ALPHA * F.cross_entropy(model(x), y) - (1 - ALPHA) * F.cross_entropy(model(xf), yf)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)


def blank(name: str, fields: dict, train: ex.Rows, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ex.models.build(name, channels=train.shape[0], size=train.shape[1], classes=10, **fields)


def timed(function, *args, **kwargs) -> float:
    began = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - began


def accuracy(model: nn.Module, rows: ex.Rows) -> float:
    model.eval()
    with torch.no_grad():
        parts = torch.arange(len(rows)).split(1000)
        return 100 * float(torch.cat([model(rows.x(i)).argmax(1) == rows.y[i] for i in parts]).float().mean())


def compare(name: str, fields: dict, train: ex.Rows, test: ex.Rows, epochs: int, seeds: int) -> dict:
    """Epochs of both ways in turn, so that a machine that slows down slows both."""
    task, everything = ex.Classification(classes=10), torch.arange(len(train))
    plain = Plain(train)
    times: dict[str, list[float]] = {"plain": [], "expunge": [], "plain_unlearn": [], "expunge_unlearn": []}
    reached: dict[str, list[float]] = {"plain": [], "expunge": []}
    request = ex.Request(train, classes=[3])
    for seed in range(seeds):
        theirs, ours = blank(name, fields, train, seed), blank(name, fields, train, seed)
        optimizer = sgd(theirs)
        for epoch in range(epochs):
            loader = DataLoader(plain, batch_size=BATCH, shuffle=True)
            times["plain"].append(timed(plain_epoch, theirs, optimizer, loader))
            phase = Phase(terms=(Term("train"),), epochs=1, lr=LR, batch_size=BATCH)
            run = Run(seed=100 * seed + epoch)
            times["expunge"].append(timed(descend, ours, train, {"train": everything}, task, [phase], run))
        reached["plain"].append(accuracy(theirs, test))
        reached["expunge"].append(accuracy(ours, test))
        retain = DataLoader(Subset(plain, request.keep.tolist()), batch_size=BATCH, shuffle=True)
        forget = DataLoader(Subset(plain, request.forget.tolist()), batch_size=BATCH, shuffle=True)
        times["plain_unlearn"].append(timed(plain_neggrad, theirs, sgd(theirs), retain, forget))
        settings = {"epochs": 1, "lr": LR, "batch_size": BATCH, "alpha": ALPHA, "schedule": "constant"}
        times["expunge_unlearn"].append(timed(ex.unlearn, ours, request, "neggrad_plus", seed=seed, **settings))
    spread = max(statistics.stdev(reached["plain"]), statistics.stdev(reached["expunge"]), 0.2)
    gap = statistics.mean(reached["expunge"]) - statistics.mean(reached["plain"])
    return {
        "rows": len(train),
        "epochs": epochs,
        "seeds": seeds,
        "training_times_faster": ratio(times["plain"], times["expunge"]),
        "unlearning_times_faster": ratio(times["plain_unlearn"], times["expunge_unlearn"]),
        "test_accuracy": {way: [round(a, 2) for a in values] for way, values in reached.items()},
        "accuracy_gap": round(gap, 2),
        "accuracy_gap_within_two_seed_spreads": abs(gap) <= 2 * spread,
    }


if __name__ == "__main__":
    needs_data("mnist", "cifar10")
    results = {}
    train, test = ex.data.load("mnist", limit=20_000)
    results["lenet, mnist"] = compare("lenet", {}, train, test, epochs=3, seeds=3)
    train, test = ex.data.load("cifar10", limit=2_000)
    test = test.take(torch.arange(2_000))
    results["resnet9 of width 16, cifar10"] = compare("resnet9", {"width": 16}, train, test, epochs=3, seeds=3)
    save("throughput", results)
