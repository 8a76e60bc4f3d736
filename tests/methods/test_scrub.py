"""SCRUB: against a loop by hand, its ends, and the model that rewinding chooses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError, Request, Rows
from expunge.methods import Scrub
from kit import Recording, accuracy, bits

FAST = {"epochs": 2, "max_epochs": 1}
PLAIN = {"weight_decay": 0.0, "momentum": 0.0, "clip_norm": None}
FREE = {"cap": None, "clip_norm": None}  # as published


def recorded(model: nn.Module, rows: Rows, **fields) -> tuple[ex.Result, list[int]]:
    """The result on the threes, and the positions that were learnt from, in order."""
    recording = Recording.of(rows)
    request = Request(recording, classes=[3])
    recording.seen.clear()
    return ex.unlearn(model, request, "scrub", **fields), recording.seen


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kl(teacher: nn.Module, model: nn.Module, x: Tensor, temperature: float) -> np.ndarray:
    with torch.no_grad():
        p, q = (softmax(m(x).double().numpy() / temperature) for m in (teacher, model))
    return (p * np.log(p / q)).sum(1)


def by_hand(model: nn.Module, rows: Rows, steps: list[tuple[str, Tensor]], fields: dict) -> nn.Module:
    """The same steps, with the losses written out."""
    hand, t = copy.deepcopy(model).train(), fields["temperature"]
    optimizer = torch.optim.SGD(hand.parameters(), fields["lr"], momentum=0.9, weight_decay=5e-4)
    for kind, index in steps:
        x, y = rows.x(index), rows.y[index]
        with torch.no_grad():
            p = torch.softmax(model(x) / t, 1)
        q = torch.softmax(hand(x) / t, 1)
        far = t * t * (p * torch.log(p / q)).sum(1)
        own = torch.softmax(hand(x), 1)[torch.arange(len(y)), y]
        if kind == "forget":
            loss = -fields["forget_weight"] * far.mean()
        else:
            loss = (fields["labels"] * -torch.log(own) + fields["likeness"] * far).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return hand


def test_passes_alternate_and_do_what_a_loop_by_hand_does(mlp, train, three):
    fields = {"temperature": 3.0, "labels": 0.7, "likeness": 0.4, "forget_weight": 1.5, "lr": 0.02, **FREE}
    result, seen = recorded(mlp, train, epochs=2, max_epochs=2, batch_size=200, **fields)
    n, m = len(three.forget), len(three.keep)
    assert len(seen) == 2 * (n + m)
    steps = []
    for epoch in range(2):
        at = epoch * (n + m)
        for kind, size, part in (("forget", n, three.forget), ("retain", m, three.keep)):
            index = torch.tensor(seen[at : at + size])
            assert torch.equal(index.sort().values, part)  # the whole part, each row once, before the next
            steps += [(kind, batch) for batch in index.tensor_split(-(-size // 200))]
            at += size
    hand = by_hand(mlp, train, steps, fields)
    for p, q in zip(result.model.parameters(), hand.parameters()):
        torch.testing.assert_close(p, q, atol=2e-6, rtol=1e-5)
    with torch.no_grad():
        far = max(float((p - q).abs().max()) for p, q in zip(mlp.parameters(), hand.parameters()))
    assert far > 1e-3


def test_the_last_passes_are_over_retain_alone(mlp, train, three):
    _, seen = recorded(mlp, train, epochs=3, max_epochs=1, batch_size=256)
    assert torch.equal(torch.tensor(seen[: len(three.forget)]).sort().values, three.forget)
    assert not set(seen[len(three.forget) :]) & set(three.forget.tolist())
    assert len(seen) == len(three.forget) + 3 * len(three.keep)


def test_at_the_start_there_is_no_divergence_and_after_it_is_raised(mlp, train, three):
    result = ex.unlearn(mlp, three, "scrub", epochs=3, max_epochs=3, lr=0.02, weight_decay=0.0, **FREE)
    told = [forget for forget, _ in result.log.losses]
    assert told[0] == pytest.approx(0, abs=1e-5)  # without batch norm the gradient is 0 as well
    assert told[2] > 0.1
    after = kl(mlp, result.model, train.x(three.forget), 4.0)
    assert after.mean() > 4 * kl(mlp, result.model, train.x(three.keep), 4.0).mean()


def test_no_passes_change_nothing(net, three):
    assert bits(ex.unlearn(net, three, "scrub", epochs=0, max_epochs=0).model) == bits(net)


def test_likeness_alone_keeps_the_original(mlp, train, three):
    alike = ex.unlearn(mlp, three, "scrub", labels=0.0, forget_weight=0.0, **PLAIN).model
    tuned = ex.unlearn(mlp, three, "scrub", likeness=0.0, forget_weight=0.0, **PLAIN).model
    x = train.x(three.keep)
    assert kl(mlp, alike, x, 1.0).max() < 1e-6
    assert kl(mlp, tuned, x, 1.0).max() > 1e-3


def test_the_cap_leaves_alone_what_is_far_enough(mlp, train, three):
    strong = {"forget_weight": 5.0, "temperature": 1.0, "epochs": 3, "max_epochs": 3, "clip_norm": None}
    far = {cap: ex.unlearn(mlp, three, "scrub", cap=cap, **strong).model for cap in (1.0, None)}
    capped, free = (kl(mlp, far[cap], train.x(three.forget), 1.0).mean() for cap in (1.0, None))
    assert free > 2 * capped > 0.5 * np.log(10)


# -- rewinding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_rewinding_returns_the_epoch_that_is_as_wrong_as_on_unseen_rows(seed, mlp, train, test):
    request = Request(train, fraction=0.1, seed=seed)
    fields = {"max_epochs": 2, "forget_weight": 3.0, "lr": 0.03, "seed": seed, **FREE}
    each = [  # as epochs draw by their own numbers, a shorter run is the beginning of a longer one
        ex.unlearn(mlp, request, "scrub", **{**fields, "epochs": e, "max_epochs": min(e, 2)}).model
        for e in (1, 2, 3, 4)
    ]
    result = ex.unlearn(mlp, request, "scrub", epochs=4, rewind=True, unseen=test, **fields)
    errors = [1 - accuracy(model, train, request.forget) for model in each]
    wanted = np.bincount(train.y[request.forget].numpy(), minlength=10) / len(request.forget)
    unseen = [1 - accuracy(each[-1], test, (test.y == c).nonzero().flatten()) for c in range(10)]
    reference = float(np.dot(wanted, unseen))
    far = np.abs(np.array(errors) - reference)
    chosen = max(np.flatnonzero(far == far.min()))
    assert result.log.facts["rewind"]["error_on_forget"] == pytest.approx(errors, abs=1e-4)
    assert result.log.facts["rewind"]["error_on_unseen"] == pytest.approx(reference, abs=1e-4)
    assert result.log.facts["rewind"]["epoch"] == chosen + 1
    assert bits(result.model) == bits(each[chosen])


def test_rewinding_chooses_another_epoch_than_the_last_where_that_is_nearer(mlp, train, test):
    request = Request(train, fraction=0.1, seed=0)
    fields = {"epochs": 6, "max_epochs": 2, "forget_weight": 6.0, "lr": 0.03, "rewind": True, **FREE}
    chosen = {
        ex.unlearn(mlp, request, "scrub", unseen=test, seed=s, **fields).log.facts["rewind"]["epoch"] for s in (0, 1)
    }
    assert chosen - {6}


def test_unseen_rows_are_scaled_as_the_training_rows(mlp, train, test):
    request = Request(train, fraction=0.1, seed=0)
    given = (test.source.numpy(), test.y.numpy())
    made = [
        ex.unlearn(mlp, request, "scrub", rewind=True, unseen=unseen, **FAST).log.facts["rewind"]
        for unseen in (test, given)
    ]
    assert made[0] == made[1]


def test_rewinding_without_unseen_rows_is_refused(mlp, train, test, three):
    with pytest.raises(ExpungeError, match="scrub with rewind needs rows that the model was never trained on"):
        ex.unlearn(mlp, three, "scrub", rewind=True)
    others = test.take(test.y != 3)
    with pytest.raises(ExpungeError, match="unseen holds no row of 3"):
        ex.unlearn(mlp, three, "scrub", rewind=True, unseen=others)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_fields_out_of_range_are_all_named():
    wrong = {"forget_weight": -1.0, "temperature": 0.0, "cap": 0.0, "max_epochs": -1}
    with pytest.raises(ExpungeError) as caught:
        Scrub(epochs=3, **wrong)
    for name in wrong:
        assert name in str(caught.value)
    with pytest.raises(ExpungeError, match="labels and likeness are both 0"):
        Scrub(labels=0.0, likeness=0.0)


def test_rows_that_are_gone_are_never_read(mlp, train):
    recording = Recording.of(train)
    gone = train.ids[:200].tolist()
    request = Request(recording, ids=train.ids[300:400].tolist(), gone=gone)
    recording.seen.clear()
    ex.unlearn(mlp, request, "scrub", **FAST)
    assert recording.seen
    assert min(recording.seen) >= 200
