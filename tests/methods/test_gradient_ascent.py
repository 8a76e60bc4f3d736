"""Gradient ascent: up the loss of forget, within bounds."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

import expunge as ex
from kit import Recording


def loss(model, rows, index) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(rows.x(index)), rows.y[index]))


def test_the_loss_of_forget_rises_and_retain_is_never_read(train, mlp):
    spied = Recording.of(train)
    request = ex.Request(spied, classes=[3])
    result = ex.unlearn(mlp, request, "gradient_ascent")
    assert sorted(spied.seen) == sorted(request.forget.tolist() * 5)
    assert loss(result.model, train, request.forget) > loss(mlp, train, request.forget)


def test_one_step_is_the_gradient_upwards_at_the_norm_asked_for(train, mlp, three):
    plain = {"epochs": 1, "batch_size": 1000, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.5}
    value = F.cross_entropy(mlp(train.x(three.forget)), train.y[three.forget])
    grads = torch.autograd.grad(value, list(mlp.parameters()))
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
    clip = norm / 3
    for clip_norm, factor in ((None, 0.5), (clip, 0.5 / 3)):
        model = ex.unlearn(mlp, three, "gradient_ascent", clip_norm=clip_norm, **plain).model
        for p, q, g in zip(model.parameters(), mlp.parameters(), grads):
            torch.testing.assert_close(p.detach(), q.detach() + factor * g, atol=1e-6, rtol=1e-4)


def test_the_ceiling_stops_it_and_is_told(mlp, three):
    bounded = ex.unlearn(mlp, three, "gradient_ascent", lr=0.05, epochs=100, ceiling=3.0)
    assert bounded.log.steps < 100
    assert "stopped early at step" in bounded.summary
    assert "ceiling of 3.00" in bounded.summary
    free = ex.unlearn(mlp, three, "gradient_ascent", lr=0.05, epochs=100, ceiling=None)
    assert free.log.steps == 100
    assert "stopped" not in free.summary
