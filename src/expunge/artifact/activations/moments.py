"""Moments: sums of outer products of layer inputs; they add up over classes and do not grow with the rows.

Shapes: G groups, d inputs of a group, n columns, T = d (d + 1) / 2 entries of an upper triangle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.artifact.activations.layers import Layer
from expunge.artifact.store import Store
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.io import index_digest, model_digest
from expunge.modes import eval_mode, plain_attention
from expunge.run import Run
from expunge.structure import structure_digest

VERSION = 1  # rises when the same rows give other sums
BATCH = 128  # rows in a forward pass
BLOCK = 64  # the narrowest block of a product that is worth its overhead


def moments(model: nn.Module, layers: Sequence[Layer], rows: Rows, index: Tensor, run: Run) -> dict[str, Tensor]:
    """For each layer that is used, the sum of x xᵀ over its inputs x on these rows, as upper triangles (G, T).

    Sums are float64, products as `add_products` says. What is returned is float64 for layers in float64 and float32
    otherwise, which halves what is kept.

    Args:
        model: in any mode; it computes in eval mode, and its mode is afterwards as it was.
        layers: some of its layers.
        rows: the data.
        index: positions of the rows to show.
        run: device and randomness.

    Raises:
        ExpungeError: inputs of a layer that are NaN or infinite.

    Cost: one forward pass over the rows, and d² multiplications for each column of d inputs.
    """
    sums: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(_adder(layer, sums), with_kwargs=True)
        for layer in layers
        for module in layer.modules
    ]
    device = run.device_of(model)
    try:
        with eval_mode(model.to(device)), plain_attention(), run.isolated(), torch.no_grad():
            for part in index.split(BATCH):
                model(rows.x(part).to(device))
    finally:
        for hook in hooks:
            hook.remove()
    for name, sum_Gdd in sums.items():
        if not torch.isfinite(sum_Gdd).all():
            labels = sorted({rows.classes[c] for c in rows.y[index].tolist()})
            raise ExpungeError(
                f"The inputs of {name} are NaN or infinite on rows of class {', '.join(labels)}; a layer before it is "
                "damaged, or its outputs leave the range of its precision. Look at the model's weights there."
            )
    wide = {layer.name for layer in layers if layer.weight.dtype == torch.float64}
    kinds = {name: torch.float64 if name in wide else torch.float32 for name in sums}
    return {name: pack(sum_Gdd).to("cpu", kinds[name]) for name, sum_Gdd in sums.items()}


def by_class(
    model: nn.Module,
    layers: Sequence[Layer],
    rows: Rows,
    index: Mapping[int, Tensor],
    run: Run,
    store: Store | None = None,
    notes: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, Tensor], bool]]:
    """The moments of each class in turn, and whether they were kept; so that one class is held in memory at a time.

    Args:
        model: see `moments`.
        layers: see `moments`.
        rows: see `moments`.
        index: for each class, positions of the rows to show.
        run: see `moments`.
        store: where moments are kept, under a digest of the model, the rows shown and the layers. Default: nowhere.
        notes: where they cannot be kept, a sentence is added here.

    Cost: nothing but reading for classes that are kept; otherwise see `moments`. On the disk, 4 bytes for each entry
    of a triangle.
    """
    about = {
        "kind": "activations",
        "version": VERSION,
        "model": model_digest(model),
        "structure": structure_digest(model),
        "layers": [(layer.name, layer.groups) for layer in layers],
        "rows": rows.hash,
        "batch": BATCH,
        "device": run.device_of(model).type,
    }
    for label, shown in index.items():
        part = index_digest(shown)
        key = {**about, "class": label, "part": part}
        kept = store.get(key) if store is not None else None
        if kept is not None:
            yield label, kept[0], True
            continue
        made = moments(model, layers, rows, shown, run)
        if store is not None:
            told = store.keep("The activations are", key, made, {"class": rows.classes[label], "shown": len(shown)})
            if notes is not None:
                notes += [sentence for sentence in told if sentence not in notes]
        yield label, made, False


def share(packed_GT: Tensor) -> Tensor:
    """The moments divided by their trace, as full float64 matrices (G, d, d); zero where there was nothing.

    Their eigenvalues are the shares of the inputs' energy along the eigenvectors, and sum to 1.
    """
    d = (math.isqrt(8 * packed_GT.shape[-1] + 1) - 1) // 2
    full = packed_GT.new_zeros((len(packed_GT), d, d), dtype=torch.float64)
    full[:, _triangle(d, packed_GT)] = packed_GT.double()
    full += full.triu(1).mT
    trace = full.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    return full.div_(torch.where(trace > 0, trace, 1.0))


def _adder(layer: Layer, sums: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for x_Gnd in layer.read(module, args, kwargs):
            if layer.name not in sums:
                groups, _, d = x_Gnd.shape
                sums[layer.name] = x_Gnd.new_zeros((groups, d, d), dtype=torch.float64)
            add_products(sums[layer.name], x_Gnd)

    return add


def add_products(sum_Gdd: Tensor, x_Gnd: Tensor) -> None:
    """Add the outer products of columns to a float64 sum, in place; below its diagonal it means nothing.

    The products of few columns are float64: their sum has directions without energy, which large scales would fill
    with rounding errors. So are those where somebody switched TF32 on.
    """
    _, n, d = x_Gnd.shape
    wide = n <= d or x_Gnd.dtype == torch.float64 or torch.get_float32_matmul_precision() != "highest"
    x_Gnd = x_Gnd.double() if wide else x_Gnd.float()
    step = d if d < 4 * BLOCK else -(-d // 4)  # the blocks below the diagonal, 6 of 16, are left out
    for i in range(0, d, step):
        sum_Gdd[:, i : i + step, i:] += x_Gnd[..., i : i + step].mT @ x_Gnd[..., i:]


def pack(full_Gdd: Tensor) -> Tensor:
    """The upper triangles, (G, T)."""
    return full_Gdd[:, _triangle(full_Gdd.shape[-1], full_Gdd)]


def _triangle(d: int, like: Tensor) -> Tensor:
    return torch.ones((d, d), dtype=torch.bool, device=like.device).triu_()
