"""The Fréchet distance between two clouds of features, the number behind FID.

Shapes: N and M rows, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.audit.stats import float64
from expunge.errors import ExpungeError

Array = NDArray[np.float64]


def frechet_distance(a_ND: Any, b_MD: Any) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), 0 or more: two clouds as if both were normal.

    The trace of the root is that of (Σ_a^½ Σ_b Σ_a^½)^½, which is symmetric: no complex numbers can come of rounding.
    The distance is biased upwards for few rows, so only distances of like numbers can be compared.

    Args:
        a_ND: features, (N, D).
        b_MD: features, (M, D).

    Raises:
        ExpungeError: other shapes, fewer than two rows, numbers that are not finite.

    Source: Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500, where the features are Inception's.
    """
    a_ND, b_MD = float64(a_ND), float64(b_MD)
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1] or min(len(a_ND), len(b_MD)) < 2:
        raise ExpungeError(
            "A Fréchet distance needs two tables of features, (N, D) and (M, D), with two rows at least; got "
            f"{a_ND.shape} and {b_MD.shape}."
        )
    if not (np.isfinite(a_ND).all() and np.isfinite(b_MD).all()):
        raise ExpungeError("Features hold NaN or infinity; there is no distance between them.")
    shift_D = a_ND.mean(0) - b_MD.mean(0)
    cov_a, cov_b = _covariance(a_ND), _covariance(b_MD)
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    return max(0.0, float(shift_D @ shift_D + np.trace(cov_a) + np.trace(cov_b) - 2 * shared))


def _covariance(x_ND: Array) -> Array:
    return np.atleast_2d(np.cov(x_ND, rowvar=False))
