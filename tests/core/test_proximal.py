"""The soft threshold after every step, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from expunge import ExpungeError, Region
from expunge.proximal import Proximal


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def flat(model: nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel().copy() for p in model.parameters()])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def soft(d: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(d) * np.maximum(np.abs(d) - threshold, 0)


@pytest.mark.parametrize("schedule", ["rank", "beta"])
def test_each_step_is_the_optimisers_and_then_the_threshold(schedule):
    """One step at a time, from a common state, so that nothing is compared through a chaotic past."""
    steps, strength = 12, 0.6 if schedule == "rank" else 0.05
    model, free = net(), net()
    first = flat(model)
    optimizer = SGD(model.parameters(), 0.05, weight_decay=0.1)
    other = SGD(free.parameters(), 0.05, weight_decay=0.1)
    changed = []
    with Proximal(schedule, strength, steps).enforce(model, optimizer):
        for s in range(1, steps + 1):
            free.load_state_dict(model.state_dict())
            step(free, other, s)
            d = flat(free) - first
            if schedule == "rank":
                k = int(strength * (1 - s / steps) * len(d))
                threshold = float(np.sort(np.abs(d))[k - 1]) if k else 0.0
            else:
                k, threshold = 0, strength * 0.05 * (1 - s / steps)
            step(model, optimizer, s)
            got = flat(model) - first
            np.testing.assert_allclose(got, soft(d, threshold), atol=1e-6)
            changed.append(int((flat(model) != first).sum()))
            if schedule == "rank":
                assert changed[-1] == len(d) - k
    assert schedule == "beta" or changed == sorted(changed)  # a penalty does not count
    assert 0 < changed[0] < changed[-1]
    assert changed[-1] == len(first)  # at the end nothing is drawn back


def test_the_last_step_is_the_optimisers_own_to_the_bit():
    model, free = net(), net()
    optimizer, other = (SGD(m.parameters(), 0.05, momentum=0.9) for m in (model, free))
    with Proximal("rank", 1.0, 1).enforce(model, optimizer):
        step(model, optimizer, 0)
    step(free, other, 0)
    np.testing.assert_array_equal(flat(model), flat(free))


def test_what_is_drawn_back_is_the_first_weight_to_the_bit():
    model = net()
    with torch.no_grad():
        model[0].weight[:] = -0.0
    first = flat(model).view(np.uint32).copy()
    optimizer = AdamW(model.parameters(), 0.01, weight_decay=0.1)
    with Proximal("rank", 0.5, 10**6).enforce(model, optimizer):
        for s in range(20):
            step(model, optimizer, s)
    same = flat(model).view(np.uint32) == first
    assert same.sum() == int(0.5 * (1 - 20 / 10**6) * len(first))
    assert (same & (first == 2**31)).any()


def test_the_anchor_is_where_it_began_and_not_where_an_epoch_did():
    """Public code read the anchor anew in each epoch: a heavy penalty then lets the weights drift away for ever."""
    model = net()
    first = flat(model)
    optimizer = SGD(model.parameters(), 0.05)
    drift = []
    with Proximal("beta", 1.0, 10**6).enforce(model, optimizer):  # stronger than nearly all gradients
        for s in range(60):
            step(model, optimizer, s)
            drift.append(np.abs(flat(model) - first).max())
    assert max(drift[30:]) <= max(drift[:30]) * 1.05 + 1e-6
    assert (flat(model) == first).mean() > 0.9


@pytest.mark.parametrize("strength", [0.0, 1e-3])
def test_fewer_than_one_weight_is_none(strength):
    """int(rho n) = 0 is an empty selection, on which public code fails."""
    model, free = net(), net()
    optimizer, other = (SGD(m.parameters(), 0.05) for m in (model, free))
    with Proximal("rank", strength, 5).enforce(model, optimizer):
        for s in range(3):
            step(model, optimizer, s)
            step(free, other, s)
    np.testing.assert_array_equal(flat(model), flat(free))


def test_inside_a_region_only_its_weights_are_counted():
    model = net()
    first = flat(model)
    generator = torch.Generator().manual_seed(1)
    masked = Region.top({n: torch.rand(p.shape, generator=generator) for n, p in model.named_parameters()}, 0.5)
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.1)
    region = Region(masks=masked.masks, updates=Proximal("rank", 0.5, 10**6))
    with region.enforce(model, optimizer):
        for s in range(5):
            step(model, optimizer, s)
    inside = np.concatenate([m.numpy().ravel() for m in masked.masks.values()])
    moved = flat(model) != first
    assert not moved[~inside].any()
    assert moved.sum() == inside.sum() - int(0.5 * (1 - 5 / 10**6) * inside.sum())


def test_frozen_weights_are_left_alone():
    model = net()
    model[0].requires_grad_(False)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], 0.05)
    with Proximal("beta", 0.1, 10).enforce(model, optimizer):
        step(model, optimizer, 0)
    assert torch.equal(model[0].weight, net()[0].weight)


def test_the_hook_is_gone_afterwards():
    model = net()
    optimizer = SGD(model.parameters(), 0.05)
    with pytest.raises(RuntimeError, match="stop"), Proximal("beta", 0.1, 10).enforce(model, optimizer):
        raise RuntimeError("stop")
    assert not optimizer._optimizer_step_post_hooks


def test_such_a_region_is_no_setting():
    with pytest.raises(ExpungeError, match="bound to a run"):
        Region(updates=Proximal("rank", 0.5, 10)).to_config()


@pytest.mark.parametrize("schedule", ["rank", "beta"])
def test_complex_weights_are_drawn_back_along_their_own_direction(schedule):
    """By NumPy: d / |d| max(|d| - threshold, 0), in a step whose size is known."""
    random = np.random.default_rng(0)
    first, g = (random.normal(size=(2, 20)).astype(np.float32).view(np.complex64).ravel() for _ in range(2))
    p = nn.Parameter(torch.from_numpy(first.copy()))
    model = nn.ParameterList([p])
    optimizer = SGD([p], 0.5)
    strength = 0.5 if schedule == "rank" else 1.6
    with Proximal(schedule, strength, steps=2).enforce(model, optimizer):
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
    d = -0.5 * g
    threshold = np.sort(np.abs(d))[int(0.5 * 0.5 * 20) - 1] if schedule == "rank" else 1.6 * 0.5 * 0.5
    expected = first + d / np.abs(d) * np.maximum(np.abs(d) - threshold, 0)
    np.testing.assert_allclose(p.detach().numpy(), expected, atol=1e-6)
    assert 0 < (p.detach().numpy() == first).sum() < 20
