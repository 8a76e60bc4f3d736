"""Looking at images: what a classifier takes them for, the features it sees, and a sheet of them for people.

Shapes: N images, C classes, D features, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.data.rows import Scale
from expunge.errors import ExpungeError
from expunge.explain.pictures import png
from expunge.logits import logits_of
from expunge.modes import eval_mode


@dataclass(frozen=True)
class Seen:
    """What a classifier makes of images.

    Args:
        probability_NC: of each class.
        feature_ND: what its last linear layer gets.
    """

    probability_NC: Tensor
    feature_ND: Tensor

    @property
    def label_N(self) -> Tensor:
        """What each image is taken for."""
        return self.probability_NC.argmax(1)


def head(classifier: nn.Module) -> nn.Linear:
    """The last linear layer.

    Raises:
        ExpungeError: there is none.
    """
    found = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ExpungeError("Features are what the last linear layer gets; this classifier has none. Give another one.")
    return found[-1]


def look(classifier: nn.Module, x_N: Tensor, batch_size: int = 500) -> Seen:
    """What a classifier makes of images that are scaled as its training rows were; it is left as it was.

    Raises:
        ExpungeError: a classifier without a linear layer, from which features could be read.
    """
    caught: list[Tensor] = []
    hook = head(classifier).register_forward_pre_hook(
        lambda module, args: caught.append(args[0].flatten(1).float().cpu())
    )
    device = next(classifier.parameters()).device
    try:
        with eval_mode(classifier), torch.inference_mode():
            outs: list[Any] = [classifier(part.to(device)) for part in x_N.split(batch_size)]
    finally:
        hook.remove()
    logits = torch.cat([logits_of(out).cpu() for out in outs])
    return Seen(F.softmax(logits, 1), torch.cat(caught))


def sheet(x_N: Tensor, columns: int, scale: Scale | None) -> str:
    """Images side by side, row after row, as a PNG in a data URI.

    Args:
        x_N: (N, channels, H, W), scaled as rows' inputs are.
        columns: images in a row.
        scale: how they were scaled. Default: they lie in [-1, 1].
    """
    if scale is None:
        shown = (x_N + 1) / 2
    else:
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (scale.mean, scale.std))
        shown = x_N * std + mean
    shown = F.pad(shown if shown.shape[1] in (1, 3) else shown.mean(1, keepdim=True), (1, 1, 1, 1), value=0.5)
    lines = [torch.cat(list(line), 2) for line in shown.split(columns)]
    blank = lines[0].shape[2]
    return png(torch.cat([F.pad(line, (0, blank - line.shape[2])) for line in lines], 1))


def evenly(total: int, count: int) -> Tensor:
    """At most `count` of the numbers 0..total-1, spread evenly."""
    spread: Tensor = torch.linspace(0, total - 1, min(total, count), dtype=torch.float64).round().long()
    return spread


def each(classes: Sequence[int], samples: int) -> Tensor:
    """The conditions to draw under: `samples` of each class, in turn, so that number n has the same start always."""
    return torch.tensor([c for c in classes for _ in range(samples)])
