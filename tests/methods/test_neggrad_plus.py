"""NegGrad+: its gradient, and its two ends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import expunge as ex
from kit import bits


def test_alpha_one_is_fine_tuning_bit_for_bit(mlp, three):
    same = {"epochs": 2, "lr": 0.05}
    plus = ex.unlearn(mlp, three, "neggrad_plus", alpha=1.0, clip_norm=None, **same)
    assert bits(plus.model) == bits(ex.unlearn(mlp, three, "finetune", **same).model)
    assert bits(plus.model) != bits(ex.unlearn(mlp, three, "neggrad_plus", alpha=0.9, clip_norm=None, **same).model)


def test_alpha_zero_is_gradient_ascent_bit_for_bit(mlp, three):
    same = {"epochs": 2, "lr": 0.01, "schedule": "constant"}
    plus = ex.unlearn(mlp, three, "neggrad_plus", alpha=0.0, **same)
    assert bits(plus.model) == bits(ex.unlearn(mlp, three, "gradient_ascent", ceiling=None, **same).model)


@pytest.mark.parametrize("alpha", [0.95, 0.5])
def test_one_step_is_the_weighted_difference_of_gradients(alpha, train, mlp, three):
    def gradient(index):
        return torch.autograd.grad(F.cross_entropy(mlp(train.x(index)), train.y[index]), list(mlp.parameters()))

    plain = {"epochs": 1, "batch_size": 2000, "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "clip_norm": None}
    model = ex.unlearn(mlp, three, "neggrad_plus", alpha=alpha, schedule="constant", **plain).model
    for p, q, r, s in zip(model.parameters(), mlp.parameters(), gradient(three.keep), gradient(three.forget)):
        torch.testing.assert_close(p.detach(), q.detach() - alpha * r + (1 - alpha) * s, atol=2e-6, rtol=1e-4)
