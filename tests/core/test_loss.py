"""Losses of a term: against SciPy and closed forms, in the loop, and the rule that ends a phase."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from torch import nn

from expunge import Classification, ExpungeError
from expunge.descend import descend
from expunge.loss import unlikelihood
from expunge.phase import Phase, Term
from expunge.run import Run
from kit import bits

TASK = Classification(classes=10)


class Given(nn.Module):
    """A model that returns the logits it is given."""

    def forward(self, x_BC):
        return x_BC


def test_unlikelihood_is_exact_from_surely_wrong_to_surely_right():
    random = np.random.default_rng(0)
    z = random.standard_normal((300, 10)) * 3
    z[:100, 0] += 60  # p rounds to 1
    z[100:200, 0] -= 60  # p is almost 0
    z, y = z.astype(np.float32), np.zeros(300, np.int64)
    value = unlikelihood(TASK, Given(), torch.from_numpy(z), torch.from_numpy(y)).numpy()
    wide = z.astype(np.float64)
    np.testing.assert_allclose(value, logsumexp(wide, 1) - logsumexp(wide[:, 1:], 1), rtol=1e-6, atol=2e-6)
    middle = slice(200, 300)
    naive = -np.log1p(-np.exp(log_softmax(wide[middle], 1)[:, 0]))
    np.testing.assert_allclose(value[middle], naive, rtol=1e-5, atol=2e-6)
    assert np.isfinite(value).all()


def test_its_gradient_fades_with_the_probability_and_never_breaks():
    random = np.random.default_rng(1)
    z = random.standard_normal((90, 10)) * 2
    z[:30, 4] += 80
    z[30:60, 4] -= 80
    x = torch.from_numpy(z.astype(np.float32)).requires_grad_(True)
    unlikelihood(TASK, Given(), x, torch.full((90,), 4)).sum().backward()
    # in closed form: p_y for the label; −p_c p_y / (1 − p_y) for the others
    wide = x.detach().numpy().astype(np.float64)
    own = np.exp(log_softmax(wide, 1)[:, 4])
    others = np.delete(wide, 4, 1)
    expected = -np.exp(others - logsumexp(others, 1, keepdims=True)) * own[:, None]
    np.testing.assert_allclose(x.grad[:, 4].numpy(), own, atol=1e-6)
    np.testing.assert_allclose(np.delete(x.grad.numpy(), 4, 1), expected, atol=1e-6)


def test_a_term_descends_on_its_own_loss_and_the_others_on_the_tasks(train, mlp):
    """Against autograd by hand."""
    forget, retain = torch.arange(100), torch.arange(100, 400)
    parameters = list(mlp.parameters())
    p_forget = torch.softmax(mlp(train.x(forget)).double(), 1)[torch.arange(100), train.y[forget]]
    objective = nn.functional.cross_entropy(mlp(train.x(retain)), train.y[retain])
    objective = objective - 0.5 * torch.log1p(-p_forget).mean().float()
    expected = torch.autograd.grad(objective, parameters)
    before = [p.detach().clone() for p in parameters]
    terms = (Term("retain"), Term("forget", weight=0.5, loss=unlikelihood))
    phase = Phase(terms=terms, epochs=1, lr=1.0, batch_size=5000, momentum=0.0, weight_decay=0.0)
    log = descend(mlp, train, {"retain": retain, "forget": forget}, TASK, [phase], Run())
    for p, old, gradient in zip(parameters, before, expected):
        torch.testing.assert_close(p.detach(), old - gradient, atol=2e-5, rtol=1e-3)
    assert log.losses[0][1] == pytest.approx(-float(torch.log1p(-p_forget.detach()).mean()), rel=1e-3)


def test_one_loss_for_all_terms_can_be_shuffled_and_two_cannot(train, mlp):
    both = (Term("a", loss=unlikelihood), Term("b", loss=unlikelihood))
    parts = {"a": torch.arange(40), "b": torch.arange(40, 64)}
    pooled, together = copy.deepcopy(mlp), mlp
    fields = {"epochs": 1, "lr": 0.1, "batch_size": 64, "momentum": 0.0}
    descend(pooled, train, parts, TASK, [Phase(terms=both, mix="shuffled", **fields)], Run())
    weighted = (Term("a", weight=40 / 64, loss=unlikelihood), Term("b", weight=24 / 64, loss=unlikelihood))
    descend(together, train, parts, TASK, [Phase(terms=weighted, **fields)], Run())
    for p, q in zip(pooled.parameters(), together.parameters()):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)
    with pytest.raises(ExpungeError, match="under one loss"):
        Phase(terms=(Term("a", loss=unlikelihood), Term("b")), mix="shuffled", **fields)


def test_a_phase_ends_after_the_step_at_which_its_rule_says_so(train, mlp):
    seen = []

    def until(model: nn.Module) -> str:
        seen.append(bits(model))
        return "that is enough" if len(seen) == 3 else ""

    phase = Phase(terms=(Term("all"),), epochs=2, lr=0.1, batch_size=64, until=until)
    after = Phase(terms=(Term("all"),), epochs=1, lr=0.1, batch_size=256)
    parts = {"all": torch.arange(256)}
    log = descend(mlp, train, parts, TASK, [phase, after], Run())
    assert len(seen) == 3
    assert seen[0] != seen[1] != seen[2] != bits(mlp)
    assert log.stopped == "step 3: that is enough"
    assert log.steps == 3 + 1  # the next phase goes on from there
