"""Entries: from what was taken down of a step to what is stored: pruned layer by layer, rounded, encoded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expunge.artifact.ledger.capture import Step
from expunge.artifact.ledger.codec import Part, encode, rounded
from expunge.artifact.ledger.journal import Entry
from expunge.artifact.ledger.settings import Settings
from expunge.largest import largest


class Entries:
    """Makes entries in the order of the steps, and remembers what rounding lost where that is carried on.

    Args:
        settings: of the ledger.
        layers: how many of a step's tensors are layers; those after them are buffers, which are stored whole.
    """

    def __init__(self, settings: Settings, layers: int) -> None:
        self.settings, self.layers = settings, layers
        self.lost: list[Tensor] = []

    def forget_lost(self) -> None:
        """Carry nothing on from here, so that a training that is resumed here goes on in the same way."""
        self.lost.clear()

    def make(self, step: Step) -> Entry:
        """The entry of one step; `about.error` is the largest rounding error of a value."""
        about = dict(step.about)
        if not step.tensors:
            return Entry(step.number, step.ids, b"", about)
        parts, error, moved = [], 0.0, False
        for i, tensor in enumerate(step.tensors):
            buffer = not step.rows and i >= self.layers
            part, lost = self._part(i, tensor.reshape(-1), buffer)
            parts.append(part)
            error = max(error, lost)
            moved = moved or bool(len(part.values) and part.values.any())
        if not moved:
            return Entry(step.number, step.ids, b"", {**about, "skipped": True})
        about["error"] = error
        if step.rows:
            about["rows"] = list(step.rows)
        return Entry(step.number, step.ids, encode(parts, self.settings.values, with_sizes=False), about)

    def _part(self, i: int, x_n: Tensor, buffer: bool) -> tuple[Part, float]:
        if self.settings.carry and not buffer:
            x_n = self._with_lost(i, x_n)
        whole = buffer or self.settings.keep == 1
        positions = None if whole else largest(x_n, self.settings.keep)
        kept = x_n if positions is None else x_n[positions]
        wide = torch.float64 if self.settings.values == "float64" else torch.float32
        values = kept.to("cpu", wide).numpy()
        stored = rounded(values, self.settings.values)
        lost = values - stored
        if self.settings.carry and not buffer:
            at = slice(None) if positions is None else positions
            self.lost[i].zero_()[at] = torch.from_numpy(lost).to(x_n)
        index = None if positions is None else positions.cpu().numpy()
        return Part(len(x_n), index, values), float(np.abs(lost).max(initial=0.0))

    def _with_lost(self, i: int, x_n: Tensor) -> Tensor:
        while len(self.lost) <= i:
            self.lost.append(torch.zeros(0))
        if len(self.lost[i]) != len(x_n):
            self.lost[i] = torch.zeros_like(x_n)
        return x_n + self.lost[i]
