"""A request after which no step is left is refused, whatever leads there; and what a control says of rows' shares."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from training import OPTIMIZERS, fit, net, subtracted, trained, weights

import expunge as ex
from expunge import ExpungeError
from expunge.run import Run
from kit import bits


def in_turn(folder, rows, steps: int = 20, **settings):
    """A training in which each step has five rows that no other step has."""
    model, ledger = net(), ex.Ledger(folder, keep=1.0, **settings)
    first = weights(model)
    fit(model, rows, list(torch.arange(5 * steps).split(5)), OPTIMIZERS["momentum"](model.parameters()), ledger)
    return model, ledger, first


def unlearned(model, rows, ledger, ids, **fields):
    request = ex.Request(rows, ids=ids)
    return ex.unlearn(copy.deepcopy(model), request, "amnesiac", ledger=ledger, control=False, **fields)


def test_spill_over_every_step_is_refused(train, tmp_path):
    model, ledger, first = in_turn(tmp_path, train)
    ids = train.ids[:2].tolist()
    with pytest.raises(ExpungeError, match=r"lacks 20 of 20 \(100\.0 %\).*gives the untrained model back.*allow_full"):
        unlearned(model, train, ledger, ids, spill=100)
    assert not ledger.deletions
    full = unlearned(model, train, ledger, ids, spill=100, allow_full=True)
    assert all(torch.allclose(p, first[n], rtol=0, atol=1e-6) for n, p in full.model.named_parameters())
    some = unlearned(model, train, ledger, ids, spill=7)
    assert some.log.facts["touched"]["lacking"] == 8
    assert "the model lacks 8 of 20 (40.0 %) afterwards." in some.log.notes[2]
    assert any(note.startswith("Above about 15 % the model suffers") for note in some.log.notes)


def test_a_stream_of_requests_may_not_lead_there_either(train, tmp_path):
    model, ledger, _ = in_turn(tmp_path, train)
    once = unlearned(model, train, ledger, train.ids[:95:5].tolist()).model  # one row of each of 19 steps
    last = train.ids[95:96].tolist()
    with pytest.raises(ExpungeError, match=r"1 row took part in 1 of 20 steps.*lacks 20 of 20.*untrained model back"):
        unlearned(once, train, ledger, last)
    full = unlearned(once, train, ledger, last, allow_full=True).model
    again = unlearned(full, train, ledger, train.ids[1:2].tolist()).model  # its step is taken back: nothing to refuse
    assert bits(again) == bits(full)


def test_what_it_means_is_told_of_all_that_the_model_lacks(train, tmp_path):
    model, ledger, _ = in_turn(tmp_path, train)
    small = "A share this small is what subtracting steps is good at"
    first = unlearned(model, train, ledger, train.ids[:15:5].tolist())  # 3 of 20 steps
    assert any(note.startswith(small) for note in first.log.notes)
    second = unlearned(first.model, train, ledger, train.ids[15:16].tolist())
    assert not any(note.startswith(small) for note in second.log.notes)
    assert any("the model lacks 4 of 20 (20.0 %) afterwards" in note for note in second.log.notes)


def test_steps_that_a_scaler_skipped_are_nothing_to_be_left_with(train, tmp_path):
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=4.0)
    ledger.watch(model, optimizer, scaler=scaler)
    for step in range(4):
        index = torch.arange(5 * step, 5 * step + 5)
        optimizer.zero_grad()
        ledger.uses(train.ids[index.numpy()])
        loss = torch.nn.functional.cross_entropy(model(train.x(index)), train.y[index])
        scaler.scale(loss * (float("inf") if step == 0 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    ledger.close()
    with pytest.raises(ExpungeError, match=r"3 of 4 steps.*gives the untrained model back"):
        unlearned(model, train, ledger, train.ids[[5, 10, 15]].tolist())


def test_rows_shares_are_no_steps_to_run_out_of(train, tmp_path):
    model, ledger, _ = in_turn(tmp_path, train, steps=4, record="sample")
    assert bits(unlearned(model, train, ledger, train.ids[:20:5].tolist()).model) != bits(model)


def right(model, rows, index) -> float:
    with torch.no_grad():
        return 100 * float(np.mean(model.eval()(rows.x(index)).numpy().argmax(1) == rows.y[index].numpy()))


def test_rows_shares_have_a_control_of_as_many_other_rows(train, tmp_path):
    model, ledger, _ = trained(
        tmp_path, train, "momentum", keep=1.0, record="sample", sensitive=train.ids[:60].tolist()
    )
    request = ex.Request(train, ids=train.ids[:20].tolist())
    result = ex.unlearn(copy.deepcopy(model), request, "amnesiac", ledger=ledger, seed=3)
    # the rows that the control takes: of those left, by the generator of that name
    left = sorted(train.ids[20:60].tolist(), key=str)
    drawn = [left[i] for i in torch.randperm(40, generator=Run(seed=3).generator("control"))[:20].tolist()]
    control = subtracted(model, ledger, drawn, train)
    keep = request.keep
    found = result.log.facts["control"]
    assert found["rows"] == 20
    for name, one in (("before", model), ("after", result.model), ("control", control)):
        assert found[name]["forget"] == pytest.approx(right(one, train, request.forget))
        assert found[name]["retain"] == pytest.approx(right(one, train, keep))
    assert len({tuple(found[name].values()) for name in ("before", "after", "control")}) == 3
    said = f"Control, the shares of 20 other rows subtracted: {found['control']['forget']:.1f} %"
    assert said in result.log.notes[-1]


def test_a_control_takes_no_row_that_is_taken_back_already(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, "sgd", keep=1.0, record="sample", sensitive=train.ids[:6].tolist())
    once = subtracted(model, ledger, train.ids[:3].tolist(), train)
    request = ex.Request(train, ids=train.ids[3:5].tolist())
    result = ex.unlearn(once, request, "amnesiac", ledger=ledger)
    assert result.log.facts["control"]["rows"] == 1  # all that is left


def test_without_other_rows_there_is_no_control_and_it_says_so(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train, "sgd", keep=1.0, record="sample", sensitive=train.ids[:3].tolist())
    request = ex.Request(train, ids=train.ids[:3].tolist())
    result = ex.unlearn(model, request, "amnesiac", ledger=ledger)
    assert "control" not in result.log.facts
    assert result.log.notes[-1] == "There is no control: the ledger holds no shares of other rows."
