"""What a ledger's sums are: telescoping, single steps, pruned entries, requests in any order."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from training import OPTIMIZERS, batches, fit, net, subtracted, trained

import expunge as ex
from expunge import ExpungeError
from expunge.errors import Diverged
from kit import bits


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_steps_together_lead_back_to_the_first_weights(optimizer, train, tmp_path):
    model, ledger, story = trained(tmp_path, train, optimizer, keep=1.0)
    total = ledger.reader().total(range(1, ledger.steps + 1))
    for name, p in model.named_parameters():
        assert (p.detach().double() - total[name] - story.weights[0][name]).abs().max() <= 1e-6


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_double_values_the_first_weights_come_back_bit_for_bit(optimizer, train, tmp_path):
    model, ledger, story = trained(tmp_path, train, optimizer, keep=1.0, values="float64")
    total = ledger.reader().total(range(1, ledger.steps + 1))
    for name, p in model.named_parameters():
        assert torch.equal((p.detach().double() - total[name]).float(), story.weights[0][name])


def test_every_single_step_is_what_happened(train, tmp_path):
    _, ledger, story = trained(tmp_path, train, keep=1.0)
    for step in range(1, ledger.steps + 1):
        total = ledger.reader().total([step])
        for name, value in total.items():
            assert torch.allclose(value, story.update(step, name), rtol=0, atol=1e-7)


def test_a_ledger_changes_no_bit_of_the_training(train, tmp_path):
    with_ledger, _, _ = trained(tmp_path, train, keep=0.1, norm=True)
    without = net(norm=True)
    fit(without, train, batches(train, 2), OPTIMIZERS["momentum"](without.parameters()))
    assert bits(with_ledger) == bits(without)


def test_a_row_of_the_last_step_alone_leads_to_the_step_before(train, tmp_path):
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0, values="float64")
    plan = [torch.arange(0, 30), torch.arange(30, 60), torch.arange(60, 90)]
    story = fit(model, train, plan, OPTIMIZERS["momentum"](model.parameters()), ledger)
    undone = subtracted(model, ledger, [train.ids[70].item()], train)
    assert all(torch.equal(p, story.weights[2][n]) for n, p in undone.named_parameters())


def test_where_gradients_do_not_depend_on_the_weights_it_equals_training_without_the_batches(train, tmp_path):
    """A loss linear in the weights, plain SGD: the one case in which amnesia is exact."""

    def run(plan, ledger=None):
        model = nn.Linear(64, 10)
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if ledger is not None:
            ledger.watch(model, optimizer)
        for index in plan:
            optimizer.zero_grad()
            if ledger is not None:
                ledger.uses(train.ids[index.numpy()])
            model(train.x(index).flatten(1)).gather(1, train.y[index][:, None]).mean().backward()
            optimizer.step()
        if ledger is not None:
            ledger.close()
        return model

    plan = batches(train, 2)
    ledger = ex.Ledger(tmp_path, keep=1.0)
    model = run(plan, ledger)
    gone = train.ids[:2].tolist()
    without = run([b for b in plan if not np.isin(train.ids[b.numpy()], gone).any()])
    total = ledger.reader().total(ledger.touched(gone).steps)
    for name, p in model.named_parameters():
        assert (p.detach().double() - total[name] - dict(without.named_parameters())[name]).abs().max() <= 1e-6


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.5])
def test_a_pruned_record_holds_the_largest_entries_of_each_layer(keep, train, tmp_path):
    _, ledger, story = trained(tmp_path, train, keep=keep)
    for step in (1, 5, ledger.steps):
        for name, value in ledger.reader().total([step]).items():
            flat = story.update(step, name).float().flatten().numpy()
            count = min(max(1, round(keep * flat.size)), np.count_nonzero(flat))
            order = np.argsort(-np.abs(flat), kind="stable")[:count]
            expected = np.zeros_like(flat)
            expected[order] = flat[order]
            assert np.allclose(value.flatten().numpy(), expected, rtol=0, atol=1e-7)
            assert np.count_nonzero(value.numpy()) == count


def test_pruning_at_reading_equals_pruning_at_writing(train, tmp_path):
    _, whole, _ = trained(tmp_path / "whole", train, keep=1.0)
    _, pruned, _ = trained(tmp_path / "pruned", train, keep=0.05)
    steps = range(1, whole.steps + 1)
    a, b = whole.reader().total(steps, keep=0.05), pruned.reader().total(steps)
    assert all(torch.equal(a[n], b[n]) for n in a)
    c, d = pruned.reader().total(steps, keep=0.02), whole.reader().total(steps, keep=0.02)
    assert all(torch.equal(c[n], d[n]) for n in c)


def test_only_kept_entries_of_touched_steps_move(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=0.05)
    ids = train.ids[:1].tolist()
    after = subtracted(model, ledger, ids, train, keep=0.05)
    allowed = ledger.reader().total(ledger.touched(ids).steps)
    for (name, p), q in zip(model.named_parameters(), after.parameters()):
        assert torch.equal(p[allowed[name] == 0], q[allowed[name] == 0])
        assert (p != q).any()


def test_requests_one_by_one_in_either_order_and_together_agree(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=1.0)
    a, b = train.ids[:2].tolist(), train.ids[2:4].tolist()
    assert set(ledger.touched(a).steps) & set(ledger.touched(b).steps)  # steps in common, to be taken back once
    both = subtracted(model, ledger, a + b, train)
    one = subtracted(subtracted(model, ledger, a, train), ledger, b, train)
    other = subtracted(subtracted(model, ledger, b, train), ledger, a, train)
    for p, q, r in zip(both.parameters(), one.parameters(), other.parameters()):
        assert torch.allclose(p, q, rtol=0, atol=1e-7)
        assert torch.allclose(p, r, rtol=0, atol=1e-7)


def test_a_step_that_is_taken_back_already_is_not_taken_back_again(train, tmp_path):
    model, ledger, story = trained(tmp_path, train, keep=1.0)
    first = train.ids[0].item()
    companions = [i for s in story.touched([first]) for i in story.batches[s - 1]]
    inside = next(i for i in companions if i != first and set(story.touched([i])) <= set(story.touched([first])))
    once = subtracted(model, ledger, [first], train)
    again = subtracted(once, ledger, [inside], train)
    assert bits(once) == bits(again)


def test_many_methods_start_from_one_original(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=1.0)
    ids = train.ids[:1].tolist()
    made = [subtracted(model, ledger, ids, train, keep=keep) for keep in (0.05, 0.5)]
    made.append(subtracted(model, ledger, ids, train))
    assert len({str(bits(m)) for m in made}) == 3
    assert len(ledger.deletions) == 3


def test_a_model_the_ledger_does_not_end_at_is_refused(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=1.0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).flatten()[0] += 1e-6
    with pytest.raises(ExpungeError, match="neither the one that the training"):
        subtracted(other, ledger, train.ids[:1].tolist(), train)
    with pytest.raises(ExpungeError, match="belongs to another model"):
        subtracted(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), ledger, train.ids[:1].tolist(), train)


class Compiled(nn.Module):
    """As torch.compile wraps a model, which takes seconds to load."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


@pytest.mark.parametrize(
    ("wrap", "inside"),
    [(nn.DataParallel, "module"), (torch.optim.swa_utils.AveragedModel, "module"), (Compiled, "_orig_mod")],
)
@pytest.mark.parametrize("layers", [(), ("3.*",)])
def test_a_wrapped_model_is_told_what_to_give_in_its_place(layers, wrap, inside, train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=1.0, layers=layers)
    request = ex.Request(train, ids=train.ids[:1])
    wrapped = wrap(model)
    with pytest.raises(ExpungeError, match=rf"begin with '{inside}\.'.*Give the model inside, model\.{inside}\."):
        ledger.check(wrapped)
    after = ex.unlearn(getattr(wrapped, inside), request, "amnesiac", ledger=ledger, control=False).model
    assert bits(after) != bits(model)


def test_the_weights_of_an_earlier_epoch_are_served_after_a_rewind(train, tmp_path):
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0)
    marks, best = [], None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger.watch(model, optimizer)
    for epoch in range(3):
        for index in batches(train, 1, seed=epoch):
            ledger.uses(train.ids[index.numpy()])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(train.x(index)), train.y[index]).backward()
            optimizer.step()
        marks.append(ledger.mark())
        best = copy.deepcopy(model) if epoch == 1 else best
    ledger.close()
    request = ex.Request(train, ids=train.ids[:1])
    with pytest.raises(ExpungeError, match=rf"stood after step {marks[1]}, .* goes on to step {marks[2]}\..*rewind\("):
        ex.unlearn(best, request, "amnesiac", ledger=ledger, control=False)
    ledger.rewind(marks[1])
    after = ex.unlearn(best, request, "amnesiac", ledger=ledger, control=False).model
    total = ledger.reader().total(ledger.touched(request).steps)
    for name, p in after.named_parameters():
        torch.testing.assert_close(p.double(), best.state_dict()[name].double() - total[name], rtol=0, atol=1e-7)


def test_a_request_that_touches_every_step_is_refused_with_the_arithmetic(train, tmp_path):
    model, ledger, story = trained(tmp_path, train, keep=1.0)
    request = ex.Request(train, ids=[batch[0] for batch in story.batches])
    assert ledger.touched(request).share == 1
    with pytest.raises(ExpungeError, match=rf"{ledger.steps} of {ledger.steps} steps \(100.0 %\).*allow_full"):
        ex.unlearn(model, request, "amnesiac", ledger=ledger)
    full = ex.unlearn(model, request, "amnesiac", ledger=ledger, allow_full=True, control=False).model
    for name, p in full.named_parameters():
        assert (p - story.weights[0][name]).abs().max() <= 1e-6


def test_a_pruned_ledger_is_refused_where_whole_updates_or_a_larger_share_are_needed(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=0.1)
    request = ex.Request(train, ids=train.ids[:1].tolist())
    with pytest.raises(ExpungeError, match=r"amnesiac takes back whole updates.*share of 0.1"):
        ex.unlearn(model, request, "amnesiac", ledger=ledger)
    with pytest.raises(ExpungeError, match=r"keep is 0\.2, and the ledger holds a share of 0\.1"):
        ex.unlearn(model, request, "partial_amnesiac", ledger=ledger, keep=0.2)
    with pytest.raises(ExpungeError, match="needs the updates of the training: give ledger="):
        ex.unlearn(model, request, "partial_amnesiac")


def test_a_repair_that_diverges_says_what_to_lower(train, tmp_path):
    rows = train.take(torch.arange(200))
    model, ledger, _ = trained(tmp_path, rows, epochs=1, keep=1.0)
    request = ex.Request(rows, ids=rows.ids[:2].tolist())
    fields = {"repair_epochs": 3, "repair_lr": 1e30, "control": False, "allow_full": True}
    with pytest.raises(Diverged, match="Lower lr"):
        ex.unlearn(model, request, "amnesiac", ledger=ledger, **fields)


@pytest.mark.parametrize(("values", "unit"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_the_rounding_error_is_stated_and_carried_on_when_asked(values, unit, train, tmp_path):
    ends = {}
    for carry in (False, True):
        model, ledger, story = trained(tmp_path / str(carry), train, keep=1.0, values=values, carry=carry)
        steps = range(1, ledger.steps + 1)
        stated = max(about["error"] for about in ledger.reader().journal.abouts(steps))
        largest = max(float(story.update(s, n).abs().max()) for s in steps for n in story.weights[0])
        assert 0 < stated <= 1.5 * unit * largest
        total = ledger.reader().total(steps)
        away = {n: p.detach().double() - total[n] - story.weights[0][n] for n, p in model.named_parameters()}
        ends[carry] = max(float(value.abs().max()) for value in away.values())
        if carry:
            assert ends[carry] <= 2 * stated  # one rounding is left, not one for each step
    assert ends[True] < ends[False]


def test_purging_leaves_nothing_to_read_and_the_rest_intact(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, keep=1.0)
    ids = train.ids[:1].tolist()
    touched = ledger.touched(ids)
    with pytest.raises(ExpungeError, match="nothing to purge"):
        ledger.purge(model)
    after = subtracted(model, ledger, ids, train)
    before = ledger.size
    assert 0 < ledger.purge(after) <= before
    assert ledger.size == before - touched.bytes
    assert not ledger.verify()
    with pytest.raises(ExpungeError, match=r"purged from .*begin with the model that ledger\.purge was given.*retrain"):
        ledger.reader().total(touched.steps)
    with pytest.raises(ExpungeError, match="took part in no step"):
        ledger.touched(ids)
    later = subtracted(after, ledger, train.ids[5:6].tolist(), train)  # the stream of requests goes on
    assert bits(later) != bits(after)
