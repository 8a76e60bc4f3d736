"""The inverse of the damped Fisher information times a vector, exact, without a matrix of weights by weights.

Shapes: m rows, r rows of G (m, or m for each class), c columns of G, d weights that are trained, B rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.artifact.importance import Labels, shown
from expunge.artifact.per_sample import at_once, check_finite, in_use, per_sample, total, trainable
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.run import Run
from expunge.task.base import Task

BLOCK = 2**27  # entries of gradients held at once, 512 MiB of float32
LARGEST = 2**13  # rows of G at most: the matrix of their products then takes 512 MiB


@dataclass(frozen=True)
class Gradients:
    """The gradients of some rows as a matrix G (r, d) that is never whole in memory; the model is in use.

    Args:
        model: in eval mode, on `device`.
        task: gives the loss.
        rows: the data.
        index: positions of the m rows.
        labels: `"own"`: r = m, a gradient for each row. `"model"`: one for each row and label, times the root of the
            label's probability. Either way Gᵀ G / m is a Fisher information.
        device: where to compute.
    """

    model: nn.Module
    task: Task
    rows: Rows
    index: Tensor
    labels: Labels
    device: torch.device

    def count(self) -> int:
        """The number of rows of G, r."""
        if self.labels == "own":
            return len(self.index)
        with torch.no_grad():
            scores = self.task.scores(self.model, self.rows.x(self.index[:1]).to(self.device))
        return len(self.index) * scores.shape[1]

    def batches(self, size: int) -> Iterator[tuple[slice, Tensor, Tensor, Tensor | None]]:
        """The places in G, inputs, labels and factors of at most `size` rows of G at a time, first to last."""
        place = 0
        for part in self.index.split(size):
            x_B, y_B = self.rows.x(part).to(self.device), self.rows.y[part].to(self.device)
            for x, y, root in shown(self.model, self.task, x_B, y_B, self.labels, size):
                yield slice(place, place + len(y)), x, y, root
                place += len(y)

    def columns(self, begin: int, end: int) -> Tensor:
        """Some columns of G, (r, c); one pass of single-row gradients."""
        names: list[str] = []
        start = here = 0
        for name, p in trainable(self.model).items():
            if here < end and here + p.numel() > begin:
                start = here if not names else start
                names.append(name)
            here += p.numel()
        weights = trainable(self.model)
        dtype = next(iter(weights.values())).dtype
        g_rc = torch.empty((self.count(), end - begin), dtype=dtype, device=self.device)
        for place, x_B, y_B, root_B in self.batches(at_once(sum(weights[n].numel() for n in names))):
            g_Bc = per_sample(self.model, self.task.loss, x_B, y_B, names)[:, begin - start : end - start]
            g_rc[place] = g_Bc if root_B is None else g_Bc * root_B[:, None]
        return g_rc

    def back(self, w_r: Tensor) -> Tensor:
        """Gᵀ w, (d,) float64; one ordinary backward pass."""
        weights = list(trainable(self.model).values())
        sum_d = torch.zeros(sum(p.numel() for p in weights), dtype=torch.float64, device=self.device)
        for place, x_B, y_B, root_B in self.batches(256):
            w_B = w_r[place] if root_B is None else w_r[place] * root_B
            sum_d += total(self.model, self.task.loss, x_B, y_B, w_B)
        check_finite(self.model, sum_d, f"The gradients of {len(self.index):,} rows")
        return sum_d


def inverse_product(
    model: nn.Module,
    task: Task,
    rows: Rows,
    index: Tensor,
    run: Run,
    vector_d: Tensor,
    damping: float,
    labels: Labels = "own",
    block: int = BLOCK,
) -> Tensor:
    """(λ I + F)⁻¹ v, (d,) float64, with F the Fisher information of these rows.

    F = Gᵀ G / m, with the gradients of rows as the rows of G. By the identity of Woodbury

        (λ I + Gᵀ G / m)⁻¹ v = (v − Gᵀ (m λ I + G Gᵀ)⁻¹ G v) / λ

    Only G Gᵀ and G v are needed of G, so that it is made in blocks of columns, and Gᵀ w is an ordinary gradient.

    Args:
        model: in any mode; it computes in eval mode, and its mode is afterwards as it was.
        task: gives the loss.
        rows: the data.
        index: positions of the m rows.
        run: device.
        vector_d: v.
        damping: λ, above 0.
        labels: `"own"` (default): the empirical Fisher information. `"model"`: its expectation over the labels that
            the model gives, which for cross-entropy is the generalised Gauss-Newton matrix, and for a linear model the
            Hessian.
        block: entries of G held at once, r or more. Default 2²⁷: 512 MiB in float32.

    Raises:
        ExpungeError: too many rows of G, gradients that are not finite, or a damping below the rounding of G Gᵀ.

    Cost: ceil(r d / block) passes of single-row gradients, and one of an ordinary one; r² d multiplications, r³ / 3 for
    the factors. Memory: `block` entries, r² in float64, and some vectors of d.
    """
    with in_use(model, run) as device:
        gradients = Gradients(model, task, rows, index, labels, device)
        r, d, v_d = gradients.count(), len(vector_d), vector_d.to(device, torch.float64)
        if r > LARGEST:
            raise ExpungeError(f"The gradients are {r:,} rows ({labels} labels), at most {LARGEST:,} can be served.")
        products_rr = torch.zeros((r, r), dtype=torch.float64, device=device)
        along_r = torch.zeros(r, dtype=torch.float64, device=device)
        width = max(1, block // r)
        for begin in range(0, d, width):
            g_rc = gradients.columns(begin, min(begin + width, d))
            products_rr += g_rc @ g_rc.T
            along_r += g_rc @ v_d[begin : begin + width].to(g_rc.dtype)
        if not torch.isfinite(products_rr).all():
            raise ExpungeError(f"The gradients of some of {len(index):,} rows are NaN or infinite; look at the model.")
        products_rr.diagonal().add_(damping * len(index))
        factor_rr, failed = torch.linalg.cholesky_ex(products_rr)
        if failed:
            raise ExpungeError(
                f"A damping of {damping:g} is below the rounding of these gradients, so that no inverse could be told "
                "from noise; raise it."
            )
        w_r = torch.cholesky_solve(along_r[:, None], factor_rr)[:, 0]
        return (v_d - gradients.back(w_r)) / damping
