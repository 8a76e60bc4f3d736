"""What a purge leaves, says and allows afterwards."""

from __future__ import annotations

import pytest
from training import OPTIMIZERS, batches, fit, net, subtracted, trained

import expunge as ex
from expunge import ExpungeError


def test_a_training_does_not_go_on_where_steps_were_purged(train, tmp_path):
    model, ledger, _ = trained(tmp_path / "one", train, keep=1.0, epochs=1)
    after = subtracted(model, ledger, train.ids[:1].tolist(), train)
    ledger.purge(after)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(ExpungeError, match=r"were purged from the ledger .*one.*another folder.*rewind\(0\)"):
        ex.Ledger(tmp_path / "one").watch(model, optimizer)
    plan = batches(train, 1)
    fit(after, train, plan, OPTIMIZERS["sgd"](after.parameters()), ex.Ledger(tmp_path / "two", keep=1.0))
    again = ex.Ledger(tmp_path / "one")
    again.rewind(0)
    story = fit(fresh := net(), train, plan, OPTIMIZERS["sgd"](fresh.parameters()), again)
    assert again.touched(train.ids[:1]).steps.tolist() == story.touched(train.ids[:1].tolist())
