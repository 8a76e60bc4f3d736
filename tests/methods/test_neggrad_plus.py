"""NegGrad+: its gradient, and its two ends."""

from __future__ import annotations

import math

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


@pytest.mark.parametrize("mix", ["together", "shuffled"])
def test_a_row_past_its_cap_adds_no_gradient(mix, train, mlp, three):
    """Against autograd by hand: only rows whose loss is below cap × log(10) are raised."""
    from expunge.descend import descend
    from expunge.phase import Phase, Term
    from expunge.run import Run
    from expunge.task import Classification

    index, model = three.forget, ex.unlearn(mlp, three, "neggrad_plus", lr=0.02, batch_size=128).model
    parameters = list(model.parameters())
    loss_B = F.cross_entropy(model(train.x(index)), train.y[index], reduction="none")
    bound = float(loss_B.detach().sort().values[len(index) // 2 - 1 : len(index) // 2 + 1].mean())  # between two rows
    cap, below = bound / math.log(10), loss_B < bound
    assert 0.3 < below.float().mean() < 0.7
    expected = torch.autograd.grad((loss_B * below).sum() / len(index), parameters)
    before = [p.detach().clone() for p in parameters]
    settings = {"epochs": 1, "lr": 1.0, "batch_size": 5000, "momentum": 0.0, "weight_decay": 0.0, "mix": mix}
    phase = Phase(terms=(Term("forget", weight=-1.0, cap=cap),), **settings)
    descend(model, train, {"forget": index}, Classification(classes=10), [phase], Run())
    for p, old, gradient in zip(parameters, before, expected):
        torch.testing.assert_close(p.detach(), old + gradient, atol=2e-6, rtol=1e-4)


def test_the_cap_saves_what_is_to_be_kept(train, net, three):
    from kit import accuracy

    strong = {"epochs": 4, "lr": 0.1, "alpha": 0.7, "batch_size": 64}
    capped = ex.unlearn(net, three, "neggrad_plus", **strong).model
    published = ex.unlearn(net, three, "neggrad_plus", **strong, cap=None).model
    assert accuracy(capped, train, three.forget) <= 0.01
    assert accuracy(capped, train, three.keep) > max(0.95, accuracy(published, train, three.keep) + 0.02)


def test_fields_out_of_range_are_all_named():
    with pytest.raises(ex.ExpungeError, match=r"clip_norm(.|\n)*cap(.|\n)*alpha"):
        ex.methods.NegGradPlus(alpha=2, clip_norm=0, cap=-1)
