"""Importance against its definition in NumPy: rows, batches, labels of three kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge import ExpungeError, Run
from expunge.artifact import per_sample
from expunge.artifact.importance import importance
from gradients import Exact, Wide, arrays, of_loss, of_norm, probabilities, some_rows


@pytest.fixture
def case():
    net, rows = Wide(), some_rows()
    index = torch.arange(3, 33)
    return net, rows, index, *arrays(rows, index)


@pytest.mark.parametrize("at_once", [4, 2**24])
def test_of_rows(case, at_once, monkeypatch):
    net, rows, index, x, y = case
    monkeypatch.setattr(per_sample, "ENTRIES", at_once * 39)
    found = importance(net, Exact(3), rows, index, Run())
    np.testing.assert_allclose(found, (of_loss(net, x, y) ** 2).mean(0), rtol=1e-10)
    found = importance(net, Exact(3), rows, index, Run(), labels="none")
    np.testing.assert_allclose(found, np.abs(of_norm(net, x)).mean(0), rtol=1e-10)
    p = probabilities(net, x)
    expected = sum((p[:, c, None] * of_loss(net, x, np.full(len(y), c)) ** 2).mean(0) for c in range(3))
    found = importance(net, Exact(3), rows, index, Run(), labels="model")
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_of_batches_leaves_out_what_does_not_fill_one(case):
    net, rows, index, x, y = case
    g = of_loss(net, x, y)
    means = [g[i : i + 7].mean(0) for i in range(0, 28, 7)]
    found = importance(net, Exact(3), rows, index, Run(), batch=7)
    np.testing.assert_allclose(found, np.mean(np.square(means), 0), rtol=1e-10)
    g = of_norm(net, x)
    means = [g[i : i + 7].mean(0) for i in range(0, 28, 7)]
    found = importance(net, Exact(3), rows, index, Run(), labels="none", batch=7)
    np.testing.assert_allclose(found, np.mean(np.abs(means), 0), rtol=1e-10)
    one = importance(net, Exact(3), rows, index, Run(), batch=1)
    np.testing.assert_allclose(one, importance(net, Exact(3), rows, index, Run()), rtol=1e-10)


def test_of_batches_shrinks_with_the_batch(case):
    """Why batches of different sizes cannot be compared: of gradients that cancel, twice the batch is half of it."""
    net, rows, index, *_ = case
    sizes = [float(importance(net, Exact(3), rows, index, Run(), batch=b).sum()) for b in (1, 5, 15)]
    assert sizes[0] > 2 * sizes[1] > 2 * sizes[2]


def test_gradients_that_are_not_finite_are_told(case):
    net, rows, index, *_ = case
    with torch.no_grad():
        net.b.weight[0, 0] = torch.nan
    with pytest.raises(ExpungeError, match=r"gradients of 30 rows are NaN or infinite in a\.weight"):
        importance(net, Exact(3), rows, index, Run())


def test_no_rows_and_less_than_a_batch_are_refused(case):
    net, rows, index, *_ = case
    with pytest.raises(ExpungeError, match="got 0 for a batch"):
        importance(net, Exact(3), rows, index[:0], Run())
    with pytest.raises(ExpungeError, match="got 30 for a batch of 31"):
        importance(net, Exact(3), rows, index, Run(), batch=31)
