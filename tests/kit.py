"""What several tests need: bits of a model, its accuracy, and data that remembers who asked for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data import Rows


def bits(model: nn.Module) -> dict[str, bytes]:
    """The bytes of every weight and buffer: -0.0 and 0.0 differ, and NaN is equal to itself."""
    return {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()}


def accuracy(model: nn.Module, rows: Rows, index: Tensor | None = None) -> float:
    """The share of rows whose largest logit is that of their label, counted by NumPy."""
    index = torch.arange(len(rows)) if index is None else index
    with torch.no_grad():
        logits = model(rows.x(index)).numpy()
    return float(np.mean(logits.argmax(1) == rows.y[index].numpy()))


class Recording(Rows):
    """Rows that remember which of them were read for training (with grad mode on), in order."""

    seen: list[int]

    @classmethod
    def of(cls, rows: Rows) -> Recording:
        other = object.__new__(cls)
        other.__dict__.update(rows.__dict__)
        other.seen = []
        return other

    def x(self, index_B: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.seen += index_B.tolist()
        return super().x(index_B)


class Untouchable(Rows):
    """Rows of which no more than a glance (two rows, to see whether the model takes them) may be had."""

    @classmethod
    def of(cls, rows: Rows) -> Untouchable:
        other = object.__new__(cls)
        other.__dict__.update(rows.__dict__)
        return other

    def x(self, index_B: Tensor) -> Tensor:
        if len(index_B) > 2:
            raise RuntimeError(f"{len(index_B)} rows were read before the refusal")
        return super().x(index_B)
