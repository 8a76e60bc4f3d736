"""The inverse-Fisher product against the explicit inverse of a dense matrix, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge import ExpungeError, Run
from expunge.artifact import inverse_fisher, per_sample
from expunge.artifact.inverse_fisher import inverse_product
from gradients import Exact, Wide, arrays, of_loss, probabilities, some_rows

D = 5 * 4 + 4 + 4 * 3 + 3


@pytest.fixture
def case():
    net, rows = Wide(), some_rows()
    index = torch.arange(2, 27)
    vector = torch.randn(D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return net, rows, index, vector, *arrays(rows, index)


def dense(g: np.ndarray, m: int, damping: float, vector: torch.Tensor) -> np.ndarray:
    return np.linalg.inv(damping * np.eye(D) + g.T @ g / m) @ vector.numpy()


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("block", [2**27, 25 * 7, 1])
def test_it_is_that_of_the_explicit_inverse(case, damping, block):
    net, rows, index, vector, x, y = case
    expected = dense(of_loss(net, x, y), len(y), damping, vector)
    found = inverse_product(net, Exact(3), rows, index, Run(), vector, damping, block=block)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("at_once", [5, 2**24])
def test_with_the_labels_of_the_model_it_is_that_of_the_fisher_information(case, at_once, monkeypatch):
    net, rows, index, vector, x, y = case
    monkeypatch.setattr(per_sample, "ENTRIES", at_once * D)
    p = probabilities(net, x)
    g = np.concatenate([np.sqrt(p[:, [c]]) * of_loss(net, x, np.full(len(y), c)) for c in range(3)])
    found = inverse_product(net, Exact(3), rows, index, Run(), vector, 0.01, labels="model", block=75 * 9)
    np.testing.assert_allclose(found, dense(g, len(y), 0.01, vector), rtol=1e-7, atol=1e-9)


def test_the_public_recursion_is_something_else(case):
    """Its running vector stays parallel to the first gradient, so that it is the vector plus a multiple of that."""
    net, rows, index, vector, x, y = case
    g, n = of_loss(net, x, y), 1000
    o, k = g[0].copy(), vector.numpy().copy()
    for row in g[1:]:
        s = o @ row
        k, o = k - (k @ row) / (n + s) * o, o - s / (n + s) * o
    assert np.linalg.matrix_rank(np.stack([k - vector.numpy(), g[0]]), tol=1e-9) == 1
    right = inverse_product(net, Exact(3), rows, index, Run(), vector, 1.0).numpy()
    cosine = (right - vector.numpy()) @ g[0] / np.linalg.norm(right - vector.numpy()) / np.linalg.norm(g[0])
    assert abs(cosine) < 0.9


def test_columns_are_made_of_the_tensors_that_they_touch(case):
    net, rows, index, _, x, y = case
    whole = of_loss(net, x, y)
    with per_sample.in_use(net, Run()) as device:
        gradients = inverse_fisher.Gradients(net, Exact(3), rows, index, "own", device)
        for begin, end in ((0, D), (0, 3), (19, 21), (20, 24), (22, 38), (38, 39)):
            np.testing.assert_allclose(gradients.columns(begin, end), whole[:, begin:end], rtol=1e-9, atol=1e-12)


def test_no_more_is_held_than_was_said(case, monkeypatch):
    net, rows, index, vector, *_ = case
    held = []
    made = inverse_fisher.Gradients.columns

    def seen(self, begin, end):
        g = made(self, begin, end)
        held.append(g.numel())
        return g

    monkeypatch.setattr(inverse_fisher.Gradients, "columns", seen)
    inverse_product(net, Exact(3), rows, index, Run(), vector, 0.1, block=100)
    assert max(held) <= 100
    assert sum(held) == len(index) * D


def test_what_cannot_be_served_is_told(case, monkeypatch):
    net, rows, index, vector, *_ = case
    monkeypatch.setattr(inverse_fisher, "LARGEST", 24)
    with pytest.raises(ExpungeError, match="25 rows"):
        inverse_product(net, Exact(3), rows, index, Run(), vector, 0.1)
    monkeypatch.undo()
    with torch.no_grad():
        net.b.weight[0, 0] = torch.nan
    with pytest.raises(ExpungeError, match="NaN or infinite"):
        inverse_product(net, Exact(3), rows, index, Run(), vector, 0.1)


def test_a_damping_below_rounding_is_refused():
    """Forty copies of one row: the products have one direction, and rounding in all others."""
    net, rows = Wide(), some_rows()
    vector = torch.ones(D, dtype=torch.float64)
    with pytest.raises(ExpungeError, match="damping of 1e-30 is below the rounding"):
        inverse_product(net, Exact(3), rows, torch.zeros(40, dtype=torch.long), Run(), vector, 1e-30)
