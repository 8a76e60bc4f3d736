"""Entries: from what was taken down of a step to what is stored: pruned layer by layer, rounded, encoded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expunge.artifact.ledger.capture import Step
from expunge.artifact.ledger.codec import Array, Part, encode, rounded
from expunge.artifact.ledger.journal import Entry
from expunge.artifact.ledger.settings import Settings
from expunge.largest import largest, largest_array


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
        carried = [self.settings.carry and (bool(step.rows) or i < self.layers) for i in range(len(step.tensors))]
        kept = [self._kept(i, tensor.reshape(-1), step, carried[i]) for i, tensor in enumerate(step.tensors)]
        values = np.concatenate([found for _, found in kept])
        if not values.any():
            return Entry(step.number, step.ids, b"", {**about, "skipped": True})
        lost = values - rounded(values, self.settings.values)
        about["error"] = float(np.abs(lost).max(initial=0.0))
        if step.rows:
            about["rows"] = list(step.rows)
        parts, start = [], 0
        for i, (positions, found) in enumerate(kept):
            end = start + len(found)
            parts.append(Part(step.tensors[i].numel(), positions, values[start:end]))
            if carried[i]:
                self._carry(i, positions, lost[start:end])
            start = end
        return Entry(step.number, step.ids, encode(parts, self.settings.values, with_sizes=False), about)

    def _kept(self, i: int, x_n: Tensor, step: Step, carried: bool) -> tuple[Array | None, Array]:
        """Which entries of a tensor are stored, none for all, and their values."""
        if carried:
            x_n = self._with_lost(i, x_n)
        wide = torch.float64 if self.settings.values == "float64" else torch.float32
        whole = self.settings.keep == 1 or (not step.rows and i >= self.layers)
        if x_n.is_cpu and x_n.dtype == wide:
            array = x_n.detach().numpy()
            positions = None if whole else largest_array(array, self.settings.keep)
            return positions, array if positions is None else array[positions]
        chosen = None if whole else largest(x_n, self.settings.keep)
        found = (x_n if chosen is None else x_n[chosen]).to("cpu", wide).numpy()
        return None if chosen is None else chosen.cpu().numpy(), found

    def _with_lost(self, i: int, x_n: Tensor) -> Tensor:
        while len(self.lost) <= i:
            self.lost.append(torch.zeros(0))
        if len(self.lost[i]) != len(x_n):
            self.lost[i] = torch.zeros_like(x_n)
        return x_n + self.lost[i]

    def _carry(self, i: int, positions: Array | None, lost_k: Array) -> None:
        at = slice(None) if positions is None else torch.from_numpy(positions)
        self.lost[i].zero_()[at] = torch.from_numpy(lost_k).to(self.lost[i])
