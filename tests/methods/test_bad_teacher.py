"""Bad Teacher: whose answers are taught to which row, against a loop by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import rel_entr
from torch import nn

import expunge as ex
from expunge import ExpungeError, Request
from expunge.audit.divergence import zrf
from expunge.loss import divergence
from expunge.methods.bad_teacher import TwoTeachers
from expunge.run import derive
from expunge.task import Classification
from expunge.untrained import untrained
from kit import Recording, accuracy


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_is_that_of_scipy_and_not_divided_by_the_classes(temperature):
    target, scores = (5 * torch.randn(7, 6, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    ours = divergence(target, scores, temperature)
    p, q = (softmax(z.double().numpy() / temperature) for z in (target, scores))
    assert ours.numpy() == pytest.approx(rel_entr(p, q).sum(1), rel=1e-4)
    with pytest.warns(UserWarning, match="batchmean"):
        by_default = F.kl_div(F.log_softmax(scores / temperature, 1), torch.softmax(target / temperature, 1))
    assert float(ours.mean() / by_default) == pytest.approx(6, rel=1e-4)


def test_each_row_is_taught_by_its_own_teacher(net, train):
    teachers = (copy.deepcopy(net), untrained(net, 5))
    student = untrained(net, 6)
    x, y = train.x(torch.arange(20)), torch.arange(20) % 2
    ours = TwoTeachers(teachers, 2.0)(Classification(10), student, x, y).detach().numpy()
    with torch.no_grad():
        q = softmax(student(x).double().numpy() / 2)
        p = [softmax(t(x).double().numpy() / 2) for t in teachers]
    by_hand = [rel_entr(p[i % 2][i], q[i]).sum() for i in range(20)]
    assert ours == pytest.approx(by_hand, rel=1e-3, abs=1e-6)


def test_it_does_what_a_loop_by_hand_does_on_forget_and_a_sample(mlp, train, three):
    recording = Recording.of(train)
    request = Request(recording, classes=[3])
    recording.seen.clear()
    fields = {"lr": 2e-3, "batch_size": 100, "temperature": 1.5, "retain_share": 0.25, "seed": 4}
    result = ex.unlearn(mlp, request, "bad_teacher", **fields)
    seen = torch.tensor(recording.seen)
    n = len(three.forget) + round(0.25 * len(three.keep))
    assert len(seen) == len(seen.unique()) == n  # one pass over forget and a sample
    assert set(three.forget.tolist()) <= set(seen.tolist())
    steps = seen.tensor_split(-(-n // 100))
    assert all(0 < len(set(s.tolist()) & set(three.forget.tolist())) < len(s) for s in steps)  # one pool
    bad = untrained(mlp, derive(4, "untrained teacher"))
    hand = copy.deepcopy(mlp).train()
    optimizer = torch.optim.Adam(hand.parameters(), 2e-3)
    for index in steps:
        x, forget = train.x(index), torch.isin(index, three.forget)
        with torch.no_grad():
            p = torch.softmax(torch.where(forget[:, None], bad(x), mlp(x)) / 1.5, 1)
        loss = (p * (p.log() - torch.log_softmax(hand(x) / 1.5, 1))).sum() / len(index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # the order of rows within a batch is another one, and Adam divides by small numbers
    for p, q in zip(result.model.parameters(), hand.parameters()):
        torch.testing.assert_close(p, q, atol=2e-4, rtol=1e-3)
    with torch.no_grad():
        assert max(float((p - q).abs().max()) for p, q in zip(mlp.parameters(), hand.parameters())) > 5e-3


def test_the_answers_on_forget_become_those_of_an_untrained_network(net, train, three):
    result = ex.unlearn(net, three, "bad_teacher", epochs=3, lr=3e-3, seed=2)
    fresh = untrained(net, 77)  # not the teacher
    with torch.no_grad():
        before, after, guess = (m(train.x(three.forget)) for m in (net, result.model, fresh))
    assert zrf(before, guess).value < 0.5
    assert zrf(after, guess).value > 0.7
    assert accuracy(result.model, train, three.keep) > 0.9


def test_the_untrained_teacher_shares_no_weight_with_the_original_or_its_beginning(net, train, net_recipe):
    with ex.Run(seed=0).isolated():
        beginning = net_recipe.blank(train)
    teacher = untrained(net, derive(0, "untrained teacher"))
    for other in (net, beginning):
        pairs = zip(teacher.named_parameters(), other.parameters())
        assert all(not torch.equal(p, q) for (n, p), q in pairs if p.ndim > 1)


def test_a_module_that_cannot_be_drawn_anew_is_named_before_compute(train, three):
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.by

    model = nn.Sequential(nn.Flatten(), Scale(), nn.Linear(64, 10))
    with pytest.raises(ExpungeError, match=r"untrained copy of the model, and 1 \(Scale\) cannot be drawn anew"):
        ex.unlearn(model, three, "bad_teacher")


def test_fields_out_of_range_are_all_named():
    with pytest.raises(ExpungeError, match=r"(?s)retain_share must be.*temperature must be"):
        ex.methods.BadTeacher(retain_share=0.0, temperature=0.0)
