"""Weights that something other than the optimiser changes: restored, averaged, rolled back, converted."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training import batches, net, weights

import expunge as ex
from expunge import ExpungeError


class Loop:
    """A training of some steps, and the weights after each."""

    def __init__(self, rows: ex.Rows, folder, **settings) -> None:
        self.rows, self.model, self.plan = rows, net(), batches(rows, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.ledger = ex.Ledger(folder, keep=1.0, **settings)
        self.ledger.watch(self.model, self.optimizer)
        self.states = [copy.deepcopy(self.model.state_dict())]

    def steps(self, count: int) -> None:
        for _ in range(count):
            index = self.plan[len(self.states) - 1]
            self.ledger.uses(self.rows.ids[index.numpy()])
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.rows.x(index)), self.rows.y[index]).backward()
            self.optimizer.step()
            self.states.append(copy.deepcopy(self.model.state_dict()))

    def request(self) -> ex.Request:
        return ex.Request(self.rows, ids=self.rows.ids[self.plan[1][:1].numpy()].tolist())


@torch.no_grad()
def average(model: nn.Module, states: list[dict]) -> None:
    """As an exponential moving average is put in place, behind autograd's back."""
    for name, p in model.named_parameters():
        p.data = torch.stack([state[name] for state in states]).mean(0)


@pytest.mark.parametrize("change", ["restored", "averaged"])
@pytest.mark.parametrize("how", ["close", "with"])
def test_weights_put_in_place_before_the_ledger_is_closed_are_not_taken_for_its_end(train, tmp_path, change, how):
    loop = Loop(train, tmp_path)
    loop.steps(5)
    last = copy.deepcopy(loop.model)
    if change == "restored":
        loop.model.load_state_dict(loop.states[3])
    else:
        average(loop.model, loop.states[2:])
    end = loop.ledger.close if how == "close" else lambda: loop.ledger.__exit__(None, None, None)
    with pytest.warns(
        UserWarning, match=r"other than the optimiser changed 0\.weight.* after step 5\. .*Close it before"
    ):
        end()
    ledger = ex.Ledger(tmp_path)
    assert ledger.steps == 5
    for model in (loop.model, last):  # the weights of the last step were never seen either
        with pytest.raises(ExpungeError, match="neither the one that the training"):
            ex.unlearn(model, loop.request(), "amnesiac", ledger=ledger, allow_full=True)


def test_a_marked_step_is_served_although_other_weights_were_there_when_the_ledger_was_closed(train, tmp_path):
    loop = Loop(train, tmp_path)
    loop.steps(5)
    loop.ledger.mark()
    last = copy.deepcopy(loop.model)
    loop.model.load_state_dict(loop.states[3])
    with pytest.warns(UserWarning, match="after step 5"):
        loop.ledger.close()
    done = ex.unlearn(last, loop.request(), "amnesiac", ledger=ex.Ledger(tmp_path), allow_full=True)
    moved = {n: loop.states[2][n] - loop.states[1][n] for n in weights(last)}
    for name, p in done.model.named_parameters():
        torch.testing.assert_close(p.detach(), loop.states[5][name] - moved[name], rtol=0, atol=1e-6)


def test_a_rollback_between_two_steps_is_told_once_with_what_to_do(train, tmp_path):
    loop = Loop(train, tmp_path)
    loop.steps(3)
    loop.model.load_state_dict(loop.states[1])
    with pytest.warns(UserWarning, match=r"Before step 4, .* changed 0\.weight.*ledger\.rewind\(step\)"):
        loop.steps(1)
    loop.model.load_state_dict(loop.states[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.steps(1)


def test_a_model_changed_between_watch_and_the_first_step_is_told(train, tmp_path):
    loop = Loop(train, tmp_path)
    average(loop.model, [loop.states[0], {n: torch.ones_like(v) for n, v in loop.states[0].items()}])
    with pytest.warns(UserWarning, match="Before step 1, something other"):
        loop.steps(1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_training_that_nothing_disturbs_is_told_nothing(train, tmp_path, layout):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop = Loop(train, tmp_path)
        loop.steps(4)
        loop.ledger.mark()
        loop.model.eval()(train.x(torch.arange(9)))
        loop.model.train().to(memory_format=layout)
        loop.steps(2)
        loop.ledger.close()
    assert ex.Ledger(tmp_path).ends_at(loop.model)


def test_a_model_converted_on_the_way_is_refused(train, tmp_path):
    """Its updates would be differences to weights of another precision."""
    loop = Loop(train, tmp_path)
    loop.steps(2)
    loop.model.double()
    index = loop.plan[2]
    loop.ledger.uses(loop.rows.ids[index.numpy()])
    loop.optimizer.zero_grad()
    F.cross_entropy(loop.model(loop.rows.x(index).double()), loop.rows.y[index]).backward()
    with pytest.raises(ExpungeError, match=r"converted: 0\.bias, 0\.weight.*begin another one for the changed model"):
        loop.optimizer.step()


def test_a_second_stage_of_other_layers_needs_a_ledger_of_its_own(train, tmp_path):
    model, plan = net(), batches(train, 1)
    for p in model[0].parameters():
        p.requires_grad_(False)
    for stage in (1, 2):
        ledger = ex.Ledger(tmp_path, keep=1.0)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        if stage == 2:
            with pytest.raises(ExpungeError, match=r"belongs to another model \(0\.weight: not there in the ledger"):
                ledger.watch(model, optimizer)
            break
        ledger.watch(model, optimizer)
        ledger.uses(train.ids[plan[0].numpy()])
        F.cross_entropy(model(train.x(plan[0])), train.y[plan[0]]).backward()
        optimizer.step()
        ledger.close()
        model.requires_grad_(True)
    assert ex.Ledger(tmp_path).verify() == []
