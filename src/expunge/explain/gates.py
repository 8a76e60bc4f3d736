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
from expunge.explain.look import Explainer, batches, class_scores, undisturbed

Seen = list[tuple[str, Tensor]]  # the name of a layer, and what it returned


def gate_maps(closed: Mapping[str, Tensor]) -> Explainer:
    """An explainer: what closing the gates of a class takes from its score at each place, to first order.

    For each layer with places, and each of its units, `closed` times the unit's output (less its bias, which is not
    gated) times the gradient of the class's score; summed over units and, laid over the image, over layers. Maps are of
    either sign.

    Args:
        closed: how far each unit is closed for each class, from 0 to 1, (classes, K), by the name of the weight, as
            `Gated.closed` gives it. Layers without places (linear ones behind a flattening) are passed over.

    Raises:
        ExpungeError: images or classes that do not fit; a class without gates; no gated layer with places.

    Cost: of the explainer, one forward and one backward pass.

    Source: the gates are those of Poppi et al., arXiv:2304.02049; how they become a map is ours.
    """
    tables = {name.rpartition(".")[0]: table for name, table in closed.items() if not name.endswith("]")}

    def explain(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, *, batch_size: int = 128) -> Tensor:
        size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
        weights = _of(classes_B, tables)
        maps = []
        with undisturbed(model):
            for where, x, classes in batches(model, x_BCHW, classes_B, batch_size):
                seen, gradients = _outputs(model, x, classes, list(tables))
                total = torch.zeros(len(x), *size, device=x.device)
                for (name, out), gradient in zip(seen, gradients):
                    w_BK = weights[name][where].to(x.device)
                    bias = model.get_submodule(name).bias
                    place = layers.as_maps(
                        _taken(out, gradient, w_BK, bias if isinstance(bias, Tensor) else None), size
                    )
                    total += layers.upsample(place.sum(1), size)
                maps.append(total.to(x_BCHW.device))
        return torch.cat(maps)

    return explain


def _taken(out: Tensor, gradient: Tensor, w_BK: Tensor, bias_K: Tensor | None) -> Tensor:
    """Of the shape of the layer's output; channels are axis 1 of maps and the last one of tokens."""
    ends = (1, 1) if out.ndim == 4 else ()
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
            if not isinstance(out, Tensor) or len(out) != len(x) or not layers.has_place(tuple(out.shape), size):
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
    return [(name, out.detach()) for name, out in seen], gradients
