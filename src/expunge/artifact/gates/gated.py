"""Gated: a model that stands still, and gates on its units, a row of them for each set of classes to forget.

Shapes: B batch, R rows of gates, U units of all layers, K units of one layer; n = B times the pieces of an example.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.artifact.activations import Layer
from expunge.artifact.gates import attention
from expunge.artifact.gates.units import units
from expunge.errors import ExpungeError
from expunge.logits import logits_of
from expunge.modes import plain_attention

HALF = 0.5  # a hard gate is open from here on


class Gated(nn.Module):
    """A frozen model and its gates, the only parameters: α = sigmoid(`free`) multiplies a unit's weights.

    Gates act on activations while they are learned, so that each example of a batch has a row of its own; `forgetting`
    multiplies the weights. Both are the same. Biases are not gated: at α = 0 a unit yields its bias.

    Args:
        model: becomes part of this: it is frozen, and stays in eval mode.
        layers: whose units have gates, of this model; see `choose`.
        sets: the classes that each row of gates forgets.
        start: `free` at the beginning. Default 3, α = 0.95.
        hard: gates of copies made by `forgetting` are 0 or 1. Default no.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        sets: Sequence[tuple[int, ...]],
        start: float = 3.0,
        hard: bool = False,
    ) -> None:
        super().__init__()
        self.layers, self.sets, self.hard = tuple(layers), tuple(tuple(sorted(s)) for s in sets), hard
        self.sizes = [units(layer) for layer in self.layers]
        device = self.layers[0].weight.device
        self.left: tuple[float, ...] = ()  # after learning, the share of each set's rows that is still recognised
        self.free = nn.Parameter(torch.full((len(self.sets), sum(self.sizes)), start, device=device))
        self._states = [(m, m.training) for m in model.modules()], [(p, p.requires_grad) for p in model.parameters()]
        model.requires_grad_(False).eval()
        self._frozen = (model,)  # in a tuple, so that `train()` does not reach it

    @property
    def frozen(self) -> nn.Module:
        """The model without gates."""
        return self._frozen[0]

    def gates(self) -> Tensor:
        """α: (R, U), from 0 to 1."""
        return self.free.sigmoid()

    def forward(self, x_B: Tensor, rows_B: Tensor) -> Any:
        """What the model says of each example under a row of gates.

        Args:
            x_B: inputs.
            rows_B: the row of each example, (B,); or several, (B, k), of which each unit takes the least. -1 is the
                model without gates.
        """
        if bool((rows_B < 0).all()):  # hooks would turn off fast paths of PyTorch, whose last bits differ
            return self.frozen(x_B)
        alpha = torch.cat([self.gates(), torch.ones_like(self.free[:1])])
        chosen_BU = alpha[rows_B] if rows_B.ndim == 1 else alpha[rows_B].amin(1)
        with self._scaled(chosen_BU), plain_attention():
            return self.frozen(x_B)

    # -- one row -------------------------------------------------------------------------------------------------------

    def row(self, classes: Collection[int]) -> Tensor:
        """The gates that forget these classes, (U,): the row of this set, or for each unit the least of their rows.

        Raises:
            ExpungeError: classes for which no gates were learned.
        """
        wanted, alpha = tuple(sorted(set(classes))), self.gates().detach()
        if wanted in self.sets:
            row = alpha[self.sets.index(wanted)]
        else:
            alone = {s[0]: i for i, s in enumerate(self.sets) if len(s) == 1}
            missing = [c for c in wanted if c not in alone]
            if missing or not wanted:
                known = ", ".join(" and ".join(map(str, s)) for s in self.sets)
                raise ExpungeError(f"There are gates that forget class {known}; none for {missing or 'no class'}.")
            row = alpha[[alone[c] for c in wanted]].amin(0)
        return (row >= HALF).to(row) if self.hard else row

    def forgetting(self, classes: Collection[int]) -> nn.Module:
        """A copy of the model, of its own class and in its own mode, with the gates of these classes in its weights.

        Several classes that were not learned together share their gates' least values; each one more costs accuracy on
        what stays, see the documentation.

        Raises:
            ExpungeError: as `row`.
        """
        return self.folded(self.row(classes))

    def folded(self, gates_U: Tensor) -> nn.Module:
        """A copy of the model, of its own class and in its own mode, with these gates in its weights."""
        modes, flags = self._states
        memo: dict[int, Any] = {}  # what each module and parameter becomes in the copy
        out = copy.deepcopy(self.frozen, memo)
        for layer, gates_K in self.split(gates_U).items():
            weight = memo[id(layer.weight)]
            with torch.no_grad():
                part = weight[layer.part]
                part *= gates_K.to(part).view(-1, *[1] * (part.ndim - 1))
        for module, mode in modes:
            memo[id(module)].training = mode
        for parameter, flag in flags:
            memo[id(parameter)].requires_grad_(flag)
        return out

    def split(self, gates_U: Tensor) -> dict[Layer, Tensor]:
        """Gates (..., U) layer by layer, (..., K)."""
        return dict(zip(self.layers, gates_U.split(self.sizes, -1)))

    def check(self, x_2: Tensor, generator: torch.Generator) -> None:
        """Nothing, if gates on activations do what gates on weights do, for two inputs and random gates.

        Raises:
            ExpungeError: they do not; the model uses a weight in a way that its modules do not show, or what it says
                of one input depends on the other.
        """
        gates = torch.rand(self.free.shape[1:], generator=generator).to(self.free)
        with torch.no_grad():
            plain, one, two = (logits_of(self.frozen(x)) for x in (x_2, x_2[:1], x_2[1:]))
            if not self._same(plain, torch.cat([one, two])):
                raise ExpungeError(
                    "What this model says of a row depends on the other rows of its batch, or on chance, in eval mode "
                    "too, so no gates can be learned for each row; normalise by running statistics "
                    "(BatchNorm with track_running_stats=True), or by example (GroupNorm, LayerNorm)."
                )
            with self._scaled(torch.stack([gates, torch.ones_like(gates)])):
                mixed = logits_of(self.frozen(x_2))
            folded = self.folded(gates)
            folded.eval()
            alone = torch.cat([logits_of(folded(x_2[:1])), two])
        if not self._same(mixed, alone):
            raise ExpungeError(
                "Scaling the activations of this model is not the same as scaling its weights, so some weight is used "
                "outside the module that holds it. Name the layers that are used plainly: layers=['...']."
            )

    # -- what they tell ------------------------------------------------------------------------------------------------

    def closed(self, classes: int) -> dict[str, Tensor]:
        """How far each unit is closed for each class, 1 - α: by the name of the layer, (classes, K).

        A class of which no gate is known has NaN; classes of one set have the same row.

        Args:
            classes: how many there are.

        Raises:
            ExpungeError: fewer than gates were learned for.
        """
        most = 1 + max(c for members in self.sets for c in members)
        if classes < most:
            raise ExpungeError(f"closed takes the number of classes, at least {most} for these gates; got {classes!r}.")
        whole = self.free.new_full((classes, sum(self.sizes)), float("nan")).detach()
        for members in self.sets:
            whole[list(members)] = 1 - self.row(members)
        return {layer.name: part.cpu() for layer, part in self.split(whole).items()}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _same(self, a: Tensor, b: Tensor) -> bool:
        """As far as the precision of the weights lets two ways of computing agree."""
        rough = max(1e-3, 8 * max(torch.finfo(w.dtype).eps for w in self.frozen.parameters()))  # more for 16 bits
        return torch.allclose(a, b, rtol=rough, atol=rough * float(b.abs().max()))

    @contextmanager
    def _scaled(self, chosen_BU: Tensor) -> Iterator[None]:
        mine: dict[int, tuple[nn.Module, dict[Layer, Tensor]]] = {}
        for layer, gates_BK in self.split(chosen_BU).items():
            for module in layer.modules:
                mine.setdefault(id(module), (module, {}))[1][layer] = gates_BK
        hooks = []
        try:
            for module, gates in mine.values():  # ahead of hooks of the user's, which may change what a layer returns
                if isinstance(module, nn.MultiheadAttention):
                    hook = attention.hook(gates)
                    hooks.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))
                else:
                    hooks.append(module.register_forward_hook(_scale(next(iter(gates.values()))), prepend=True))
            yield
        finally:
            for handle in hooks:
                handle.remove()


def _scale(gates_BK: Tensor) -> Callable[[Any, Any, Tensor], Tensor]:
    def scale(module: Any, args: Any, out: Tensor) -> Tensor:
        channels = 1 if isinstance(module, nn.modules.conv._ConvNd) else -1
        return attention.gate(out, gates_BK, module.bias, channels)

    return scale
