"""Class activation maps: the head's weights applied at each place instead of to the average over places.

Shapes: B batch, C channels, H height, W width, K classes; h, w the grid of a layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.explain.layers import upsample
from expunge.explain.look import batches, finite_logits, of_classes, undisturbed

Seen = list[tuple[str, nn.Module, Tensor, Tensor]]  # name, module, input, output


def cam(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, *, batch_size: int = 128) -> Tensor:
    """Maps (B, H, W) of either sign, whose mean over the layer's places is the logit less the head's bias.

    The model must end in an average over places and a linear head, or in a convolution and an average (the same,
    written the other way). Both are recognised by value, not by class, so it does not matter how they are written.

    Args:
        model: returns logits; it is not changed.
        x_BCHW: images as the model takes them.
        classes_B: the class to explain for each image.
        batch_size: images at a time; default 128.

    Raises:
        ExpungeError: images or classes that do not fit; a model of another form, for which `grad_cam` is the way.

    Cost: one forward pass.

    Source: Zhou et al., Learning deep features for discriminative localization, CVPR 2016, equation 2.
    """
    size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
    maps, found = [], None
    with undisturbed(model), torch.no_grad():
        for _, x, classes in batches(model, x_BCHW, classes_B, batch_size):
            layer, read = found = found or _find(model, x[:2])
            seen, logits = _watch(model, x, [(layer, model.get_submodule(layer))])
            of_classes(logits, classes)  # names a class that the model does not have
            maps.append(upsample(read(seen[-1][3], classes.long()), size).to(x_BCHW.device))
    return torch.cat(maps)


def _watch(model: nn.Module, x_BCHW: Tensor, modules: list[tuple[str, nn.Module]]) -> tuple[Seen, Tensor]:
    seen: Seen = []

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
                seen.append((name, module, args[0].detach(), out.detach().clone()))  # a copy: ReLU may work in place

        return note

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules]
    try:
        return seen, finite_logits(model, x_BCHW)
    finally:
        for handle in handles:
            handle.remove()


def _find(model: nn.Module, x_BCHW: Tensor) -> tuple[str, Callable[[Tensor, Tensor], Tensor]]:
    """The layer whose output becomes maps, and how: (output, classes) to (B, h, w)."""
    seen, logits = _watch(model, x_BCHW, [(n, m) for n, m in model.named_modules() if n])
    spatial = [(n, m, out) for n, m, _, out in reversed(seen) if out.ndim == 4 and out.shape[2] * out.shape[3] > 1]
    for name, module, out in spatial:
        if isinstance(module, nn.Conv2d) and _same(out.mean((2, 3)), logits):
            return name, _class_maps(module)
    for _, head, features, scores in reversed(seen):
        if isinstance(head, nn.Linear) and _same(scores, logits):
            for name, _, out in spatial:
                if _same(out.mean((2, 3)), features):
                    return name, _weighted(head)
    raise ExpungeError(
        "Class activation maps need a model that averages its last maps, of more than one place, and puts a linear "
        "head on the average; this one does not. Use grad_cam, which needs neither."
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def _class_maps(head: nn.Conv2d) -> Callable[[Tensor, Tensor], Tensor]:
    def read(out_BKhw: Tensor, classes_B: Tensor) -> Tensor:
        maps = out_BKhw[torch.arange(len(out_BKhw), device=out_BKhw.device), classes_B]
        return maps if head.bias is None else maps - head.bias[classes_B, None, None]

    return read


def _weighted(head: nn.Linear) -> Callable[[Tensor, Tensor], Tensor]:
    def read(out_BChw: Tensor, classes_B: Tensor) -> Tensor:
        return torch.einsum("bc,bchw->bhw", head.weight[classes_B], out_BChw)

    return read
