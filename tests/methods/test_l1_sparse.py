"""l1-sparse: fine-tuning at gamma 0, and more small weights the larger gamma."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import expunge as ex
from expunge.methods.l1_sparse import L1Sparse
from kit import bits


def test_gamma_zero_is_fine_tuning_bit_for_bit(mlp, three):
    same = {"epochs": 2, "lr": 0.05, "optimizer": "adamw"}
    sparse = ex.unlearn(mlp, three, "l1_sparse", gamma=0.0, **same)
    assert bits(sparse.model) == bits(ex.unlearn(mlp, three, "finetune", **same).model)
    assert bits(sparse.model) != bits(ex.unlearn(mlp, three, "l1_sparse", gamma=1e-4, **same).model)


def test_the_number_of_small_weights_grows_with_gamma(mlp, three):
    def small(gamma: float) -> int:
        model = ex.unlearn(mlp, three, "l1_sparse", gamma=gamma, epochs=5).model
        return sum(int((p.abs() < 1e-3).sum()) for p in model.parameters())

    counts = [small(gamma) for gamma in (0.0, 1e-3, 1e-2)]
    assert counts == sorted(set(counts))
    assert counts[-1] > 3 * counts[0]


def test_one_step_adds_gamma_times_the_sign(train, mlp, three):
    plain = {"epochs": 1, "batch_size": 2000, "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "schedule": "constant"}
    value = F.cross_entropy(mlp(train.x(three.keep)), train.y[three.keep])
    grads = torch.autograd.grad(value, list(mlp.parameters()))
    model = ex.unlearn(mlp, three, "l1_sparse", gamma=0.01, **plain).model
    for p, q, g in zip(model.parameters(), mlp.parameters(), grads):
        torch.testing.assert_close(p.detach(), q.detach() - g - 0.01 * q.detach().sign(), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_the_penalty_fades_out(progress, mlp):
    norm = sum(float(p.detach().double().abs().sum()) for p in mlp.parameters())
    penalty = L1Sparse(gamma=0.5).phase().penalty
    assert penalty(mlp, progress).item() == pytest.approx(0.5 * (1 - progress) * norm, rel=1e-5)
