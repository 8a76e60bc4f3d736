"""Influence: on logistic regression the step is Newton's, and lands where leaving the rows out would have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError, Request
from expunge.artifact.per_sample import weights_of
from expunge.errors import Diverged
from expunge.methods.influence import Influence
from gradients import Exact, Wide, arrays, of_loss, some_rows
from kit import Untouchable, bits

DECAY = 0.01


class Logistic(nn.Module):
    """Multinomial logistic regression in float64."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(inputs, classes, dtype=torch.float64)

    def forward(self, x_B: Tensor) -> Tensor:
        return self.out(x_B.double().flatten(1))


def fitted(x: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """The minimum of mean cross-entropy + DECAY / 2 × ‖θ‖², by Newton's method with the explicit Hessian."""
    n, hot = len(y), np.eye(classes)[y]
    x = np.concatenate([x, np.ones((n, 1))], 1)
    w = np.zeros((classes, x.shape[1]))
    for _ in range(50):
        z = x @ w.T
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope = (p - hot).T @ x / n + DECAY * w
        curve = np.einsum("nab,ni,nj->aibj", p[:, :, None] * (np.eye(classes) - p[:, None, :]), x, x) / n
        step = np.linalg.solve(curve.reshape(w.size, w.size) + DECAY * np.eye(w.size), slope.ravel())
        w -= step.reshape(w.shape)
        if np.abs(step).max() < 1e-13:
            return w
    raise AssertionError("Newton did not converge")


def holding(w: np.ndarray) -> Logistic:
    net = Logistic(w.shape[1] - 1, len(w))
    with torch.no_grad():
        net.out.weight.copy_(torch.from_numpy(w[:, :-1]))
        net.out.bias.copy_(torch.from_numpy(w[:, -1]))
    return net


@pytest.mark.parametrize("away", [1, 10])
def test_on_logistic_regression_it_lands_where_training_without_the_rows_does(away):
    rows = some_rows(600, inputs=6)
    x, y = arrays(rows, torch.arange(600))
    request = Request(rows, ids=list(range(away)))
    stays = request.keep.numpy()
    before, after = fitted(x, y, 3), fitted(x[stays], y[stays], 3)
    exact = {"alpha": 1.0, "damping": DECAY, "reach": None, "samples": 600}
    result = ex.unlearn(holding(before), request, "influence", task=Exact(3), **exact)
    out = result.model.out
    found = np.concatenate([out.weight.detach().numpy(), out.bias.detach().numpy()[:, None]], 1)
    distance = np.abs(before - after).max()
    assert np.abs(found - after).max() < 1e-3
    assert np.abs(found - after).max() < 0.1 * distance
    # the control: with the rows' own labels the matrix is another one
    own = ex.unlearn(holding(before), request, "influence", task=Exact(3), labels="own", **exact)
    assert np.abs(own.model.out.weight.detach().numpy() - after[:, :-1]).max() > np.abs(found - after).max()


def test_it_is_the_formula_by_the_explicit_inverse():
    net, rows = Wide(), some_rows(60)
    request = Request(rows, ids=list(range(0, 30, 3)))
    x, y = arrays(rows, torch.arange(60))
    g, went = of_loss(net, x, y), (request.state == 1).numpy()
    v = g[went].sum(0) / 60 - 10 / (60 * 50) * g[~went].sum(0)
    fisher = g[~went].T @ g[~went] / 50
    step = 2.5 * np.linalg.inv(fisher + 0.05 * np.eye(len(v))) @ v
    fields = {"alpha": 2.5, "damping": 0.05, "labels": "own", "reach": None}
    result = ex.unlearn(net, request, "influence", task=Exact(3), **fields)
    np.testing.assert_allclose(weights_of(result.model) - weights_of(net), step, rtol=1e-7, atol=1e-10)
    facts = result.log.facts["influence"]
    assert facts["samples"] == 50
    assert facts["step"] == pytest.approx(np.linalg.norm(step))
    assert facts["newton"] == pytest.approx(np.linalg.norm(step) / 2.5)
    assert facts["gradient"] == pytest.approx(np.linalg.norm(v))


def test_more_alpha_raises_the_loss_of_the_forget_rows_more(mlp, train):
    request = Request(train, fraction=0.05)
    before, x, y = weights_of(mlp), train.x(request.forget), train.y[request.forget]
    losses, steps = [], []
    for alpha in (0.01, 0.5, 2.0):
        net = ex.unlearn(mlp, request, "influence", alpha=alpha, samples=50).model
        steps.append((weights_of(net) - before) / alpha)
        losses.append(nn.functional.cross_entropy(net(x), y).item())
    assert nn.functional.cross_entropy(mlp(x), y).item() < losses[0] < losses[1] < losses[2]
    torch.testing.assert_close(steps[1], steps[2], rtol=1e-3, atol=1e-5)  # one direction


def test_only_a_sample_is_looked_at_row_by_row_and_frozen_weights_stay(net, three):
    first = next(net.parameters())
    first.requires_grad_(False)
    result = ex.unlearn(net, three, "influence", samples=50)
    assert result.log.facts["influence"]["samples"] == 50
    assert result.log.examples == len(three.rows) + 50
    assert torch.equal(first, next(result.model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), result.model.buffers()))


def test_a_step_out_of_the_range_of_numbers_is_told(mlp, three):
    with pytest.raises(Diverged, match="lower alpha"):
        ex.unlearn(mlp, three, "influence", alpha=1e300, samples=20, reach=None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -1},
        {"damping": 0},
        {"damping": float("nan")},
        {"samples": 0},
        {"labels": "none"},
        {"reach": 0},
        {"reach": "far"},
    ],
)
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(ExpungeError, match=f"influence: .*{next(iter(wrong))}"):
        Influence(**wrong)


def test_more_gradients_than_can_be_served_are_refused_before_compute(train, mlp):
    request = Request(Untouchable.of(train), classes=[3])
    with pytest.raises(ExpungeError, match="set samples to 819 at most"):
        ex.unlearn(mlp, request, "influence", samples=1000)


def test_a_long_step_is_shortened_and_said_and_a_short_one_is_not(mlp, three):
    norm = float(weights_of(mlp).double().norm())
    free = ex.unlearn(mlp, three, "influence", reach=None, samples=50)
    length = free.log.facts["influence"]["newton"]
    whole = weights_of(free.model) - weights_of(mlp)
    assert not free.log.notes
    half = ex.unlearn(mlp, three, "influence", reach=length / norm / 2, samples=50)
    torch.testing.assert_close(weights_of(half.model) - weights_of(mlp), whole / 2, rtol=1e-2, atol=1e-5)
    assert f"The Newton step was {length:.3g} long and was shortened to {length / 2:.3g}" in half.log.notes[0]
    far = ex.unlearn(mlp, three, "influence", reach=2 * length / norm, samples=50)
    assert bits(far.model) == bits(free.model)
    assert not far.log.notes
