"""TrainingCheckpoint: where a training that was interrupted goes on, to the same bits."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.errors import ExpungeError
from expunge.io import fit_weights, read_tensors, save_tensors


class TrainingCheckpoint:
    """Weights and optimiser state after some epochs, in one safetensors file.

    Args:
        path: the file.
        every: seconds that must have passed since the last write, 0 or more. Default 10, so that short
            trainings are not slowed down.
    """

    def __init__(self, path: Path, every: float = 10.0) -> None:
        self.path, self.every = Path(path), every
        self.began = self.last = time.monotonic()
        self.spent = 0.0  # seconds that earlier, interrupted tries put into the state resumed from

    def save(self, model: nn.Module, optimizer: Optimizer, phase: int, epochs: int) -> None:
        """Keep the state after so many epochs of this phase, if the last time is long enough ago."""
        if time.monotonic() - self.last < self.every:
            return
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for i, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if value is not None:
                    tensors[f"optimizer.{i}.{name}"] = torch.as_tensor(value)
        seconds = self.spent + time.monotonic() - self.began
        save_tensors(self.path, tensors, {"phase": phase, "epochs": epochs, "seconds": seconds})
        self.last = time.monotonic()

    def resume(self, model: nn.Module, optimizer: Optimizer, phase: int) -> int:
        """Restore model and optimiser if there is a state, and return how many epochs of this phase are done."""
        if not self.path.is_file():
            return 0
        try:
            tensors, about = read_tensors(self.path)
        except ExpungeError:  # damaged: begin again
            self.remove()
            return 0
        if about["phase"] < phase:
            return 0
        weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        fit_weights(model, weights, str(self.path))
        if about["phase"] > phase:
            return int(1e9)  # this phase is long done
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".", 2)
                state.setdefault(int(i), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        for (
            parameter,
            kept,
        ) in optimizer.state.items():  # fused steps need the state in the memory layout of the weights
            for key, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.spent = float(about["seconds"])
        return int(about["epochs"])

    def remove(self) -> None:
        """Forget the state; training is done."""
        self.path.unlink(missing_ok=True)
