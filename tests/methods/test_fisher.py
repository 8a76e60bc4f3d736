"""Fisher forgetting: the noise has the spread that the diagonal Fisher information says, and no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import expunge as ex
from expunge import ExpungeError, Request
from expunge.artifact.per_sample import weights_of
from expunge.methods.fisher import Fisher
from gradients import Exact, Wide, arrays, of_loss, probabilities, some_rows
from kit import accuracy, bits


def spread_by_numpy(net, rows, index, alpha, limit, labels="model") -> np.ndarray:
    x, y = arrays(rows, index)
    if labels == "own":
        fisher = (of_loss(net, x, y) ** 2).mean(0)
    else:
        p = probabilities(net, x)
        fisher = sum((p[:, c, None] * of_loss(net, x, np.full(len(y), c)) ** 2).mean(0) for c in range(3))
    return np.sqrt(alpha * np.minimum(1 / (fisher + 1e-8), limit))


@pytest.mark.parametrize("labels", ["model", "own"])
def test_the_noise_is_standard_normal_in_units_of_its_spread(labels):
    rows = some_rows(60)
    request, draws = Request(rows, classes=[2]), []
    net = Wide(hidden=30)
    spread = spread_by_numpy(net, rows, request.keep, 1e-4, 200.0, labels)
    assert 0 < (spread == np.sqrt(1e-4 * 200)).mean() < 1  # some at the limit, others not
    for seed in range(20):
        fields = {"alpha": 1e-4, "limit": 200.0, "labels": labels, "seed": seed}
        moved = weights_of(ex.unlearn(net, request, "fisher", task=Exact(3), **fields).model) - weights_of(net)
        draws.append(moved.numpy() / spread)
    draws = np.array(draws)
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.01
    by_weight = (draws**2).sum(0)  # each weight by itself: chi-squared with 20 degrees of freedom
    assert stats.kstest(by_weight, stats.chi2(20).cdf).pvalue > 0.01


def test_it_grows_with_the_root_of_alpha_and_follows_the_seed(mlp, three):
    def moved(**more) -> torch.Tensor:
        return weights_of(ex.unlearn(mlp, three, "fisher", samples=60, **more).model) - weights_of(mlp)

    torch.testing.assert_close(moved(alpha=4e-6), 2 * moved(alpha=1e-6), rtol=1e-2, atol=1e-5)
    assert torch.equal(moved(seed=1), moved(seed=1))
    assert not torch.equal(moved(seed=1), moved(seed=2))


def test_the_forget_rows_are_never_read(mlp, train, three):
    """Their inputs may be gone: zeros in their places make the same model."""
    x = train.x(torch.arange(len(train)))
    gone = x.index_fill(0, three.forget, 0.0)
    requests = [Request(ex.Rows(inputs, train.y, classes=train.classes), classes=[3]) for inputs in (x, gone)]
    made = [bits(ex.unlearn(mlp, request, "fisher", samples=100).model) for request in requests]
    assert made[0] == made[1]


def test_statistics_and_frozen_weights_stay(net, three):
    first = next(net.parameters())
    first.requires_grad_(False)
    result = ex.unlearn(net, three, "fisher", samples=50)
    assert torch.equal(first, next(result.model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), result.model.buffers()))
    assert result.log.facts["fisher"]["samples"] == 50


def test_much_noise_breaks_the_model(mlp, train, three):
    """The control: what little of it spares, much of it does not."""
    much = ex.unlearn(mlp, three, "fisher", alpha=1e-2, samples=100).model
    assert accuracy(much, train, three.keep) < 0.7


def test_the_head_is_zeroed_when_asked_for_and_that_alone_hides_the_class(mlp, train, three):
    shaken = ex.unlearn(mlp, three, "fisher", samples=60)
    zeroed = ex.unlearn(mlp, three, "fisher", samples=60, zero_head=True)
    old, new = shaken.model.state_dict(), zeroed.model.state_dict()
    for name in old:
        zero = torch.zeros_like(old[name], dtype=torch.bool)
        if name.startswith("head."):
            zero[3] = True
        assert (new[name][zero] == 0).all()
        assert torch.equal(new[name][~zero], old[name][~zero])
    assert accuracy(shaken.model, train, three.forget) > 0.9
    assert accuracy(zeroed.model, train, three.forget) < 0.1


def test_a_head_that_is_not_there_or_not_of_classes_is_refused(mlp, train, three):
    with pytest.raises(ExpungeError, match="zero_head is for requests of whole classes"):
        ex.unlearn(mlp, Request(train, fraction=0.1), "fisher", zero_head=True)

    class Headless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(64, 10))

        def forward(self, x):
            return x.flatten(1) @ self.weight

    with pytest.raises(ExpungeError, match="zero_head needs a linear layer of 10 outputs"):
        ex.unlearn(Headless(), three, "fisher", zero_head=True)


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"limit": -1}, {"samples": 2.0}, {"labels": "none"}, {"zero_head": 1}])
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(ExpungeError, match=f"fisher: .*{next(iter(wrong))}"):
        Fisher(**wrong)
