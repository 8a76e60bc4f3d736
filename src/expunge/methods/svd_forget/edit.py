"""The edit of a layer: W' = W - W (I - M_r) M_f, in closed form, without decomposing anything.

M_s = U diag(f(λ)) Uᵀ with C_s = U diag(λ) Uᵀ, the moments divided by their trace, and f(λ) = αλ / ((α - 1) λ + 1).
As f is a rational function, M_s = α C_s K⁻¹ and I - M_s = (I - C_s) K⁻¹ with K = (α - 1) C_s + I, which is positive
definite; products with K⁻¹ are solved by Cholesky's factors.

Shapes: G groups, o outputs of a group, d inputs of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.artifact.activations import Layer, share
from expunge.errors import ExpungeError


def spare(weight_God: Tensor, share_Gdd: Tensor, scale: float) -> Tensor:
    """W (I - M_r), (G, o, d): what the weight does outside the space of the retained inputs.

    Args:
        weight_God: W, float64.
        share_Gdd: C_r, float64, of trace 1.
        scale: α_r, above 0.
    """
    return _over(weight_God - weight_God @ share_Gdd, share_Gdd, scale)


def remove(weight_God: Tensor, spared_God: Tensor, share_Gdd: Tensor, scale: float) -> Tensor:
    """W' = W - X M_f, (G, o, d), with X from `spare`.

    Args:
        weight_God: W, float64.
        spared_God: X = W (I - M_r).
        share_Gdd: C_f, float64, of trace 1.
        scale: α_f, above 0.
    """
    return weight_God - scale * _over(spared_God @ share_Gdd, share_Gdd, scale)


def _over(b_God: Tensor, share_Gdd: Tensor, scale: float) -> Tensor:
    """B K⁻¹ for K = (α - 1) C + I."""
    k_Gdd = (scale - 1) * share_Gdd
    k_Gdd.diagonal(dim1=-2, dim2=-1).add_(1)
    factor_Gdd, failed = torch.linalg.cholesky_ex(k_Gdd)
    if failed.any():
        raise ExpungeError(
            f"At the scale {scale:g} the activations of a layer are too uneven to be told apart in float64: some are "
            "very large, or damaged. Take smaller scales, or normalise the inputs."
        )
    return torch.cholesky_solve(b_God.mT, factor_Gdd).mT


@dataclass(frozen=True)
class Edits:
    """The edited weights of some layers for any pair of scales.

    Args:
        layers: the layers, with the weights before any edit in `weights`.
        weights: their weights, (G, o, d) float64, in their order.
        retain: moments of the classes that stay, (G, T), by the layer's name.
        forget: those of the classes that go.
    """

    layers: Sequence[Layer]
    weights: Sequence[Tensor]
    retain: dict[str, Tensor]
    forget: dict[str, Tensor]

    @classmethod
    def of(cls, layers: Sequence[Layer], retain: dict[str, Tensor], forget: dict[str, Tensor]) -> Edits:
        """The edits of those layers that rows of the forgotten classes reach."""
        reached = [layer for layer in layers if layer.name in forget]
        return cls(reached, [layer.matrix.double().clone() for layer in reached], retain, forget)

    def spared(self, scale: float) -> list[Tensor]:
        """For each layer, `spare` at this scale; it serves every scale of the forgotten classes."""
        return [
            spare(w_God, share(self.retain[layer.name].to(w_God.device)), scale) if layer.name in self.retain else w_God
            for layer, w_God in zip(self.layers, self.weights)
        ]

    def put(self, spared: Sequence[Tensor], scale: float) -> None:
        """Write the edited weights into the layers."""
        for layer, w_God, x_God in zip(self.layers, self.weights, spared):
            layer.put(remove(w_God, x_God, share(self.forget[layer.name].to(w_God.device)), scale))

    def put_back(self) -> None:
        """Write the weights before any edit into the layers."""
        for layer, w_God in zip(self.layers, self.weights):
            layer.put(w_God)
