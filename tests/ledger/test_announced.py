"""Batches and steps that could go missing without a word: `uses` not called for all, and a scaler's last skip."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from training import net

import expunge as ex
from expunge import ExpungeError
from expunge.artifact.ledger import announced


def accumulated(folder, train, told: list[list[int]], accumulate: int = 4):
    """A training whose steps each take several batches of two rows; `told` says which of these are announced."""
    model, ledger = net(), ex.Ledger(folder, keep=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger.watch(model, optimizer, accumulate=accumulate)
    for step, announce in enumerate(told):
        optimizer.zero_grad()
        for batch in range(accumulate):
            index = torch.tensor([8 * step + 2 * batch, 8 * step + 2 * batch + 1])
            if batch in announce:
                ledger.uses(train.ids[index.numpy()])
            (F.cross_entropy(model(train.x(index)), train.y[index]) / accumulate).backward()
        optimizer.step()
    ledger.close()
    return ledger


def test_batches_that_nobody_announced_are_noticed(train, tmp_path):
    with pytest.warns(UserWarning, match=r"Steps 1, 2 were announced by 1 of 4 batches.*call ledger\.uses") as caught:
        ledger = accumulated(tmp_path, train, [[0]] * 5)
    assert len(caught) == 1
    (said,) = ledger.verify()
    assert said.startswith("5 of 5 steps, two or more in a row, were announced by fewer batches than may go into one")
    assert said in str(ledger.touched([train.ids[0].item()])).splitlines()
    with pytest.raises(ExpungeError, match=r"1 of 1 ids took part in no step.*5 of 5 steps.*announced by fewer"):
        ledger.touched([train.ids[2].item()])  # it was learnt from at step 1


def test_the_step_that_ends_an_epoch_may_have_fewer(train, tmp_path):
    whole, rest = [0, 1, 2, 3], [0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ledger = accumulated(tmp_path, train, [whole, whole, rest, whole, whole, rest])
    assert not ledger.verify()
    assert "announced" not in str(ledger.touched([train.ids[0].item()]))


def test_counts_that_differ_are_named_and_others_let_be(train, tmp_path):
    with pytest.warns(UserWarning, match="Steps 3, 4 were announced by 1 and 2 of 4 batches"):
        ledger = accumulated(tmp_path, train, [[0, 1, 2, 3], [0, 1, 2, 3], [0], [0, 1], [0, 1, 2, 3], [3]])
    assert "2 of 6 steps" in ledger.verify()[0]


def test_the_count_against_one_by_eye():
    few, whole = {"batches": 1, "accumulate": 4}, {}
    assert announced.count([]) == 0
    assert announced.count([few]) == 0
    assert announced.count([few, whole, few, few, whole, few, few, few, whole, few]) == 5


def scaled(ledger, train, skipped, steps=8, after=lambda step: None):
    """A training with a scaler, batches of four rows, which meets infinity at some steps."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    ledger.watch(model, optimizer, scaler=scaler)
    for step in range(1, steps + 1):
        index = torch.arange(4 * step, 4 * step + 4)
        optimizer.zero_grad()
        ledger.uses(train.ids[index.numpy()])
        loss = F.cross_entropy(model(train.x(index)), train.y[index])
        scaler.scale(loss * (float("inf") if step in skipped else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        after(step)
    ledger.close()
    return model


def skips(ledger):
    abouts = ledger.reader().journal.abouts(range(1, ledger.steps + 1))
    return [step for step, about in enumerate(abouts, start=1) if about.get("skipped")]


def test_a_last_step_that_the_scaler_skips_is_recorded(train, tmp_path):
    ledger = ex.Ledger(tmp_path, keep=1.0)
    model = scaled(ledger, train, skipped=(3, 8))
    assert ledger.steps == 8
    assert skips(ledger) == [3, 8]
    assert ledger.touched([train.ids[33].item()]).steps.tolist() == [8]
    assert ledger.ends_at(model)


def test_a_skipped_step_is_there_when_a_checkpoint_is_marked(train, tmp_path):
    """At the mark, once, and not again when the training goes on."""
    marked, ledger = [], ex.Ledger(tmp_path, keep=1.0)
    scaled(ledger, train, skipped=(4, 5), after=lambda step: marked.append(ledger.mark()))
    assert marked == list(range(1, 9))
    assert skips(ledger) == [4, 5]
    ledger.rewind(4)
    assert ledger.steps == 4


def test_a_batch_without_a_step_is_no_step(train, tmp_path):
    """Announced and left over when the training ends: nothing was learnt from it."""
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    ledger.watch(model, torch.optim.SGD(model.parameters(), lr=0.05), scaler=scaler)
    ledger.uses([1, 2])
    ledger.close()
    assert ledger.steps == 0
