"""The plain PyTorch way, as tutorials have it: what `throughput.py` compares with.

A `Dataset` that is read item by item, the default `DataLoader`, float32, `.to()` for each batch. Two datasets:

- `Tutorial` does for each item what torchvision's MNIST and CIFAR10 do with `ToTensor()` and `Normalize(mean, std)`:
  the stored bytes become a Pillow image, the image an array, the array a tensor with channels first, divided by 255;
  a copy of it is normalised in place by mean and deviation, which become tensors each time.
- `Lean` leaves out Pillow and all copies that can be spared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

LR, BATCH, ALPHA = 0.02, 128, 0.95


class Tutorial(Dataset):
    """Images as torchvision's datasets give them: (N, H, W) gray or (N, H, W, 3) colour bytes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> None:
        self.images, self.labels, self.mean, self.std = images, torch.from_numpy(labels.astype(np.int64)), mean, std

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[i])
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(*image.size[::-1], len(image.getbands()))
        x = pixels.permute(2, 0, 1).contiguous().float().div(255).clone()
        mean, std = (torch.as_tensor(values, dtype=x.dtype) for values in (self.mean, self.std))
        if (std == 0).any():
            raise ValueError("a deviation of 0")
        return x.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)), int(self.labels[i])


class Lean(Dataset):
    """The same inputs with less work for each item."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> None:
        self.images = images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        self.labels = labels.tolist()
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.images[i]).float().div(255).sub(self.mean).div(self.std), self.labels[i]


def loader(dataset: Dataset, index: Sequence[int]) -> DataLoader:
    """The default loader over some items."""
    return DataLoader(Subset(dataset, index), batch_size=BATCH, shuffle=True)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """As in tutorials."""
    return torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader) -> None:
    """One epoch."""
    model.train()
    for x, y in batches:
        x, y = x.to("cpu"), y.to("cpu")
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def neggrad_plus(model: nn.Module, retain: DataLoader, forget: DataLoader) -> None:
    """One epoch of descent on retain and, much less, ascent on forget."""
    model.train()
    optimizer = sgd(model)
    again: Iterator = itertools.chain.from_iterable(itertools.repeat(forget))
    for (x, y), (xf, yf) in zip(retain, again):
        x, y, xf, yf = (part.to("cpu") for part in (x, y, xf, yf))
        optimizer.zero_grad()
        loss = ALPHA * F.cross_entropy(model(x), y) - (1 - ALPHA) * F.cross_entropy(model(xf), yf)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
