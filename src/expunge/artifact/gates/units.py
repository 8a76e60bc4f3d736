"""Which outputs of a model's weights can be scaled for each example by itself.

Shapes: B batch, K units of a layer; n = B times the windows or other pieces into which a layer cuts an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.artifact.activations import Layer, find_layers
from expunge.errors import ExpungeError, UnknownName, few
from expunge.layer_choice import matches

Call = tuple[nn.Module, Tensor | None]  # what was called, and what it returned, examples first


def units(layer: Layer) -> int:
    """How many filters, neurons or parts of attention a layer has: the rows of its weight."""
    return len(layer.weight[layer.part])


def choose(
    model: nn.Module, x_2: Tensor, classes: int, patterns: Sequence[str] | None = None
) -> tuple[list[Layer], list[str]]:
    """The layers whose units are gated, and a sentence on what was left out.

    A layer can be gated if what it returns for a batch is, piece by piece, what it returns for each example alone.

    Args:
        model: in eval mode.
        x_2: two different inputs, on the model's device.
        classes: of the model; the last layer with as many units is the head.
        patterns: globs on names of weights or of their modules; head and patches can be named. Default: all layers but
            the head and a first convolution that cuts the image into patches.

    Raises:
        UnknownName: a pattern that no layer matches.
        ExpungeError: no layer is left, or a layer returns NaN or infinity.

    Cost: three forward passes over one or two inputs.
    """
    found, others = find_layers(model)
    called, apart = _probe(model, x_2, {id(m): m for layer in found for m in layer.modules})
    reached = [layer for layer in found if all(id(m) in called for m in layer.modules)]
    order = sorted(reached, key=lambda layer: max(called[id(m)] for m in layer.modules))
    chosen = [layer for layer in order if all(id(m) in apart for m in layer.modules)]
    notes = []
    if others:
        notes.append(f"Not gated, not being linear, convolutional or attention: {few(others)}.")
    if unused := [layer.name for layer in found if layer not in order]:
        notes.append(f"Not gated, as a forward pass does not call them: {few(unused)}.")
    if mixed := [layer.name for layer in order if layer not in chosen]:
        notes.append(f"Not gated, as what they return is not sorted by example: {few(mixed)}.")
    if patterns is None:
        chosen = [layer for layer in chosen if layer not in (_head(order, classes), _patches(order))]
    else:
        for pattern in patterns:
            if not any(_matches(layer.name, pattern) for layer in chosen):
                raise UnknownName("layer pattern", pattern, [layer.name for layer in chosen], " ".join(notes))
        chosen = [layer for layer in chosen if any(_matches(layer.name, p) for p in patterns)]
    if not chosen:
        said = " ".join(notes) or "It has none but its head."
        raise ExpungeError(
            f"No layer of the model can be gated. {said} Gates lie on linear, convolutional and attention layers "
            "before the head."
        )
    return chosen, notes


def _head(order: Sequence[Layer], classes: int) -> Layer | None:
    return next((layer for layer in reversed(order) if units(layer) == classes), None)


def _patches(order: Sequence[Layer]) -> Layer | None:
    """The first layer, if it is a convolution whose windows do not overlap."""
    for layer in order[:1]:
        module = layer.modules[0]
        size = getattr(module, "kernel_size", (1,))
        if isinstance(module, nn.modules.conv._ConvNd) and max(size) > 1 and tuple(module.stride) == tuple(size):
            return layer
    return None


def _matches(name: str, pattern: str) -> bool:
    return matches(name, pattern) or matches(name.partition("[")[0], pattern)


def _probe(model: nn.Module, x_2: Tensor, modules: dict[int, nn.Module]) -> tuple[dict[int, int], set[int]]:
    """The place of each module's last call, and the modules whose outputs are sorted by example."""
    both, first, second = (_calls(model, modules, x) for x in (x_2, x_2[:1], x_2[1:]))
    names = {id(module): name for name, module in model.named_modules()}
    if lost := [names[id(module)] for module, out in both if out is not None and not torch.isfinite(out).all()]:
        raise ExpungeError(
            f"What {few(dict.fromkeys(lost))} returns is NaN or infinite, though a later layer may hide it; "
            "the weights there, or of a layer before, are damaged. Look at them, or take another checkpoint."
        )
    place = {id(module): i for i, (module, _) in enumerate(both)}
    alike = len(both) == len(first) == len(second)
    mixed = set() if alike else set(place)
    for (module, out), (m1, one), (m2, two) in zip(both, first, second):
        if not (m1 is module is m2 and _sorted(out, one, two)):
            mixed.add(id(module))
    return place, set(place) - mixed


def _sorted(out: Tensor | None, one: Tensor | None, two: Tensor | None) -> bool:
    if out is None or one is None or two is None or not one.ndim or len(out) != len(one) + len(two):
        return False
    alone = torch.cat([one, two]).float()
    slack = 1e-3 * float(alone.abs().max())
    return out.shape == alone.shape and torch.allclose(out.float(), alone, rtol=1e-3, atol=slack)


def _calls(model: nn.Module, modules: dict[int, nn.Module], x_B: Tensor) -> list[Call]:
    seen: list[Call] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        first = out[0] if isinstance(out, tuple) else out
        if isinstance(module, nn.MultiheadAttention) and not module.batch_first and isinstance(first, Tensor):
            first = first.transpose(0, 1) if first.ndim == 3 else None
        seen.append((module, first if isinstance(first, Tensor) else None))

    hooks = [module.register_forward_hook(note) for module in modules.values()]
    try:
        with torch.no_grad():
            model(x_B)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
