"""What a step of training takes up in a ledger, against the entropy of what it says, on real updates.

The bound of a step: log2 C(n, k) bits for each tensor's index set, and for each byte of a value the entropy of that
byte over the values of all measured steps (over one small step alone, 67 values of 256 kinds look less random than
they are; `to_own_entropy` takes each step's own bytes all the same). `to_plain_bound` takes every value at its full
width. A record leaves out the sizes of the tensors, which the reader of a ledger knows; `bytes_with_sizes` has them in
it.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from math import lgamma, log

import numpy as np
import torch
import torch.nn.functional as F

import expunge as ex
from common import needs_data, save
from expunge.artifact.ledger.codec import Part, decode, encode, rounded
from expunge.largest import largest

KEEPS = (0.001, 0.01, 0.05, 0.1, 0.2, 1.0)
CODECS = {"float32": 4, "float16": 2, "bfloat16": 2}


def updates(model: torch.nn.Module, train: ex.Rows, batch: int, lr: float, steps: range) -> list[dict]:
    """What these steps of a training by SGD with momentum 0.9 did to each parameter."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    found = []
    for step in range(steps.stop):
        rows = torch.randint(len(train), (batch,), generator=generator)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.zero_grad()
        F.cross_entropy(model(train.x(rows)), train.y[rows]).backward()
        optimizer.step()
        if step in steps:
            found.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    return found


def index_bits(parts: list[Part]) -> float:
    """The sum of log2 C(n, k)."""
    pairs = [(part.size, len(part.values)) for part in parts]
    return sum(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for n, k in pairs) / log(2)


def entropies(values: np.ndarray, codec: str) -> np.ndarray:
    """Bits for each byte of a value, from how often each byte occurs."""
    dtype = getattr(torch, codec)
    planes = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy().reshape(len(values), -1).T
    shares = [np.unique(plane, return_counts=True)[1] / len(values) for plane in planes]
    return np.array([-(p * np.log2(p)).sum() for p in shares])


def timed(function: Callable, *args) -> float:
    began = time.perf_counter()
    function(*args)
    return 1000 * (time.perf_counter() - began)


def measure(steps: list[dict], keep: float) -> dict:
    """Means over the steps, for each codec; times are those of the fastest step."""
    records, energy, pruning = [], [], []
    for step in steps:
        tensors = [x.reshape(-1) for x in step.values()]
        pruning.append(timed(lambda tensors=tensors: [largest(x, keep) for x in tensors]))
        kept = [largest(x, keep) for x in tensors]
        records.append([Part(len(x), i.numpy(), x[i].numpy()) for x, i in zip(tensors, kept)])
        energy.append(float(sum((x[i] ** 2).sum() for x, i in zip(tensors, kept)) / sum((x**2).sum() for x in tensors)))
    sizes = [x.numel() for x in steps[0].values()]
    dense = 4 * sum(sizes)
    file = io.BytesIO()
    torch.save(steps[0], file)
    values = [np.concatenate([part.values for part in parts]) for parts in records]
    found = {
        "values_per_step": statistics.mean(map(len, values)),
        "energy_kept": statistics.mean(energy),
        "prune_ms": min(pruning),
    }
    for codec, width in CODECS.items():
        payloads = [encode(parts, codec, with_sizes=False) for parts in records]
        with_sizes = statistics.mean(len(encode(parts, codec)) for parts in records)
        size = statistics.mean(map(len, payloads))
        index = statistics.mean(map(index_bits, records)) / 8
        count = statistics.mean(map(len, values))
        bits = entropies(np.concatenate(values), codec)
        own = statistics.mean(len(v) * entropies(v, codec).sum() / 8 for v in values)
        stored = [rounded(v, codec) for v in values]
        found[codec] = {
            "bytes_per_step": size,
            "bytes_with_sizes": with_sizes,
            "bound": index + count * bits.sum() / 8,
            "to_bound": size / (index + count * bits.sum() / 8),
            "with_sizes_to_bound": with_sizes / (index + count * bits.sum() / 8),
            "to_own_entropy": size / (index + own),
            "to_plain_bound": size / (index + count * width),
            "to_dense_float32": size / dense,
            "to_torch_save": size / len(file.getvalue()),
            "rounding_error": float(np.linalg.norm(np.concatenate(values) - np.concatenate(stored)))
            / float(np.linalg.norm(np.concatenate(values))),
            "entropy_of_bytes": [round(float(b), 2) for b in bits],
            "encode_ms": min(timed(encode, parts, codec) for parts in records),
            "decode_ms": min(timed(decode, payload, sizes) for payload in payloads),
        }
    return found


def compare(name: str, fields: dict, train: ex.Rows, batch: int, steps: range) -> dict:
    torch.manual_seed(0)
    model = ex.models.build(name, channels=train.shape[0], size=train.shape[1], classes=10, **fields)
    found = updates(model, train, batch, 0.01, steps)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tensors": len(found[0]),
        "steps": f"{steps.start + 1} to {steps.stop} of SGD, lr 0.01, momentum 0.9, batch {batch}",
        "keep": {f"{keep:g}": digits(measure(found, keep)) for keep in KEEPS},
    }


def digits(found: dict) -> dict:
    """The figures to four digits."""
    return {
        key: digits(value) if isinstance(value, dict) else float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in found.items()
    }


if __name__ == "__main__":
    needs_data("mnist", "cifar10")
    torch.set_num_threads(1)
    results = {}
    train, _ = ex.data.load("mnist", limit=20_000)
    results["lenet, mnist"] = compare("lenet", {}, train, 64, range(290, 310))
    train, _ = ex.data.load("cifar10", limit=2_000)
    results["resnet9 of width 16, cifar10"] = compare("resnet9", {"width": 16}, train, 64, range(20, 28))
    save("ledger_size", results)
