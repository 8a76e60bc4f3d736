"""Layers: the weights that are multiplied with activations, and how those are read as columns.

Shapes: G groups, o outputs of a group, d inputs of a group (for convolutions: of a window), n columns, B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 2**24  # entries of columns laid out at once, 64 MiB of float32
KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Reader = Callable[[Any, tuple[Any, ...], dict[str, Any]], Iterator[Tensor]]


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight that is multiplied with activations.

    Args:
        name: of the parameter; for a part of it, with the part in brackets.
        weight: the parameter.
        modules: where it is used; more than one where modules share it.
        read: from a module and the arguments of a call to the columns, in chunks of (G, n, d).
        groups: G, above 1 for grouped convolutions; each group has its own inputs.
        part: the rows of the parameter that are meant.
    """

    name: str
    weight: nn.Parameter = field(repr=False)
    modules: tuple[nn.Module, ...] = field(repr=False)
    read: Reader = field(repr=False)
    groups: int = 1
    part: slice = field(default_factory=lambda: slice(None))

    @property
    def matrix(self) -> Tensor:
        """The weight as (G, o, d); its rows are laid out as columns are."""
        rows = self.weight.detach()[self.part].flatten(1)
        return rows.view(self.groups, -1, rows.shape[1])

    def put(self, matrix_God: Tensor) -> None:
        """Replace the weight, in place."""
        with torch.no_grad():
            old = self.weight[self.part]
            old.copy_(matrix_God.reshape(old.shape))


def find_layers(model: nn.Module) -> tuple[list[Layer], list[str]]:
    """The linear, convolutional and attention weights of a model, and the names of other weights, with their kind.

    A weight that several modules share is one layer. A module whose class has a forward pass of its own, and a weight
    that another kind of module uses as well, such as an embedding, are among the others. Vectors are not told of.
    """
    found: dict[tuple[int, int], Layer] = {}
    taken = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    users: dict[int, list[tuple[str, str, bool]]] = {}  # of each weight: its names, whose, and whether that is known
    for name, module in model.named_modules():
        if id(module) in taken:  # attention computes with it, without calling it
            continue
        layers = list(_layers_of(module, f"{name}.".lstrip(".")))
        for layer in layers:
            place = (id(layer.weight), layer.part.start or 0)
            there = found.get(place)
            same = there is not None and there.groups == layer.groups and there.read is layer.read
            if there is None:
                found[place] = layer
            elif same:
                found[place] = replace(there, modules=there.modules + layer.modules)
            else:
                users.setdefault(id(layer.weight), []).append((layer.name, "used in two ways", False))
        mine = {id(layer.weight) for layer in layers}
        for own, weight in module.named_parameters(f"{name}".strip("."), recurse=False):
            if weight.ndim > 1:
                users.setdefault(id(weight), []).append((own, type(module).__name__, id(weight) in mine))
    others = [f"{own} ({kind})" for uses in users.values() for own, kind, known in uses if not known]
    strange = {weight for weight, uses in users.items() if not all(known for *_, known in uses)}
    return [layer for layer in found.values() if id(layer.weight) not in strange], others


def _layers_of(module: nn.Module, prefix: str) -> Iterator[Layer]:
    if isinstance(module, nn.MultiheadAttention):
        yield from _attention(module, prefix)
        return
    plain = any(isinstance(module, kind) and type(module).forward is kind.forward for kind in KNOWN)
    weight = module._parameters.get("weight") if plain else None  # none where it is computed from something else
    if weight is not None and weight.is_floating_point():
        if isinstance(module, nn.Linear):
            yield Layer(f"{prefix}weight", weight, (module,), _rows)
        else:
            yield Layer(f"{prefix}weight", weight, (module,), _windows, groups=int(module.groups))  # type: ignore[arg-type]


def _attention(module: nn.MultiheadAttention, prefix: str) -> Iterator[Layer]:
    if type(module).forward is not nn.MultiheadAttention.forward:
        return
    joint = module._parameters.get("in_proj_weight")
    for i, (which, reader) in enumerate((("q", _query), ("k", _key), ("v", _value))):
        if joint is not None:
            part = slice(i * module.embed_dim, (i + 1) * module.embed_dim)
            yield Layer(f"{prefix}in_proj_weight[{which}]", joint, (module,), reader, part=part)
        elif (weight := module._parameters.get(f"{which}_proj_weight")) is not None:
            yield Layer(f"{prefix}{which}_proj_weight", weight, (module,), reader)
    out = module.out_proj._parameters.get("weight")
    if out is not None:
        yield Layer(f"{prefix}out_proj.weight", out, (module,), _heads)


# -- columns -----------------------------------------------------------------------------------------------------------


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str) -> Tensor:
    value: Tensor = args[place] if len(args) > place else next(kwargs[name] for name in names if name in kwargs)
    return value.detach()


def _cut(x: Tensor) -> Iterator[Tensor]:
    flat_nd = x.reshape(-1, x.shape[-1])
    for part_nd in flat_nd.split(max(1, CHUNK // flat_nd.shape[1])):
        yield part_nd[None]


def _rows(module: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Every row that a linear layer multiplies."""
    return _cut(_argument(args, kwargs, 0, "input"))


def _query(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    return _cut(_argument(args, kwargs, 0, "query"))


def _key(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    return _cut(_argument(args, kwargs, 1, "key"))


def _value(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    return _cut(_argument(args, kwargs, 2, "value"))


def _heads(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """What attention hands to its last projection: its output with the identity in that place."""
    size, old = module.embed_dim, module.out_proj.weight
    identity = nn.Linear(size, size, device="meta")  # draws nothing
    identity.weight = nn.Parameter(torch.eye(size).to(old), requires_grad=False)
    identity.bias = nn.Parameter(torch.zeros(size).to(old), requires_grad=False)
    bare = copy.copy(module)
    bare._modules = {**module._modules, "out_proj": identity}
    return _cut(bare.forward(*args, **kwargs)[0].detach())  # not called as a module, so that no hook runs


def _windows(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Every window that a convolution multiplies, in the order of its weight: channel, then place in the window."""
    x = _argument(args, kwargs, 0, "input")
    axes = len(module.kernel_size)
    x = x if x.ndim == axes + 2 else x[None]
    if any(module._reversed_padding_repeated_twice):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for i, (k, stride, gap) in enumerate(zip(module.kernel_size, module.stride, module.dilation)):
        x = x.unfold(2 + i, gap * (k - 1) + 1, stride)[..., ::gap]  # a view; the place in the window comes last
    x = x.unflatten(1, (module.groups, -1)).movedim(1, 0)  # (G, B, channels, places..., windows...)
    x = x.movedim(2, 2 + axes)  # (G, B, places..., channels, windows...)
    size = x[0, 0].numel()
    for part in x.split(max(1, CHUNK // max(1, size * module.groups)), dim=1):
        yield part.flatten(2 + axes).flatten(1, 1 + axes)
