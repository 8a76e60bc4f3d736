"""Gradients and single rows' shares: against replays of the training with one gradient left out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from training import OPTIMIZERS, batches, fit, net, subtracted, trained

import expunge as ex
from expunge import ExpungeError
from expunge.artifact.ledger.shares import reach


def replay(model, rows, plan, make, leave_out):
    """Train with the gradients of a first run, and take from each what `leave_out` says; the rest stays as it was."""
    optimizer = make(model.parameters())
    twin_model = net()
    twin = make(twin_model.parameters())
    for step, index in enumerate(plan, start=1):
        losses = F.cross_entropy(model(rows.x(index)), rows.y[index], reduction="none") / len(index)
        out = leave_out(step, index)
        optimizer.zero_grad()
        shares = [torch.autograd.grad(losses[i], list(model.parameters()), retain_graph=True) for i in out]
        losses.sum().backward()
        for k, (p, q) in enumerate(zip(model.parameters(), twin_model.parameters())):
            q.grad = p.grad - sum(s[k] for s in shares) if shares else p.grad.clone()
        optimizer.step()
        twin.step()
    return twin_model


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_row_is_undone_exactly_with_its_effect_through_momentum(optimizer, train, tmp_path):
    """As if its gradient had been left out of every step, the other gradients staying as they were."""
    gone = train.ids[4].item()
    model, ledger, _ = trained(tmp_path, train, optimizer, keep=1.0, record="sample", sensitive=[gone, 9])
    plan = batches(train, 2)
    expected = replay(net(), train, plan, OPTIMIZERS[optimizer], lambda s, index: (index == 4).nonzero().flatten())
    undone = subtracted(model, ledger, [gone], train)
    moved = max(float((p - q).detach().abs().max()) for p, q in zip(model.parameters(), undone.parameters()))
    assert moved > 1e-4
    for p, q in zip(undone.parameters(), expected.parameters()):
        assert torch.allclose(p, q, rtol=0, atol=2e-6)


def test_whole_gradients_are_undone_exactly_as_well(train, tmp_path):
    gone = train.ids[4].item()
    model, ledger, story = trained(tmp_path, train, "momentum", keep=1.0, record="gradient")
    touched = story.touched([gone])
    everything = replay(
        net(),
        train,
        batches(train, 2),
        OPTIMIZERS["momentum"],
        lambda s, index: torch.arange(len(index)) if s in touched else torch.arange(0),
    )
    undone = subtracted(model, ledger, [gone], train)
    for p, q in zip(undone.parameters(), everything.parameters()):
        assert torch.allclose(p, q, rtol=0, atol=5e-6)


def test_the_shares_of_all_rows_are_the_gradient(train, tmp_path):
    """With BatchNorm as well, where a row's loss depends on the others."""
    model = net(norm=True)
    ledger = ex.Ledger(tmp_path, keep=1.0, record="sample")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    ledger.watch(model, optimizer)
    index = torch.arange(12)
    losses = F.cross_entropy(model(train.x(index)), train.y[index], reduction="none") / 12
    ledger.uses(index.tolist(), losses)
    losses.sum().backward()
    whole = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    ledger.close()
    (_, parts), *_ = ledger.reader().updates([1])
    assert len(parts) == 12 * len(whole)
    for k, gradient in enumerate(whole):
        summed = sum(torch.from_numpy(part.values) for part in parts[k :: len(whole)])
        assert torch.allclose(summed, gradient.flatten(), rtol=0, atol=1e-6)


def test_only_the_asked_rows_shares_are_taken_back(train, tmp_path):
    a, b = train.ids[4].item(), train.ids[9].item()
    _, ledger, _ = trained(tmp_path, train, "sgd", keep=1.0, record="sample", sensitive=[a, b])
    steps = ledger.touched([a, b]).steps
    reader = ledger.reader()
    both, first, second = reader.total(steps, rows=[a, b]), reader.total(steps, rows=[a]), reader.total(steps, rows=[b])
    for name in both:
        assert torch.allclose(both[name], first[name] + second[name], atol=1e-12)
        assert first[name].any()
        assert second[name].any()


def test_reach_of_a_gradient_in_closed_form():
    momentum = [{"kind": "sgd", "lr": 0.1, "momentum": 0.9, "decay": 0.0}] * 30
    expected = [-0.1 * sum(0.9**t for t in range(30 - s)) for s in range(30)]
    assert reach(momentum) == pytest.approx(expected)
    plain = [{"kind": "sgd", "lr": 0.1 * (s + 1), "momentum": 0.0, "decay": 0.0} for s in range(5)]
    assert reach(plain) == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.5])
    decay = [{"kind": "sgd", "lr": 0.1, "momentum": 0.0, "decay": 0.5}] * 4
    assert reach(decay) == pytest.approx([-0.1 * 0.95**k for k in (3, 2, 1, 0)])
    skipped = [plain[0], {}, plain[1]]
    assert reach(skipped) == pytest.approx([-0.1, 0.0, -0.2])


def test_reach_of_adam_by_autograd():
    """A unit of gradient with the scale of each step held fixed, through Adam's averages."""
    rates = [{"kind": "adam", "lr": 0.01 * (s + 1), "momentum": 0.8, "decay": 0.1} for s in range(6)]
    gradients = torch.ones(6, dtype=torch.float64, requires_grad=True)
    weight, average = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for s, r in enumerate(rates):
        average = 0.8 * average + 0.2 * gradients[s]
        weight = weight * (1 - r["lr"] * 0.1) - r["lr"] * average / (1 - 0.8 ** (s + 1))
    weight.backward()
    assert reach(rates) == pytest.approx(gradients.grad.tolist())


def test_with_adam_a_rows_share_is_nearer_the_truth_than_nothing(train, tmp_path):
    gone = train.ids[4].item()
    model, ledger, _ = trained(tmp_path, train, "adam", keep=1.0, record="sample", sensitive=[gone])
    plan = batches(train, 2)
    expected = replay(net(), train, plan, OPTIMIZERS["adam"], lambda s, index: (index == 4).nonzero().flatten())
    undone = subtracted(model, ledger, [gone], train)

    def away(other):
        return (
            sum(float((p - q).detach().pow(2).sum()) for p, q in zip(other.parameters(), expected.parameters())) ** 0.5
        )

    assert away(undone) < away(model)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("since", [0, 3])
def test_a_frozen_layer_has_no_share(since, optimizer, train, tmp_path):
    """Frozen before the training or during it; what it had learnt by then is undone as far as momentum carried it."""
    gone, plan = 4, [torch.tensor([4, 10 + i, 20 + i, 30 + i]) for i in range(8)]

    def run(ledger=None, without=None):
        model = net()
        run_by = OPTIMIZERS[optimizer](model.parameters())
        if ledger is not None:
            ledger.watch(model, run_by)
        for step, index in enumerate(plan):
            model[3].requires_grad_(step < since)
            losses = F.cross_entropy(model(train.x(index)), train.y[index], reduction="none") / len(index)
            run_by.zero_grad()
            learning = [p for p in model.parameters() if p.requires_grad]
            if ledger is not None:
                ledger.uses(index.tolist(), losses)
                shares.append([g.clone() for g in torch.autograd.grad(losses[0], learning, retain_graph=True)])
                losses.sum().backward()
                whole.append([p.grad.clone() for p in learning])
            else:  # the gradients of the first run, less the row's
                for p, g, own in zip(learning, whole[step], shares[step]):
                    p.grad = g - own
            run_by.step()
        return model

    shares, whole = [], []
    ledger = ex.Ledger(tmp_path, keep=1.0, record="sample", sensitive=[gone])
    model = run(ledger)
    ledger.close()
    expected = run()
    undone = subtracted(model, ledger, [gone], train)
    assert not torch.equal(model[0].weight, undone[0].weight)
    assert torch.equal(model[3].weight, undone[3].weight) == (since == 0)
    for p, q in zip(undone.parameters(), expected.parameters()):
        assert torch.allclose(p, q, rtol=0, atol=2e-6)


def test_a_ledger_of_layers_that_are_all_frozen_says_so(train, tmp_path):
    model = net()
    ledger = ex.Ledger(tmp_path, record="sample", layers=["0.*"])
    ledger.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model[0].requires_grad_(False)
    losses = F.cross_entropy(model(train.x(torch.arange(2))), train.y[:2], reduction="none")
    with pytest.raises(ExpungeError, match="No recorded layer requires a gradient"):
        ledger.uses([0, 1], losses)


def test_what_is_not_known_is_refused(train, tmp_path):
    model = net()
    with pytest.raises(ExpungeError, match=r"needs SGD, Adam or AdamW.*RMSprop"):
        ex.Ledger(tmp_path / "a", record="gradient").watch(model, torch.optim.RMSprop(model.parameters()))
    nesterov = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ExpungeError, match="nesterov"):
        ex.Ledger(tmp_path / "b", record="sample").watch(model, nesterov)
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[3].parameters(), "lr": 0.2}]
    with pytest.raises(ExpungeError, match="2 groups"):
        ex.Ledger(tmp_path / "c", record="gradient").watch(model, torch.optim.SGD(groups))
    ledger = ex.Ledger(tmp_path / "d", record="sample")
    ledger.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ExpungeError, match=r"record: sample needs what each row adds.*got none for 2 ids"):
        ledger.uses([1, 2])


def test_updates_with_momentum_hold_other_rows_and_miss_their_own_effect(train, tmp_path):
    """Why gradients can be recorded: with momentum a step's update is far from what its gradient did in the end."""
    gone = train.ids[4].item()
    _, updates, story = trained(tmp_path / "u", train, "momentum", keep=1.0)
    _, gradients, _ = trained(tmp_path / "g", train, "momentum", keep=1.0, record="gradient")
    step = story.touched([gone])[:1]
    a, b = updates.reader().total(step), gradients.reader().total(step)
    true = torch.cat([b[n].flatten() for n in b])
    missed = torch.cat([(a[n] - b[n]).flatten() for n in a])
    assert missed.norm() / true.norm() > 0.5


def test_a_story_of_its_own(train, tmp_path):
    """The loop of these tests trains: the digits are learnt."""
    model = net()
    fit(model, train, batches(train, 6), OPTIMIZERS["momentum"](model.parameters()))
    with torch.no_grad():
        hits = model(train.x(torch.arange(200))).argmax(1) == train.y[:200]
    assert hits.float().mean() > 0.6


def test_a_stream_of_rows_that_share_steps_takes_back_each(train, tmp_path):
    """Their shares lie in the same records; the second is not taken for done."""
    a, b = train.ids[4].item(), train.ids[9].item()
    model, optimizer_ledger = net(), ex.Ledger(tmp_path, keep=1.0, record="sample", sensitive=[a, b])
    plan = [torch.tensor([4, 9, 20 + i, 30 + i]) for i in range(4)]
    fit(model, train, plan, OPTIMIZERS["momentum"](model.parameters()), optimizer_ledger)
    both = subtracted(model, optimizer_ledger, [a, b], train)
    first = subtracted(model, optimizer_ledger, [a], train)
    second = subtracted(first, optimizer_ledger, [b], train)
    for p, q, r in zip(both.parameters(), second.parameters(), first.parameters()):
        assert torch.allclose(p, q, rtol=0, atol=1e-6)
        assert not torch.equal(q, r)
    with pytest.raises(ExpungeError, match=r"hold the shares of 1 other rows too, e.g. 9"):
        optimizer_ledger.purge(first)
    assert optimizer_ledger.purge(second) > 0
    assert "the ids of 2 rows were removed" in optimizer_ledger.purges[0]
    assert optimizer_ledger.settings.sensitive == ()
