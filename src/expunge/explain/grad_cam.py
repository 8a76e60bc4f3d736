"""Grad-CAM: how much a layer's maps, each weighted by its mean gradient, speak for a class.

Shapes: B batch, C channels, H height, W width; h, w the grid of a layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.explain import layers
from expunge.explain.look import batches, class_scores, undisturbed


def grad_cam(
    model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, *, layer: str | None = None, batch_size: int = 128
) -> Tensor:
    """Maps (B, H, W), not negative: ReLU of the sum of the layer's maps, each times its mean gradient.

    Args:
        model: returns logits; it is not changed.
        x_BCHW: images as the model takes them.
        classes_B: the class to explain for each image.
        layer: name of a module that yields maps (B, C, h, w) or tokens (B, T, D). Default: the last convolution that
            leaves more than one place, with its normalisation, activation and shortcut, as in the paper; in a
            transformer, the last normalisation of tokens that the score depends on (ours). See `default_layer`.
        batch_size: images at a time; default 128.

    Raises:
        ExpungeError: images, classes or a layer that do not fit; a model without a layer to look at.

    Cost: one forward pass, and one backward pass from the scores down to the layer.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
    """
    size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
    maps: list[Tensor] = []
    with undisturbed(model):
        for _, x, classes in batches(model, x_BCHW, classes_B, batch_size):
            if layer is None:
                layer = _default(model, x)
            elif not maps:
                layers.find(layer, layers.trace(model, x), size)
            out, gradient = (layers.as_maps(t, size) for t in activation_and_gradient(model, layer, x, classes))
            weights_BC11 = gradient.mean((2, 3), keepdim=True)
            maps.append(layers.upsample((weights_BC11 * out).sum(1).relu(), size).to(x_BCHW.device))
    return torch.cat(maps)


def default_layer(model: nn.Module, x_BCHW: Tensor) -> str:
    """The name of the layer that `grad_cam` looks at by default.

    Args:
        model: as for `grad_cam`.
        x_BCHW: at least one image.
    """
    with undisturbed(model):
        _, x, _ = next(batches(model, x_BCHW[:1], torch.zeros(1, dtype=torch.long), 1))
        return _default(model, x)


def _default(model: nn.Module, x_BCHW: Tensor) -> str:
    size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
    names = layers.candidates(layers.trace(model, x_BCHW), size)
    first = torch.zeros(1, dtype=torch.long, device=x_BCHW.device)
    for name in names:
        _, gradient = activation_and_gradient(model, name, x_BCHW[:1], first)
        if layers.as_maps(gradient, size).any():
            return name
    return names[0]  # a model whose score depends on nothing: its maps are 0 wherever one looks


def activation_and_gradient(model: nn.Module, layer: str, x_BCHW: Tensor, classes_B: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output and the gradient of the class's score with respect to it; call it inside `undisturbed`.

    Args:
        model: as for `grad_cam`; so are the others.
        layer: name of a module that yields a tensor.
        x_BCHW: one batch, on the model's device.
        classes_B: on the model's device.
    """
    seen: list[Tensor] = []

    def cut(_: nn.Module, __: object, out: Tensor) -> Tensor:
        # The graph begins here, so nothing before the layer is kept for the backward pass. What goes on is a clone,
        # so that a layer that works in place does not change what was seen.
        seen.append(out.detach().requires_grad_())
        return seen[-1].clone()

    handle = model.get_submodule(layer).register_forward_hook(cut)
    try:
        scores_B = class_scores(model, x_BCHW, classes_B)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ExpungeError(
            f"Layer {layer!r} is called {len(seen)} times in one forward pass, so its output is not one thing; "
            "choose a layer that is called once."
        )
    gradient = None
    if scores_B.requires_grad:
        (gradient,) = torch.autograd.grad(scores_B.sum(), seen[0], allow_unused=True)
    return seen[0].detach(), torch.zeros_like(seen[0]) if gradient is None else gradient
