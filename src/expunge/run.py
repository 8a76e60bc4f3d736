"""Run: the circumstances of one computation: seed, device, precision, progress. Nothing global is changed."""

from __future__ import annotations

import hashlib
import operator
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.errors import ExpungeError

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The circumstances of one computation.

    Args:
        seed: every random draw derives from it, a whole number, 0 or more. Default 0.
        device: where to compute. Default: where the model is.
        precision: `"float32"`, `"bfloat16"` (autocast), or `"auto"` (default): bfloat16 on a GPU that has it.
        augment: how rows are augmented while training, as in `expunge.data.augment`. Default: not at all.
        progress: show a progress bar when standard error is a terminal. Default yes.
        accelerator: an `accelerate.Accelerator`, for several processes. Default: one process, no accelerate.

    Raises:
        ExpungeError: a seed of another kind.
    """

    seed: int = 0
    device: torch.device | str | None = None
    precision: Precision = "auto"
    augment: str | None = None
    progress: bool = True
    accelerator: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_seed(self.seed))

    def generator(self, *purpose: object) -> torch.Generator:
        """A random generator of its own for each purpose: same seed and purpose, same draws, in any order."""
        return torch.Generator().manual_seed(derive(self.seed, *purpose))

    def device_of(self, model: nn.Module) -> torch.device:
        """The device to compute on."""
        if self.accelerator is not None:
            return torch.device(self.accelerator.device)
        if self.device is not None:
            return torch.device(self.device)
        return next((p.device for p in model.parameters()), torch.device("cpu"))

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Leave global random state and grad mode as they were, whatever happens inside the block.

        The state is that of PyTorch, NumPy and `random`. Inside, the seed alone decides what they draw, and gradients
        are computed, also where the caller is in `torch.no_grad` or `torch.inference_mode`.
        """
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
            elsewhere = random.getstate(), np.random.get_state()
            start = derive(self.seed, "global")
            torch.manual_seed(start)
            random.seed(start)
            np.random.seed(start % 2**32)  # all that it takes
            try:
                yield
            finally:
                random.setstate(elsewhere[0])
                np.random.set_state(elsewhere[1])

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Mixed precision where it is asked for, or where it pays and nothing was said."""
        auto = self.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(device.type, torch.bfloat16, enabled=auto or self.precision == "bfloat16"):
            yield

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Callable[[Tensor], None]]:
        """The module to call and the function that runs the backward pass, through accelerate where it is given."""
        if self.accelerator is None:
            return model, torch.autograd.backward
        return self.accelerator.prepare_model(model), self.accelerator.backward

    def share(self, index_B: Tensor) -> tuple[Tensor, float]:
        """This process's part of a batch, and the factor that makes the mean over processes the batch mean."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return index_B, 1.0
        size, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = index_B.tensor_split(size)[rank]
        if not len(mine):  # every process must take part in every step
            return index_B[:1], 0.0
        return mine, size * len(mine) / len(index_B)

    def mean(self, part_B: Tensor) -> float:
        """The mean over what all processes hold, so that they decide alike; every process must ask."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return float(part_B.mean())
        total, n = self.accelerator.reduce(torch.stack([part_B.sum(), torch.ones_like(part_B).sum()]), "sum")
        return float(total / n)


@contextmanager
def progress_bar(what: str, total: int, show: bool) -> Iterator[Any]:
    """A function to call after each step with text to show; silent when standard error is no terminal."""
    if not (show and total > 1 and sys.stderr.isatty()):
        yield lambda text="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda text="": bar.update(task, advance=1, description=f"{what} {text}".rstrip())


def as_seed(given: Any) -> int:
    """A seed as an int, so that 1 of NumPy or PyTorch is the same seed as 1.

    Raises:
        ExpungeError: no whole number, or one below 0.
    """
    try:
        seed = -1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        seed = -1
    if seed < 0:
        raise ExpungeError(f"seed must be a whole number, 0 or more; got {given!r}.")
    return seed


def derive(seed: int, *purpose: object) -> int:
    """A seed below 2^63 for one purpose, the same on every machine."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
