"""Guard: what could be recorded and never be taken back is refused: a part of a model, inputs that no method gives."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from expunge.artifact.ledger.capture import Capture
from expunge.errors import ExpungeError


class Guard:
    """Beside a capture, from its beginning to its end.

    Args:
        path: of the ledger.
        capture: what is recorded.

    Raises:
        ExpungeError: another ledger records other weights of this model.
    """

    watching: ClassVar[weakref.WeakSet[Guard]] = weakref.WeakSet()

    def __init__(self, path: Path, capture: Capture) -> None:
        self.path, self.model = path, capture.model
        self.layers = _ids(capture.layers.values())
        for other in self.watching:
            if self.layers != other.layers and (self._moved_by(other) or other._moved_by(self)):
                raise ExpungeError(
                    f"The ledger {other.path} watches other weights of this model at the same time. Each would hold a "
                    "part of what the training does, and neither would serve a model in which the other took its part "
                    "back. Give all weights to one optimiser, as groups of parameters, and watch that with one ledger; "
                    "or close the other first."
                )
        self.watching.add(self)
        self._hook: RemovableHandle | None = None
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in self.model.parameters()):
            self._hook = self.model.register_forward_pre_hook(self._see_inputs)

    def _moved_by(self, other: Guard) -> bool:
        """Whether another ledger records weights of this model."""
        return not other.layers.isdisjoint(_ids(self.model.parameters()))

    def _see_inputs(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        """At the first call, refuse inputs of another width than 32 bits, which a model of that width may insist on."""
        self._unhook()
        kinds = {p.dtype for p in model.parameters()}
        for x in inputs:
            if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float32 and x.dtype in kinds:
                told = str(x.dtype).removeprefix("torch.")
                raise ExpungeError(
                    f"This model is given inputs of {told}, as its weights are, and methods give it float32: what the "
                    f"ledger {self.path} records could not be taken back. Keep the weights in float32, and compute in "
                    "16 bits under torch.autocast; or give float32 inputs, and let forward convert them."
                )

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def end(self) -> None:
        """Let go of the model."""
        self._unhook()
        self.watching.discard(self)


def _ids(parameters: Iterable[Tensor]) -> set[int]:
    return {id(p) for p in parameters}
