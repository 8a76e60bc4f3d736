"""Gates on activations: on the outputs of a layer, and inside PyTorch's attention, which computes without calling it.

Shapes: B batch, K units; n = B times the pieces of an example, T tokens, D width of a token.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.artifact.activations import Layer

ROLES = ("query", "key", "value")


def gate(out: Tensor, gates_BK: Tensor, bias_K: Tensor | None, channels: int, examples: int = 0) -> Tensor:
    """`gates * (out - bias) + bias`: what a layer with the gates in its weights returns; the same bits at a gate of 1.

    Args:
        out: of the layer, with n entries along `examples` and K along `channels`.
        gates_BK: the gates of each example; pieces of an example lie side by side.
        bias_K: of the layer.
        channels: an axis of `out`.
        examples: an axis of `out`.
    """
    pieces = out.shape[examples] // max(1, len(gates_BK))
    shape = [1] * out.ndim
    shape[examples], shape[channels] = out.shape[examples], gates_BK.shape[1]
    gates = gates_BK.to(out.dtype).repeat_interleave(pieces, 0).reshape(shape)
    if bias_K is None:
        return out * gates
    shape[examples] = 1
    return torch.lerp(bias_K.to(out.dtype).reshape(shape).expand_as(out), out, gates)


def hook(gates: Mapping[Layer, Tensor]) -> Callable[..., Any]:
    """A forward hook on `nn.MultiheadAttention` that computes its output anew, with gates (B, D) on its parts.

    Examples whose gates are all 1 keep the output as it was: anew, sums have another order and other last bits.
    """
    parts = {_role(layer): gates_BK for layer, gates_BK in gates.items()}
    open_B = torch.stack([(gates_BK == 1).all(1) for gates_BK in parts.values()]).all(0)

    def attend(module: nn.MultiheadAttention, args: Any, kwargs: Any, out: Any) -> Any:
        given = inspect.signature(nn.MultiheadAttention.forward).bind(module, *args, **kwargs).arguments
        given.pop("self")
        examples = 0 if module.batch_first else 1
        for i, role in enumerate(ROLES):
            weight, bias = _projection(module, i)
            projected = F.linear(given[role], weight, bias)
            if role in parts:
                projected = gate(projected, parts[role], bias, -1, examples)
            given[role] = projected
        heads, weights = _bare(module).forward(**given)
        last = module.out_proj
        y = F.linear(heads, last.weight, last.bias)
        y = gate(y, parts["out"], last.bias, -1, examples) if "out" in parts else y
        plain, plain_weights = out
        weights = None if weights is None else _either(open_B, plain_weights, weights, 0)
        return _either(open_B, plain, y, examples), weights

    return attend


def _either(open_B: Tensor, plain: Tensor, gated: Tensor, examples: int) -> Tensor:
    """`plain` for the examples with open gates, `gated` for the others."""
    shape = [1] * gated.ndim
    shape[examples] = gated.shape[examples]
    open_n = open_B.repeat_interleave(shape[examples] // max(1, len(open_B)))
    return torch.where(open_n.view(shape), plain, gated)


def _role(layer: Layer) -> str:
    end = layer.name.rpartition(".")[2]
    letter = end[-2] if end.endswith("]") else end[0]
    return {"q": "query", "k": "key", "v": "value"}.get(letter, "out")


def _projection(module: nn.MultiheadAttention, i: int) -> tuple[Tensor, Tensor | None]:
    part = slice(i * module.embed_dim, (i + 1) * module.embed_dim)
    separate = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)[i]
    weight = module.in_proj_weight[part] if separate is None else separate
    return weight, None if module.in_proj_bias is None else module.in_proj_bias[part]


def _bare(module: nn.MultiheadAttention) -> nn.MultiheadAttention:
    """The same attention with identities for projections: it takes and returns what lies between them."""
    size, like = module.embed_dim, module.out_proj.weight
    identity = nn.Parameter(torch.eye(size).to(like), requires_grad=False)
    zero = nn.Parameter(torch.zeros(3 * size).to(like), requires_grad=False)
    out = nn.Linear(size, size, device="meta")  # draws nothing
    out.weight, out.bias = identity, nn.Parameter(zero[:size], requires_grad=False)
    joint = nn.Parameter(identity.repeat(3, 1), requires_grad=False)
    bare = copy.copy(module)
    bare._modules = {**module._modules, "out_proj": out}
    bare._parameters = {**module._parameters, "in_proj_weight": joint, "in_proj_bias": zero}
    bare._parameters |= {f"{letter}_proj_weight": None for letter in "qkv"}
    bare._qkv_same_embed_dim, bare.kdim, bare.vdim = True, size, size
    return bare
