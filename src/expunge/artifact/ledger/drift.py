"""Drift: weights that something other than the optimiser has changed, which a ledger does not hold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from expunge.errors import few


class Drift:
    """Whether weights are as the last step left them: by the norm of each layer, which a step costs one pass.

    Args:
        layers: the weights, by name, as they are now.
    """

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        self.layers, self.told = layers, False
        self.stepped()

    @torch.no_grad()
    def _norms(self) -> Tensor:
        found = [torch.linalg.vector_norm(p).float() for p in self.layers.values()]
        return torch.stack([norm.to(found[0].device) for norm in found])

    def stepped(self) -> None:
        """Take the weights as they are now for those that a step left."""
        self.norms = self._norms()

    def changed(self) -> list[str]:
        """The layers that are other than a step left them."""
        same = torch.isclose(self._norms(), self.norms, rtol=1e-6, atol=0, equal_nan=True)
        return [] if same.all() else [name for name, alike in zip(self.layers, same.tolist()) if not alike]

    def before(self, step: int) -> None:
        """Warn, once, if there are such layers before a step."""
        if not self.told and (names := self.changed()):
            self.told = True
            warnings.warn(
                f"Before step {step}, something other than the optimiser changed {few(names, 3)}. The ledger does not "
                "hold that, and will not take it back. When a checkpoint was loaded: close the ledger, call "
                "ledger.rewind(step) with the step that ledger.mark() gave for it, and watch again.",
                stacklevel=2,
            )

    def at_end(self, step: int, folder: Path) -> bool:
        """Whether there are such layers after the last step; told, as the ledger must not take them for its own."""
        names = self.changed()
        if names:
            warnings.warn(
                f"Something other than the optimiser changed {few(names, 3)} after step {step}. The ledger {folder} "
                "ends at the weights that the step left, and will not serve these. Close it before weights are "
                "restored or averaged; to end at an earlier checkpoint, call ledger.rewind(step) with the step that "
                "ledger.mark() gave for it.",
                stacklevel=3,
            )
        return bool(names)
