"""SalUn-soft: random labelling under a threshold that falls to 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import expunge as ex
from expunge import ExpungeError, Region, Request, Rows, registry
from kit import accuracy, bits


def flat(parameters) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel().copy() for p in parameters])


@pytest.fixture
def few(train: Rows) -> Request:
    """The threes of the first 400 rows, where speed matters more than accuracy."""
    return Request(train.take(torch.arange(400)), classes=[3])


def watched(model: nn.Module, request: Request, **fields) -> tuple[list[int], nn.Module]:
    """How many weights differ from the original after each step."""
    first, counts = flat(model.parameters()), []

    def look(optimizer, args, kwargs) -> None:
        counts.append(int((flat(optimizer.param_groups[0]["params"]) != first).sum()))

    hook = register_optimizer_step_post_hook(look)
    try:
        return counts, ex.unlearn(model, request, "salun_soft", **fields).model
    finally:
        hook.remove()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_by_rank_the_share_that_may_differ_rises_step_by_step_to_all(optimizer, net, few):
    counts, _ = watched(net, few, rho=0.8, epochs=2, optimizer=optimizer, lr=1e-3, weight_decay=0.1, batch_size=64)
    n, steps = sum(p.numel() for p in net.parameters()), len(counts)
    assert steps == 2 * -(-len(few.rows) // 64)
    most = [n - int(0.8 * (1 - s / steps) * n) for s in range(1, steps + 1)]
    # a deviation next to the threshold may be rounded away as well
    assert all(0.97 * k <= count <= k for count, k in zip(counts, most))
    assert counts == sorted(counts)
    assert counts[-1] >= 0.99 * n  # a step may leave a weight where it was


def test_by_penalty_fewer_differ_the_larger_it_is(net, few):
    share = [watched(net, few, shrink="beta", beta=b, epochs=1)[0][0] for b in (0.0, 1e-3, 0.1)]
    assert share == sorted(share, reverse=True)
    assert share[-1] < 0.5 * share[0]


@pytest.mark.parametrize("fields", [{"rho": 0.0}, {"shrink": "beta", "beta": 0.0}])
def test_without_a_threshold_it_is_random_labelling_to_the_bit(fields, net, few):
    one, other = ex.unlearn(net, few, "salun_soft", **fields), ex.unlearn(net, few, "random_label")
    assert bits(one.model) == bits(other.model)


@pytest.mark.parametrize("fields", [{}, {"shrink": "beta"}])
def test_forgets_a_class_and_keeps_the_rest(fields, net, train, three):
    out = ex.unlearn(net, three, "salun_soft", batch_size=64, **fields).model
    assert accuracy(out, train, three.forget) < 0.1
    assert accuracy(out, train, three.keep) >= 0.99 * accuracy(net, train, three.keep)


@pytest.mark.parametrize("mix", ["in_turn", "together"])
def test_each_mix_counts_its_own_steps(mix, net, few):
    counts, _ = watched(net, few, rho=0.5, epochs=1, mix=mix, batch_size=100)
    n = sum(p.numel() for p in net.parameters())
    first = n - int(0.5 * (1 - 1 / len(counts)) * n)
    assert 0.97 * first <= counts[0] <= first
    assert counts[-1] >= 0.99 * n  # a step may leave a weight where it was


def test_it_keeps_to_a_region(net, few):
    region = Region.layers("features.0*")
    out = ex.unlearn(net, few, "salun_soft", region=region).model
    moves = region.resolve(net)
    assert all(moves[n] or torch.equal(p, out.get_parameter(n)) for n, p in net.named_parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rho": 1.5}, "rho must be from 0 to 1"),
        ({"beta": -1}, "beta must be 0 or more"),
        ({"shrink": "linear"}, "shrink"),
        ({"region": {"partial": 0.1}}, "leave partial out of the region"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ExpungeError, match=message):
        registry.make("salun_soft", fields)
