"""Which layer to look at: what ran in a forward pass, in which order, and what of it can be laid over the image.

Shapes: B batch, C channels, H height, W width, T tokens, D width of a token; h, w the grid of a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.errors import ExpungeError, UnknownName

MOST_EXTRA = 8  # tokens ahead of the patches: class, distillation, registers


@dataclass(frozen=True)
class Step:
    """One call of a named module.

    Args:
        name: as `named_modules` gives it.
        module: what was called.
        shape: of its output for one image; empty where that is no tensor.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def trace(model: nn.Module, x_BCHW: Tensor) -> list[Step]:
    """The calls of modules inside the model, in the order in which they end; one forward pass of one image."""
    steps: list[Step] = []
    handles = []
    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_hook(_recorder(name, steps)))
        with torch.no_grad():
            model(x_BCHW[:1])
    finally:
        for handle in handles:
            handle.remove()
    return steps


def _recorder(name: str, steps: list[Step]) -> Callable[[nn.Module, object, object], None]:
    def note(module: nn.Module, _: object, out: object) -> None:
        steps.append(Step(name, module, tuple(out.shape) if isinstance(out, Tensor) else ()))

    return note


def grid(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer's output over an image; (0, 0) where it has none.

    Args:
        shape: (B, C, h, w), or (B, T, D) for tokens: patches in reading order, up to 8 other tokens ahead of them.
        size: H and W of the image; the grid of tokens has the same proportion.
    """
    if len(shape) == 4:
        return shape[2], shape[3]
    if len(shape) == 3:
        for extra in range(min(MOST_EXTRA, shape[1] - 1) + 1):
            h = isqrt((shape[1] - extra) * size[0] // size[1])
            if h and h * size[1] % size[0] == 0 and h * (h * size[1] // size[0]) == shape[1] - extra:
                return h, h * size[1] // size[0]
    return 0, 0


def has_place(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether an output says something about more than one place of the image."""
    h, w = grid(shape, size)
    return h * w > 1


def as_maps(out: Tensor, size: tuple[int, int]) -> Tensor:
    """A layer's output as maps (B, C, h, w), whether it has that shape or holds tokens.

    Args:
        out: for which `grid` finds a grid.
        size: H and W of the image.
    """
    if out.ndim == 4:
        return out
    h, w = grid(tuple(out.shape), size)
    return out[:, out.shape[1] - h * w :].transpose(1, 2).reshape(len(out), -1, h, w)


def upsample(maps_Bhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of the size of the image, (B, H, W), bilinear."""
    return F.interpolate(maps_Bhw[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def normalise(maps_BHW: Tensor, most_B: Tensor | None = None) -> Tensor:
    """Each map from 0 to 1, for pictures: what speaks against the class (below 0) is 0, its largest number is 1.

    Args:
        maps_BHW: an empty map stays empty.
        most_B: what becomes 1 instead of each map's own largest number, so that maps can be compared in size.
    """
    positive = maps_BHW.clamp_min(0)
    most = positive.amax((1, 2)) if most_B is None else most_B
    return (positive / most.clamp_min(torch.finfo(positive.dtype).tiny)[:, None, None]).clamp_max(1)


def candidates(steps: list[Step], size: tuple[int, int]) -> list[str]:
    """Layers to look at, the best first: those nearest to the scores.

    Of a convolutional network: the last convolution that leaves more than one place, with the normalisation,
    activation and shortcut that follow it. Of a transformer: the normalisations of its tokens, the last one first;
    behind the last attention, patches no longer reach a score read from a class token.

    Raises:
        ExpungeError: nothing in the model keeps places of the image apart.
    """
    calls = Counter(step.name for step in steps)
    convolutions = [i for i, s in enumerate(steps) if isinstance(s.module, nn.Conv2d) and has_place(s.shape, size)]
    last = convolutions[-1] if convolutions else -1
    norms = [s for s in steps[last + 1 :] if len(s.shape) == 3 and _is_norm(s.module)]
    tokens = [s.name for s in reversed(norms) if has_place(s.shape, size)]
    if tokens:
        return [name for name in tokens if calls[name] == 1] or tokens[:1]
    if not convolutions:
        raise ExpungeError(
            "The model has no convolutional layer, and no normalised tokens, with more than one place of the image to "
            "tell apart. Use saliency or integrated_gradients, which need none."
        )
    stage = _stage(steps[last:], size)
    return [s.name for s in reversed(stage) if calls[s.name] == 1] or [steps[last].name]


def _stage(steps: list[Step], size: tuple[int, int]) -> list[Step]:
    """A convolution and what follows it at its shape; or from its activation on, where that comes after a pool.

    Maps before their activation have numbers below 0, whose sum is often below 0 everywhere and leaves nothing.
    """
    stage = list(takewhile(lambda s: s.shape == steps[0].shape, steps))
    if any(_is_activation(s.module) for s in stage):
        return stage
    pooled = list(takewhile(lambda s: s.shape[:2] == steps[0].shape[:2] and has_place(s.shape, size), steps))
    at = next((i for i, s in enumerate(pooled) if _is_activation(s.module)), None)
    return stage if at is None else [s for s in pooled[at:] if s.shape == pooled[at].shape]


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__  # LayerNorm, RMSNorm and the like of other libraries


def find(name: str, steps: list[Step], size: tuple[int, int]) -> str:
    """`name`, after a check that maps can be read from it.

    Raises:
        ExpungeError: an unknown layer (near names are offered), or one whose output has no places.
    """
    shapes = {step.name: step.shape for step in steps}
    if name not in shapes:
        usable = [n for n, shape in shapes.items() if has_place(shape, size)]
        raise UnknownName("layer", name, usable, "Only layers that the forward pass calls can be looked at.")
    if not has_place(shapes[name], size):
        got = f"{('B', *shapes[name][1:])}".replace("'", "") if shapes[name] else "no tensor"
        raise ExpungeError(
            f"Layer {name!r} yields {got}, which tells no places of the image apart; choose one that yields "
            "(B, C, h, w) with more than one place, or tokens (B, T, D)."
        )
    return name
