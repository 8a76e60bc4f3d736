"""Maps from learned gates: where the units lie that must be closed for a class to be forgotten.

Shapes: B batch, C channels, H height, W width, K units of a layer; h, w the grid of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError, UnknownName
from expunge.explain import layers
from expunge.explain.look import Explainer, batches, check, class_scores, undisturbed

Seen = list[tuple[str, Tensor]]  # the name of a layer, and what it returned, as `_laid_out` has it


def gate_maps(closed: Mapping[str, Tensor]) -> Explainer:
    """An explainer: what closing the gates of a class takes from its score at each place, to first order.

    For each layer with places, and each of its units, `closed` times the unit's output (less its bias, which is not
    gated) times the gradient of the class's score; summed over units and, laid over the image, over layers. Maps are of
    either sign.

    Args:
        closed: how far each unit is closed for each class, from 0 to 1, (classes, K), by the name of the weight, as
            `Gated.closed` gives it. Layers without places (linear ones behind a flattening) are passed over.

    Raises:
        ExpungeError: `closed` that is no such mapping; of the explainer, images or classes that do not fit; a class
            without gates; gates of another number than a layer has units; no gated layer with places.

    Cost: of the explainer, one forward and one backward pass.

    Source: the gates are those of Poppi et al., arXiv:2304.02049; how they become a map is ours.
    """
    _check(closed)
    tables = {name.rpartition(".")[0]: table for name, table in closed.items() if not name.endswith("]")}

    def explain(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, *, batch_size: int = 128) -> Tensor:
        check(x_BCHW, classes_B, batch_size)
        size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
        weights = _of(classes_B, tables)
        maps = []
        with undisturbed(model):
            for where, x, classes in batches(model, x_BCHW, classes_B, batch_size):
                seen, gradients = _outputs(model, x, classes, list(tables))
                total = torch.zeros(len(x), *size, device=x.device)
                for (name, out), gradient in zip(seen, gradients):
                    taken = _taken(out, gradient, weights[name][where].to(x.device), model.get_submodule(name), name)
                    total += layers.upsample(layers.as_maps(taken, size).sum(1), size)
                maps.append(total.to(x_BCHW.device))
        return torch.cat(maps)

    return explain


def _check(closed: Mapping[str, Tensor]) -> None:
    if not isinstance(closed, Mapping):
        raise ExpungeError(
            f"Maps from gates need how far units are closed, as Gated.closed(classes) gives it; got "
            f"{type(closed).__name__}. Of a result: gate_maps(result.made['gates'].closed(classes))."
        )
    for name, table in closed.items():
        if not isinstance(table, Tensor) or table.ndim != 2:
            got = f"shape {tuple(table.shape)}" if isinstance(table, Tensor) else type(table).__name__
            raise ExpungeError(f"The gates of {name} must be a tensor (classes, units); got {got}.")


def _laid_out(module: nn.Module, out: Tensor) -> Tensor:
    """An output with its units along axis 1 where it is four-dimensional, and along the last one otherwise."""
    units = 1 if isinstance(module, nn.modules.conv._ConvNd) else -1
    return out.movedim(units, 1 if out.ndim == 4 else -1)


def _taken(out: Tensor, gradient: Tensor, w_BK: Tensor, module: nn.Module, name: str) -> Tensor:
    """Of the shape of the layer's output."""
    ends = (1, 1) if out.ndim == 4 else ()
    K = out.shape[1 if ends else -1]
    if w_BK.shape[1] != K:
        raise ExpungeError(f"Layer {name!r} has {K} units, and there are {w_BK.shape[1]} gates; take this model's own.")
    bias_K = getattr(module, "bias", None)
    own = out if bias_K is None else out - bias_K.view(-1, *ends)
    w = w_BK.view(len(w_BK), *(() if ends else (1,)), -1, *ends)
    return (w * own * gradient).float()


def _of(classes_B: Tensor, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The row of each image's class, (B, K), in every layer."""
    known = min((len(table) for table in tables.values()), default=0)
    wanted = classes_B.long().cpu()
    missing = sorted(
        {c for c in wanted.tolist() if not 0 <= c < known or any(t[c].isnan().any() for t in tables.values())}
    )
    if missing:
        raise ExpungeError(f"There are no gates for class {', '.join(map(str, missing))}, so nothing explains it.")
    return {name: table[wanted] for name, table in tables.items()}


def _outputs(model: nn.Module, x: Tensor, classes: Tensor, names: list[str]) -> tuple[Seen, tuple[Tensor, ...]]:
    """The outputs of these layers that have places, in the order of the calls, and the score's gradient there."""
    size = (x.shape[-2], x.shape[-1])
    seen: Seen = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def note(module: nn.Module, args: Any, out: Any) -> Any:
            if not isinstance(out, Tensor) or out.ndim < 3 or len(out) != len(x):
                return out
            if not layers.has_place(tuple(_laid_out(module, out).shape), size):
                return out
            kept = out if out.requires_grad else out.detach().requires_grad_()  # the graph begins at the first of them
            seen.append((name, kept))
            return kept.clone()  # what follows may work in place

        return note

    handles = []
    try:
        for name in names:
            try:
                module = model.get_submodule(name)
            except AttributeError:
                raise UnknownName("gated layer", name, [n for n, _ in model.named_modules() if n]) from None
            handles.append(module.register_forward_hook(watch(name)))
        scores = class_scores(model, x, classes)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ExpungeError(
            "No gated layer of this model tells places of the image apart. Use saliency or integrated_gradients."
        )
    found = torch.autograd.grad(scores.sum(), [out for _, out in seen], allow_unused=True)
    gradients = tuple(torch.zeros_like(out) if g is None else g for g, (_, out) in zip(found, seen))
    modules = [model.get_submodule(name) for name, _ in seen]
    return (
        [(name, _laid_out(module, out.detach())) for module, (name, out) in zip(modules, seen)],
        tuple(_laid_out(module, g) for module, g in zip(modules, gradients)),
    )
